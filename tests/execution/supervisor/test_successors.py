"""A process that waits in the engine for another one to end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from remsvc.errors import StartError
from remsvc.execution.engine import Engine, Process, ProcessSpec, WithdrawnError
from remsvc.execution.engine_choice import create_engine
from tests.execution.processes import eventually, own_descriptors

pytestmark = pytest.mark.skipif(os.name != "posix", reason="on Windows no process waits for another one")

Start = Callable[..., Process]


@pytest.fixture
def start(engine: Engine) -> Start:
    """``start(text, after=process)``"""

    def start(text: str, after: Process | None = None, program: str = "/bin/sh", **options: float) -> Process:
        env = {"PATH": os.environ["PATH"]}
        return engine.start(ProcessSpec((program, "-c", text), env, "/", **options), after)  # type: ignore[arg-type]

    return start


def until(path: Path, then: str = ":") -> str:
    return f": >{path}.runs; until [ -e {path} ]; do sleep 0.01; done; {then}"


async def runs(path: Path) -> None:
    await eventually(Path(f"{path}.runs").exists, "it runs")


async def test_it_starts_when_the_one_before_has_ended_and_not_before(
    engine: Engine, start: Start, tmp_path: Path
) -> None:
    assert engine.can_start_after
    first = start(until(tmp_path / "go", f"echo first >>{tmp_path}/order"))
    second = start(f"echo second >>{tmp_path}/order", after=first)
    await runs(tmp_path / "go")
    await start(":").wait()  # what was sent before this has been taken
    assert not (tmp_path / "order").exists()
    (tmp_path / "go").touch()
    assert ((await second.wait()).exit_code, (await first.wait()).exit_code) == (0, 0)
    assert (tmp_path / "order").read_text() == "first\nsecond\n"


async def test_it_starts_at_once_where_the_one_before_has_ended_already(start: Start) -> None:
    first = start("exit 3")
    assert (await first.wait()).exit_code == 3
    assert (await start("exit 4", after=first).wait()).exit_code == 4


async def test_it_waits_for_all_that_the_one_before_wrote(start: Start, tmp_path: Path) -> None:
    """Also where a process in the background still holds the output open, for a moment."""
    first = start(f"(sleep 0.05; echo late; echo late >>{tmp_path}/order) & echo soon")
    second = start(f"echo second >>{tmp_path}/order", after=first)
    outcome = await first.wait()
    await second.wait()
    assert outcome.stdout.head == b"soon\nlate\n"
    assert (tmp_path / "order").read_text() == "late\nsecond\n"


@pytest.mark.parametrize("how", ["withdraw", "end"])
async def test_one_that_waits_can_be_taken_back(start: Start, tmp_path: Path, how: str) -> None:
    first = start(until(tmp_path / "go"))
    second = start(f": >{tmp_path}/ran", after=first)
    await runs(tmp_path / "go")
    descriptors = own_descriptors()
    getattr(second, how)()
    with pytest.raises(WithdrawnError):
        await second.wait()
    assert second.withdrawn
    (tmp_path / "go").touch()
    assert (await first.wait()).exit_code == 0
    await start(":").wait()
    assert not (tmp_path / "ran").exists()
    assert own_descriptors() == descriptors


async def test_one_that_has_started_is_not_taken_back(start: Start, tmp_path: Path) -> None:
    first = start(":")
    second = start(until(tmp_path / "go", "exit 5"), after=first)
    await first.wait()
    await runs(tmp_path / "go")
    second.withdraw()
    await start(":").wait()
    (tmp_path / "go").touch()
    assert (await second.wait()).exit_code == 5
    assert not second.withdrawn


async def test_one_that_cannot_start_says_so_and_costs_the_one_before_nothing(
    start: Start, tmp_path: Path
) -> None:
    first = start(until(tmp_path / "go", "exit 6"))
    second = start("", after=first, program="/nowhere/program")
    (tmp_path / "go").touch()
    assert (await first.wait()).exit_code == 6
    with pytest.raises(StartError, match="No such file"):
        await second.wait()


async def test_it_goes_with_one_that_is_ended(start: Start, tmp_path: Path) -> None:
    """Nobody need be quick enough to take it back first."""
    first = start(until(tmp_path / "never"))
    second = start(f": >{tmp_path}/ran", after=first)
    await runs(tmp_path / "never")
    first.end()
    assert (await first.wait()).signal == 9
    assert second.withdrawn
    await start(":").wait()
    assert not (tmp_path / "ran").exists()


async def test_it_starts_after_one_whose_time_is_up(start: Start, tmp_path: Path) -> None:
    first = start(until(tmp_path / "never"), time_limit=1.0)
    second = start("echo second", after=first)
    assert (await first.wait()).timed_out
    assert (await second.wait()).stdout.head == b"second\n"


async def test_a_closed_engine_starts_nothing_that_waits(tmp_path: Path) -> None:
    engine = create_engine()
    await engine.open()
    spec = {"env": {"PATH": os.environ["PATH"]}, "cwd": "/"}
    first = engine.start(ProcessSpec(("/bin/sh", "-c", until(tmp_path / "never")), **spec))
    engine.start(ProcessSpec(("/bin/sh", "-c", f": >{tmp_path}/ran"), **spec), first)
    await runs(tmp_path / "never")
    await engine.close()
    assert not (tmp_path / "ran").exists()
