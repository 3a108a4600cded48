"""Starts that something holds up: how long they may take, how many of a caller, and how they end."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from remsvc.errors import StartError
from remsvc.execution.engine import Engine, Process, ProcessSpec, WithdrawnError
from remsvc.execution.supervisor.starting import MAX_STARTING, START_SECONDS, Starts
from tests.execution.hanging_files import hanging_mount, leased_program
from tests.execution.processes import children, eventually, processes_with

_numbers = itertools.count(1)


@pytest.fixture
def leased(tmp_path: Path) -> Iterator[Path]:
    with leased_program(tmp_path / "leased") as program:
        yield program


def start(engine: Engine, program: Path | str, caller: str = "bad", **options: object) -> Process:
    mark = f"starts-{os.getpid()}-{next(_numbers)}"
    env = {"PATH": os.environ["PATH"], "REMSVC_COMMAND_ID": mark}
    spec: dict[str, object] = {
        "argv": (str(program),),
        "env": env,
        "cwd": "/",
        "caller": caller,
        **options,
    }
    return engine.start(ProcessSpec(**spec))  # type: ignore[arg-type]


def starting() -> set[int]:
    """Processes that are still copies of the supervisor of this process."""
    copies = set()
    for pid in children(os.getpid()) & processes_with("-I"):
        copies |= children(pid) & processes_with("-I")
    return copies


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """One that is not held up, but might be: it is not root's, or in a folder that is not."""
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    if os.geteuid() == 0:
        os.chown(program, pwd.getpwnam("nobody").pw_uid, -1)
    return program


async def ended(process: Process) -> str:
    """How it ended, in a word."""
    try:
        outcome = await process.wait()
    except WithdrawnError:
        return "withdrawn"
    except StartError as error:
        return str(error)
    return f"signal {outcome.signal}" if outcome.signal else f"exit code {outcome.exit_code}"


async def test_what_never_starts_is_given_up_and_says_why(engine: Engine, leased: Path) -> None:
    held_up = [start(engine, leased) for _ in range(MAX_STARTING)]
    waits = start(engine, leased)
    reason = "it could not be started within 10 s: its program or its working directory does not answer"
    assert [await ended(process) for process in held_up] == [reason] * MAX_STARTING
    others = f"it could not be started within 10 s: {MAX_STARTING} others of the same caller are starting"
    assert (await ended(waits)).startswith((others, reason))
    await eventually(lambda: not starting(), "those that were given up are gone")


async def test_others_start_meanwhile_and_the_caller_itself_afterwards(
    engine: Engine, leased: Path, program: Path
) -> None:
    held_up = [start(engine, leased) for _ in range(MAX_STARTING)]
    waits, withdrawn = start(engine, program), start(engine, program)
    assert await ended(start(engine, program, "good")) == "exit code 0"
    assert await ended(start(engine, "/bin/true", "bad")) == "exit code 0"  # that cannot be held up
    assert len(starting()) == MAX_STARTING
    withdrawn.end()
    assert await ended(withdrawn) == "withdrawn"
    for process in held_up:
        process.end()
    assert {await ended(process) for process in held_up} == {"signal 9"}
    assert await ended(waits) == "exit code 0"
    assert not starting()


async def test_a_time_limit_counts_while_a_start_is_held_up(engine: Engine, leased: Path) -> None:
    assert (await start(engine, leased, time_limit=0.3).wait()).timed_out


async def test_one_that_is_held_up_holds_no_pipe_of_others(engine: Engine, leased: Path) -> None:
    """Or the end of their output would not be seen as long as it lasts."""
    others = [start(engine, "/bin/sleep", "good", argv=("/bin/sleep", "1.0625")) for _ in range(3)]
    # For a moment, each of them is a copy of the supervisor, too.
    await eventually(lambda: len(processes_with("1.0625")) == 3 and not starting(), "they run")
    held_up = start(engine, leased)
    await eventually(starting, "it is on its way")
    (pid,) = starting()
    await eventually(lambda: len(os.listdir(f"/proc/{pid}/fd")) == 4, "streams and verdict are all it has")
    assert {await ended(process) for process in others} == {"exit code 0"}
    held_up.end()
    await ended(held_up)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "No such file or directory: /nowhere/program"),
        ({"argv": ("no-such-program",)}, "No such file or directory: no-such-program"),
        ({"argv": ("/etc/passwd",)}, "Permission denied: /etc/passwd"),
    ],
)
@pytest.mark.parametrize("cwd", ["/", "/proc"], ids=["at once", "in a copy"])
async def test_why_nothing_could_be_started(
    engine: Engine, options: dict[str, object], reason: str, cwd: str
) -> None:
    assert await ended(start(engine, "/nowhere/program", cwd=cwd, **options)) == reason


async def test_a_folder_in_a_mount_that_comes_and_goes(engine: Engine, tmp_path: Path) -> None:
    """What was known of a path holds no longer when something is mounted there."""
    folder = tmp_path / "folder"
    folder.mkdir()
    where = {"cwd": str(folder), "argv": ("/bin/true",)}
    assert await ended(start(engine, "", **where)) == "exit code 0"
    with hanging_mount(folder):
        held_up = start(engine, "", **where)
        assert await ended(start(engine, "/bin/true", "good")) == "exit code 0"
        await eventually(starting, "it is on its way")
        held_up.end()
        assert await ended(held_up) == "signal 9"
    assert await ended(start(engine, "", **where)) == "exit code 0"


def test_one_that_waits_is_given_up_only_where_nothing_of_its_caller_gets_on() -> None:
    starts = Starts()
    for pid in range(MAX_STARTING):
        starts.begin(pid, "slow")
    waits = SimpleNamespace(id="waits", caller="slow")
    starts.put(waits)  # type: ignore[arg-type]
    assert starts.patience("waits") == 0
    starts.end(0)  # it could not be started
    assert starts.patience("waits") == 0
    starts.end(1, became=True)
    assert 0 < starts.patience("waits") <= START_SECONDS
    assert starts.patience("another") == 0
