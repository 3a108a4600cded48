"""The engine on Windows, without a server around it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remsvc.errors import StartError
from remsvc.execution.engine import Engine, ProcessEnd, ProcessSpec
from remsvc.execution.engine_choice import create_engine
from remsvc.execution.shell import shell_argv

from .processes import alive, kill, open_handles, wait_until_gone

ENV = dict(os.environ)

# Starts a grandchild that would run for minutes, prints its process id, and then waits itself.
SLEEPER = "import time; time.sleep(300)"
WITH_GRANDCHILD = (
    "import subprocess, sys, time\n"
    f"child = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(300)\n"
)
LEAVING_GRANDCHILD = WITH_GRANDCHILD.rpartition("time.sleep")[0]


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = create_engine()
    await engine.open()
    yield engine
    await engine.close()


def shell(text: str, **settings: float) -> ProcessSpec:
    return ProcessSpec(shell_argv(text, 0, ""), ENV, "C:\\", **settings)  # type: ignore[arg-type]


def python(code: str, *arguments: str, **settings: float) -> ProcessSpec:
    return ProcessSpec((sys.executable, "-c", code, *arguments), ENV, "C:\\", **settings)  # type: ignore[arg-type]


async def run(engine: Engine, spec: ProcessSpec) -> ProcessEnd:
    return await engine.start(spec).wait()


async def first_number(engine: Engine, marker: Path) -> int:
    """The number in a file that a command is about to write."""
    for _ in range(1500):
        if marker.exists() and (text := marker.read_text()).endswith("\n"):
            return int(text)
        await asyncio.sleep(0.02)
    raise AssertionError(f"{marker} was never written")


async def test_output_and_exit_code(engine: Engine) -> None:
    outcome = await run(engine, shell("echo out& >&2 echo err& exit 7"))
    assert (outcome.exit_code, outcome.signal, outcome.timed_out) == (7, None, False)
    assert (outcome.stdout.head, outcome.stdout.total) == (b"out\r\n", 5)
    assert outcome.stderr.head == b"err\r\n"


async def test_exit_codes_are_signed_as_the_wire_is(engine: Engine) -> None:
    assert (await run(engine, shell("exit -1"))).exit_code == -1
    access_violation = python("import ctypes; ctypes.windll.kernel32.ExitProcess(0xC0000005)")
    assert (await run(engine, access_violation)).exit_code == -1073741819


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ('echo "a b" c', '"a b" c'),
        ('"%ComSpec%" /C echo "x" "y z"', '"x" "y z"'),
        ("echo a^&b", "a&b"),
        (r"echo C:\dir with space\ ", "C:\\dir with space\\ "),
        ("echo 1 & echo 2", "1 \r\n2"),
        ("echo %OS%", "Windows_NT"),
        ("echo last line\r\n", "last line"),
        ("\necho first line", "first line"),
        ("echo h\u00e9", "h\u00e9"),
    ],
)
async def test_cmd_exe_gets_the_text_as_it_is(engine: Engine, text: str, out: str) -> None:
    assert (await run(engine, shell(text))).stdout.head.decode() == f"{out}\r\n"


async def test_other_programs_get_their_arguments_as_they_are(engine: Engine) -> None:
    arguments = [
        "",
        "a b",
        'say "hi"',
        "back\\slash\\",
        'both\\"',
        "%OS%",
        "^&|<>",
        "\u00fc \u4e2d",
        "two\nlines",
    ]
    code = "import sys; sys.stdout.buffer.write(ascii(sys.argv[1:]).encode())"
    assert (await run(engine, python(code, *arguments))).stdout.head.decode() == ascii(arguments)


async def test_a_program_is_looked_up_in_the_path_alone(engine: Engine, tmp_path: Path) -> None:
    spec = ProcessSpec(("cmd", "/C", "echo found"), ENV, "C:\\")
    assert (await run(engine, spec)).stdout.head == b"found\r\n"
    with pytest.raises(StartError, match=r"cmd cannot be started: there is no such program in PATH"):
        await run(engine, ProcessSpec(("cmd", "/C", "echo"), {**ENV, "PATH": str(tmp_path)}, "C:\\"))


async def test_what_is_no_program_cannot_be_started(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "no.exe"
    with pytest.raises(StartError, match=r"no\.exe cannot be started: "):
        await run(engine, ProcessSpec((str(path),), ENV, "C:\\"))
    path.write_text("no program")
    with pytest.raises(StartError, match=r"no\.exe cannot be started: "):
        await run(engine, ProcessSpec((str(path),), ENV, "C:\\"))


async def test_standard_input_is_empty(engine: Engine) -> None:
    assert (await run(engine, python("import sys; print(sys.stdin.read() == '')"))).stdout.head == b"True\r\n"


async def test_the_environment_is_the_given_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_SECRET", "hidden")
    code = "import os; print(os.environ.get('SERVER_SECRET'), os.environ['GIVEN'])"
    spec = ProcessSpec((sys.executable, "-c", code), {**ENV, "GIVEN": "a=b"}, "C:\\")
    assert (await run(engine, spec)).stdout.head == b"None a=b\r\n"


async def test_the_working_directory(engine: Engine, tmp_path: Path) -> None:
    argv = shell_argv("cd", 0, "")
    here = await run(engine, ProcessSpec(argv, ENV, str(tmp_path)))
    assert here.stdout.head.decode().strip().lower() == str(tmp_path).lower()
    root = await run(engine, ProcessSpec(argv, ENV, str(tmp_path / "missing")))
    assert root.stdout.head.decode().strip().lower() == Path(argv[0]).anchor.lower()


async def test_the_time_limit_ends_the_whole_tree(engine: Engine) -> None:
    for limit in (2, 10, 40):  # a slow machine needs longer to start it at all
        outcome = await run(engine, python(WITH_GRANDCHILD, time_limit=limit))
        assert outcome.timed_out
        if outcome.stdout.head:
            break
    wait_until_gone(int(outcome.stdout.head))


async def test_ending_a_process_ends_the_whole_tree(engine: Engine, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    code = f"import sys; sys.stdout = open({str(marker)!r}, 'w')\n{WITH_GRANDCHILD}"
    process = engine.start(python(code))
    grandchild = await first_number(engine, marker)
    assert alive(grandchild)
    process.end()
    process.end()
    outcome = await process.wait()
    assert not outcome.timed_out
    assert outcome.exit_code != 0
    wait_until_gone(grandchild)
    process.end()


async def test_a_process_may_be_ended_as_soon_as_it_is_asked_for(engine: Engine) -> None:
    processes = [engine.start(python(SLEEPER)) for _ in range(20)]
    for process in processes:
        process.end()
    for outcome in await asyncio.gather(*(process.wait() for process in processes), return_exceptions=True):
        assert isinstance(outcome, StartError) or (isinstance(outcome, ProcessEnd) and outcome.exit_code != 0)


async def test_waiting_again_after_a_cancelled_wait(engine: Engine) -> None:
    process = engine.start(shell("ping -n 2 127.0.0.1 >NUL& exit 3"))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(process.wait(), 0.01)
    assert (await process.wait()).exit_code == 3
    assert (await process.wait()).exit_code == 3


async def test_a_background_process_neither_delays_the_answer_nor_dies_with_it(engine: Engine) -> None:
    outcome = await run(engine, python(LEAVING_GRANDCHILD))
    grandchild = int(outcome.stdout.head)
    try:
        assert outcome.exit_code == 0
        assert alive(grandchild)
    finally:
        kill(grandchild)


async def test_output_over_the_limit_is_read_counted_and_dropped(engine: Engine) -> None:
    code = "import os\nfor _ in range(100): os.write(1, b'x' * 1_000_000)\nos.write(2, b'y' * 1000)"
    outcome = await run(engine, python(code, output_limit=1000))
    assert outcome.stdout.head == b"x" * 1000
    assert outcome.stdout.total == 100_000_000
    assert outcome.stderr.head == b"y" * 1000
    assert outcome.stderr.total == 1000


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("h\u00e9 \u4e2d\n".encode(), "h\u00e9 \u4e2d\n"),
        ("caf\u00e9\n".encode("oem"), "caf\u00e9\n"),
        ("h\u00e9\n".encode() + "h\u00e9\n".encode("oem"), "h\u00e9\nh\u00e9\n"),
    ],
)
async def test_each_line_is_utf_8_or_in_the_oem_code_page(engine: Engine, written: bytes, text: str) -> None:
    outcome = await run(engine, python(f"import os; os.write(1, {written!r})"))
    assert outcome.stdout.head.decode() == text
    assert outcome.stdout.total == len(text.encode())


async def test_a_character_cut_by_the_limit_is_still_utf_8(engine: Engine) -> None:
    written = "\u4e2d\u4e2d".encode()
    outcome = await run(engine, python(f"import os; os.write(1, {written!r})", output_limit=5))
    assert (outcome.stdout.head, outcome.stdout.total) == (written[:5], 6)


async def test_converted_output_keeps_to_the_limit(engine: Engine) -> None:
    written = ("\u00e9" * 10).encode("oem")
    outcome = await run(engine, python(f"import os; os.write(1, {written!r})", output_limit=11))
    assert outcome.stdout.head == ("\u00e9" * 10).encode()[:11]
    assert outcome.stdout.total == 20


async def test_many_commands_at_once_need_no_thread_each_and_leave_no_handle(engine: Engine) -> None:
    async def run_many(count: int) -> list[ProcessEnd]:
        processes = [engine.start(shell(f"echo {number}")) for number in range(count)]
        assert threading.active_count() == threads
        return list(await asyncio.gather(*(process.wait() for process in processes)))

    threads = threading.active_count()
    await run_many(50)  # what is allocated once is there now
    before = open_handles()
    outcomes = await run_many(100)
    assert [outcome.stdout.head for outcome in outcomes] == [b"%d\r\n" % number for number in range(100)]
    assert open_handles() <= before + 20


async def test_closing_ends_what_runs_and_nothing_starts_after_it(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    engine = create_engine()
    await engine.open()
    process = engine.start(python(f"import sys; sys.stdout = open({str(marker)!r}, 'w')\n{WITH_GRANDCHILD}"))
    grandchild = await first_number(engine, marker)
    await engine.close()
    await engine.close()
    assert (await process.wait()).exit_code != 0
    wait_until_gone(grandchild)
    process.end()
    with pytest.raises(StartError, match="not running"):
        await engine.start(shell("echo")).wait()


def test_when_the_server_dies_its_commands_die_with_it(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    server = (
        "import asyncio, os, sys\n"
        "from remsvc.execution.engine import ProcessSpec\n"
        "from remsvc.execution.engine_choice import create_engine\n"
        "async def main():\n"
        "    engine = create_engine()\n"
        "    await engine.open()\n"
        "    spec = ProcessSpec((sys.executable, '-c', sys.argv[1]), dict(os.environ), 'C:')\n"
        "    await engine.start(spec).wait()\n"
        "asyncio.run(main())\n"
    )
    command = f"import sys; sys.stdout = open({str(marker)!r}, 'w')\n{WITH_GRANDCHILD}"
    process = subprocess.Popen([sys.executable, "-c", server, command], stdin=subprocess.DEVNULL)
    try:
        grandchild = asyncio.run(first_number(create_engine(), marker))
        assert alive(grandchild)
    finally:
        process.kill()
        process.wait()
    wait_until_gone(grandchild)
