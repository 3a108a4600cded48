"""Ctrl-C at any step of a call: it comes out, and nothing of the call stays behind."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import pytest

from remsvc.cli.exit_codes import INTERRUPTED
from remsvc.cli.outcome import errors_told
from remsvc.client import Client, ConnectionOptions, OutputChunk

from .scripted_jobs import ScriptedJobs

if TYPE_CHECKING:
    from typing_extensions import Self

UPSET_LOCK = "cannot release un-acquired lock"
"""What Python says where Ctrl-C comes between giving up a lock and taking it back: no line is so small."""


Place = tuple[CodeType, int]
"""A line of a function of the client."""


class Steps:
    """While it is entered, takes down the client's steps; at one of them it interrupts, as a signal would."""

    def __init__(self, last: Place | None = None) -> None:
        self._last = last
        self.seen: dict[Place, None] = {}  # in the order of their first step

    def __enter__(self) -> Self:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if "/remsvc/client/" not in frame.f_code.co_filename.replace("\\", "/"):
            return None
        if frame.f_code.co_name == "<genexpr>":  # a generator that is taken down cannot raise it
            return None
        if event == "line":
            place = (frame.f_code, frame.f_lineno)
            self.seen[place] = None
            if place == self._last:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


def watch(jobs: ScriptedJobs, steps: Steps) -> BaseException | None:
    """What a watch for the first output raised."""
    error = None
    with Client(ConnectionOptions(jobs.target, transport="http2").for_jobs()) as client:
        events = client.watch_job("job1")
        try:
            with steps:
                for event in events:
                    if isinstance(event, OutputChunk):
                        break
        except BaseException as caught:  # noqa: BLE001
            error = caught
    return error


def connections() -> list[str]:
    """The threads of connections that run."""
    return [thread.name for thread in threading.enumerate() if thread.name == "remsvc-connection"]


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Lets go of what a test has left in cycles while its own filters of warnings still hold."""
    yield
    gc.collect()


# A socket that was just being opened is closed with its last reference, which Python remarks on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.usefixtures("forgotten")
def test_control_c_at_any_step_comes_out_and_leaves_no_thread(
    jobs: ScriptedJobs, eventually: Callable[[Callable[[], object]], None]
) -> None:
    jobs.add(b"first words")
    whole = Steps()
    assert watch(jobs, whole) is None
    assert len(whole.seen) > 200
    for place in whole.seen:
        if (error := watch(jobs, Steps(place))) is None:
            continue  # the network came to it in another way
        told = f"{place[0].co_name} line {place[1]}: {error!r}"
        assert isinstance(error, KeyboardInterrupt) or str(error) == UPSET_LOCK, told
        with pytest.raises(SystemExit) as end, errors_told():
            raise error
        assert end.value.code == INTERRUPTED, told
        eventually(lambda: not connections())


def test_a_defect_is_not_taken_for_control_c(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, errors_told():
        raise RuntimeError("a defect")
    assert end.value.code != INTERRUPTED
    assert "internal error: RuntimeError: a defect" in capsys.readouterr().err
