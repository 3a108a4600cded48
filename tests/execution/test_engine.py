"""What a process's outcome says, and what a process is given."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import sys
import time
from pathlib import Path

import pytest

from remsvc.errors import ExecutionError, StartError
from remsvc.execution.engine import Engine, ProcessEnd, ProcessSpec
from remsvc.execution.engine_choice import create_engine
from remsvc.execution.supervisor.protocol import Credentials

from .conftest import Shell
from .processes import children, eventually, own_descriptors, processes_with


async def supervisor_pid() -> int:
    def find() -> set[int]:
        return children(os.getpid()) & processes_with("-I")

    await eventually(find, "the supervisor runs")
    return find().pop()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


async def test_exit_code_and_both_outputs_apart(shell: Shell) -> None:
    outcome = await shell("echo out; echo err >&2; exit 7").wait()
    assert (outcome.exit_code, outcome.signal, outcome.timed_out) == (7, None, False)
    assert (outcome.stdout.head, outcome.stdout.total) == (b"out\n", 4)
    assert (outcome.stderr.head, outcome.stderr.total) == (b"err\n", 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
async def test_a_signal_is_told_from_an_exit_code(shell: Shell, number: signal.Signals) -> None:
    outcome = await shell(f"kill -{number.value} $$").wait()
    assert (outcome.exit_code, outcome.signal) == (None, number.value)


async def test_output_is_bytes_unchanged(shell: Shell) -> None:
    outcome = await shell(r"printf '\000\377\r\n\303'").wait()
    assert outcome.stdout.head == b"\0\xff\r\n\xc3"


async def test_only_the_head_of_the_output_is_kept_and_all_of_it_is_counted(shell: Shell) -> None:
    outcome = await shell("seq 1 200000", output_limit=100).wait()
    assert outcome.stdout.head == "".join(f"{n}\n" for n in range(1, 200)).encode()[:100]
    assert outcome.stdout.total == sum(len(f"{n}\n") for n in range(1, 200_001))


async def test_writing_to_dev_stderr_keeps_what_was_written_before(shell: Shell) -> None:
    """A file in a pipe's place would be truncated by ``> /dev/stderr``."""
    outcome = await shell("echo one >&2; echo two > /dev/stderr; echo a; echo b > /dev/stdout").wait()
    assert outcome.stderr.head == b"one\ntwo\n"
    assert outcome.stdout.head == b"a\nb\n"


async def test_standard_input_is_empty(shell: Shell) -> None:
    assert (await shell("cat; echo $?").wait()).stdout.head == b"0\n"


async def test_nothing_is_inherited_but_the_three_streams(shell: Shell) -> None:
    outcome = await shell("ls /proc/self/fd; umask", env={"PATH": os.environ["PATH"]}).wait()
    # ls itself opens the folder as descriptor 3.
    assert outcome.stdout.head == b"0\n1\n2\n3\n0022\n"
    outcome = await shell("/usr/bin/env", env={"A": "b c"}).wait()
    assert b"A=b c" in outcome.stdout.head.splitlines()
    assert not [line for line in outcome.stdout.head.splitlines() if line[:4] not in (b"A=b ", b"PWD=")]


async def test_signals_that_python_ignores_are_not_ignored(shell: Shell) -> None:
    outcome = await shell("grep SigIgn /proc/self/status").wait()
    # Of 32 and 33, glibc's own, posix_spawn makes a mess of its own.
    assert int(outcome.stdout.head.split()[1], 16) & 0x7FFFFFFF == 0


async def test_it_leads_its_own_session_and_process_group(shell: Shell) -> None:
    outcome = await shell("ps -o pid=,pgid=,sid= -p $$").wait()
    pid, group, session = map(int, outcome.stdout.head.split())
    assert pid == group == session != os.getsid(0)


async def test_a_program_is_looked_up_in_the_given_path(engine: Engine, tmp_path: Path) -> None:
    program = tmp_path / "hello"
    program.write_text("#!/bin/sh\necho hello $1\n")
    program.chmod(0o755)
    spec = ProcessSpec(("hello", "you"), {"PATH": f"{tmp_path}:/usr/bin:/bin"}, "/")
    assert (await engine.start(spec).wait()).stdout.head == b"hello you\n"


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("/no/such/program",), "No such file or directory: /no/such/program"),
        (("no-such-program",), "No such file or directory: no-such-program"),
        (("/etc",), "Permission denied: /etc"),
        (("/bin/echo", "x" * 200_000), "longer than the system can start"),
        (("/bin/echo", "a\0b"), "null byte"),
    ],
)
async def test_what_cannot_be_started_says_why(engine: Engine, argv: tuple[str, ...], reason: str) -> None:
    process = engine.start(ProcessSpec(argv, {"PATH": "/usr/bin:/bin"}, "/"))
    with pytest.raises(StartError) as caught:
        await process.wait()
    assert reason in str(caught.value)


async def test_the_working_directory(shell: Shell, tmp_path: Path) -> None:
    assert (await shell("pwd", cwd=str(tmp_path)).wait()).stdout.head.decode().strip() == str(tmp_path)
    assert (await shell("pwd", cwd=str(tmp_path / "missing")).wait()).stdout.head == b"/\n"
    assert (await shell("pwd").wait()).stdout.head == b"/\n"


@needs_root
async def test_another_user_with_its_groups(shell: Shell, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    credentials = Credentials(nobody.pw_uid, nobody.pw_gid, (nobody.pw_gid, 12, 34))
    outcome = await shell("id -u; id -g; id -G", credentials=credentials).wait()
    uid, gid, *groups = outcome.stdout.head.split()
    assert (int(uid), int(gid)) == (nobody.pw_uid, nobody.pw_gid)
    assert set(map(int, groups)) == {nobody.pw_gid, 12, 34}
    tmp_path.chmod(0o700)
    outcome = await shell("pwd", credentials=credentials, cwd=str(tmp_path)).wait()
    assert outcome.stdout.head == b"/\n"


async def test_a_background_process_holding_the_output_delays_nothing(shell: Shell, tmp_path: Path) -> None:
    """It lives on, and may go on writing: nobody reads, but nobody closes the pipe on it either."""
    done, go = tmp_path / "done", tmp_path / "go"
    os.mkfifo(go)
    script = f"(read line < {go}; echo late; echo late; touch {done}) & echo early"
    outcome = await asyncio.wait_for(shell(script).wait(), 10)
    assert (outcome.exit_code, outcome.stdout.head) == (0, b"early\n")
    await asyncio.to_thread(go.write_text, "now\n")
    await eventually(done.exists, "the background process has written and gone on")


async def test_a_background_process_that_never_stops_writing_delays_nothing(shell: Shell) -> None:
    outcome = await asyncio.wait_for(shell("yes & echo $!").wait(), 10)
    assert outcome.exit_code == 0
    os.kill(int(outcome.stdout.head.split(b"y\n")[0] or outcome.stdout.head.split()[-1]), signal.SIGKILL)


async def test_two_hundred_at_once(shell: Shell) -> None:
    outcomes = await asyncio.gather(*(shell(f"sleep 0.2; exit {n % 100}").wait() for n in range(200)))
    assert [outcome.exit_code for outcome in outcomes] == [n % 100 for n in range(200)]


async def test_memory_stays_bounded_when_a_gigabyte_is_printed(shell: Shell) -> None:
    supervisor = await supervisor_pid()
    outcome = await shell("head -c 1000000000 /dev/zero").wait()
    assert (outcome.exit_code, outcome.stdout.total, len(outcome.stdout.head)) == (0, 10**9, 262_144)
    status = Path(f"/proc/{supervisor}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0])
    assert peak < 100_000, f"the supervisor took {peak} kB"


async def test_nothing_is_left_after_many(shell: Shell) -> None:
    supervisor = await supervisor_pid()
    await shell("true").wait()
    before = len(os.listdir(f"/proc/{supervisor}/fd")), own_descriptors()
    for _ in range(10):
        await asyncio.gather(*(shell("true").wait() for _ in range(30)))
    assert len(os.listdir(f"/proc/{supervisor}/fd")) == before[0]
    assert own_descriptors() <= before[1]
    assert not children(supervisor)


async def test_closing_ends_everything() -> None:
    engine = create_engine()
    await engine.open()
    duration = f"{time.time_ns() % 10**9 + 10**6}.5"
    spec = ProcessSpec(
        ("/bin/sh", "-c", f"sleep {duration} & sleep {duration}"), {"PATH": "/usr/bin:/bin"}, "/"
    )
    waiting = asyncio.ensure_future(engine.start(spec).wait())
    await eventually(lambda: len(processes_with(duration)) == 2, "both run")
    await engine.close()
    with pytest.raises(ExecutionError):
        await waiting
    assert not processes_with(duration)
    await engine.close()


async def test_a_killed_supervisor_costs_outcomes_and_is_replaced(shell: Shell) -> None:
    duration = f"{time.time_ns() % 10**9 + 10**6}.5"
    process = shell(f"sleep {duration}")
    await eventually(lambda: processes_with(duration), "it runs")
    supervisor = await supervisor_pid()
    os.kill(supervisor, signal.SIGKILL)
    with pytest.raises(ExecutionError, match="not known"):
        await process.wait()
    for pid in processes_with(duration):
        os.kill(pid, signal.SIGKILL)

    async def try_again() -> ProcessEnd:
        while True:
            try:
                return await shell("echo again").wait()
            except StartError:
                await asyncio.sleep(0.02)

    assert (await asyncio.wait_for(try_again(), 30)).stdout.head == b"again\n"


def test_the_supervisor_takes_no_code_from_the_working_directory_or_the_environment(tmp_path: Path) -> None:
    """Somebody who can write where the server was started must not get root's supervisor."""
    import subprocess

    (tmp_path / "selectors.py").write_text("raise SystemExit('taken over')")
    (tmp_path / "sitecustomize.py").write_text("open('taken-over', 'w')")
    code = (
        "import asyncio\n"
        "from remsvc.execution.engine import ProcessSpec\n"
        "from remsvc.execution.engine_choice import create_engine\n"
        "async def main():\n"
        "    import os; os.environ['PYTHONPATH'] = os.getcwd()\n"
        "    engine = create_engine(); await engine.open()\n"
        "    print((await engine.start(ProcessSpec(('/bin/echo', 'fine'), {}, '/')).wait()).stdout.head)\n"
        "    await engine.close()\n"
        "asyncio.run(main())\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert result.stdout == "b'fine\\n'\n", result.stderr
    assert not (tmp_path / "taken-over").exists()
