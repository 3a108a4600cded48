"""How commands ended: exit records, and keeping them until a server has written them down."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

CommandId = int | str
"""The number that a server gives a version-1 command, or the id of a durable job."""

TIME_LIMIT, CANCELLED = "time limit", "cancelled"
"""The causes for which a supervisor ends a command."""

T = TypeVar("T")
_FILE = "exit.json"
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Gap:
    """What was dropped of an output: the bytes from ``start`` up to ``end``; none where they are equal."""

    start: int = 0
    end: int = 0


NO_GAPS = (Gap(), Gap())
"""Of standard output and error."""


@dataclass(frozen=True, slots=True)
class LostOutput:
    """How much of a job's output could not be stored.

    Attributes:
        stdout, stderr: bytes of each.
        why: the first error that kept them from the disk.
    """

    stdout: int = 0
    stderr: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How a command ended: told to the server, and written into the folder of a durable job.

    Attributes:
        exit_code: of its first process; None where that was ended by a signal, or never started.
        signal: the number of the signal that ended it.
        cause: why the supervisor ended it, :data:`TIME_LIMIT` or :data:`CANCELLED`; None where it did not.
        error: why it could not be started; None where it could.
        withdrawn: whether it was withdrawn before it started.
        totals: bytes of standard output and error that it wrote.
        gaps: what was dropped of each.
        lost: what could not be stored of them; None where all could.
        started: seconds since the epoch; None where it never was.
        ended: the same of its end; None where nobody noted it.
        left: what it left behind, or of its output may be missing, for a person; empty for nothing.
        garbled: what another version, or a damaged file, said instead of all this; empty where it is
            understood.
    """

    exit_code: int | None = None
    signal: int | None = None
    cause: str | None = None
    error: str | None = None
    withdrawn: bool = False
    totals: tuple[int, int] = (0, 0)
    gaps: tuple[Gap, Gap] = NO_GAPS
    lost: LostOutput | None = None
    started: float | None = None
    ended: float | None = None
    left: str = ""
    garbled: str = ""

    def to_json(self) -> dict[str, Any]:
        """It as messages and files have it. A reader takes what is absent for the default."""
        said: dict[str, Any] = {"totals": self.totals, "ended": self.ended}
        if self.error is not None:
            said["error"] = self.error
        elif self.withdrawn:
            said["withdrawn"] = True
        else:
            said |= {"exit_code": self.exit_code, "signal": self.signal, "cause": self.cause}
        if self.started is not None:
            said["started"] = self.started
        if self.gaps[0].end or self.gaps[1].end:
            said["gaps"] = [(gap.start, gap.end) for gap in self.gaps]
        if self.lost is not None:
            said["lost"] = {"stdout": self.lost.stdout, "stderr": self.lost.stderr, "why": self.lost.why}
        if self.left:
            said["left"] = self.left
        return said

    @classmethod
    def from_json(cls, said: Any) -> ExitRecord:
        """What :meth:`to_json` made, here or in another version. Never fails: see :attr:`garbled`."""
        try:
            gaps, lost = said.get("gaps"), said.get("lost")
            return cls(
                exit_code=_checked(int, said.get("exit_code")),
                signal=_checked(int, said.get("signal")),
                cause=_checked(str, said.get("cause")),
                error=_checked(str, said.get("error")),
                withdrawn="withdrawn" in said,
                totals=_two_sizes(said.get("totals", (0, 0))),
                gaps=NO_GAPS if gaps is None else _two_gaps(gaps),
                lost=LostOutput(lost.get("stdout", 0), lost.get("stderr", 0), lost.get("why", ""))
                if lost
                else None,
                started=_checked((int, float), said.get("started")),
                ended=_checked((int, float), said.get("ended")),
                left=_checked(str, said.get("left")) or "",
            )
        except (AttributeError, LookupError, TypeError, ValueError):
            return cls(garbled=repr(said))


def _checked(kind: type[T] | tuple[type[T], ...], value: Any) -> T | None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"unexpected: {value!r}")
    return value


def _two_gaps(said: Any) -> tuple[Gap, Gap]:
    first, second = map(_two_sizes, said)
    return Gap(*first), Gap(*second)


def _two_sizes(said: Any) -> tuple[int, int]:
    first, second = said
    if not isinstance(first, int) or not isinstance(second, int):
        raise TypeError(f"unexpected: {said!r}")
    return first, second


def write_exit_record(folder: Path, record: ExitRecord) -> None:
    """Write the record of the job whose files are in ``folder``, whole or not at all, onto the disk.

    Raises:
        OSError: it could not be written.
    """
    folder.mkdir(0o700, exist_ok=True)
    temporary = folder / f"{_FILE}.new"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(record.to_json(), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _FILE)
    for directory in (folder, folder.parent):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_exit_record(folder: Path) -> ExitRecord | None:
    """The record of the job whose files are in ``folder``; None where it has none, or a broken one."""
    try:
        record = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return ExitRecord.from_json(record) if isinstance(record, dict) else None


class KeptRecords:
    """The exit records of durable jobs, in memory; on disk as well where no server is there to be told.

    Args:
        complain: called with what is wrong with the disk.
    """

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._records: dict[CommandId, tuple[Path, ExitRecord]] = {}
        self._unwritten: set[CommandId] = set()
        self._tried = 0.0

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._records

    def __iter__(self) -> Iterator[tuple[CommandId, ExitRecord]]:
        """The ids of the jobs, and their records."""
        return ((job_id, record) for job_id, (_, record) in self._records.items())

    @property
    def unwritten(self) -> bool:
        """Whether some must still be written to disk."""
        return bool(self._unwritten)

    def keep(self, job_id: CommandId, folder: Path, record: ExitRecord) -> None:
        """Keep the record of a job; ``folder`` has its files."""
        self._records[job_id] = (folder, record)

    def forget(self, job_id: CommandId) -> None:
        """Drop the record of a job: a server has written it down."""
        self._records.pop(job_id, None)
        self._unwritten.discard(job_id)

    def write(self, job_id: CommandId) -> None:
        """Write one to disk, now or when that is possible."""
        self._unwritten.add(job_id)
        self._write()

    def write_all(self) -> None:
        """Write all to disk."""
        self._unwritten = set(self._records)
        self._write()

    def try_again(self) -> None:
        """Write what could not be written, if that is long enough ago."""
        if self._unwritten and time.monotonic() - self._tried > _RETRY_SECONDS:
            self._write()

    def _write(self) -> None:
        self._tried = time.monotonic()
        for job_id in list(self._unwritten):
            folder, record = self._records[job_id]
            try:
                write_exit_record(folder, record)
            except OSError as error:
                self._complain(f"the end of job {job_id} cannot be written yet: {error}")
            else:
                self._unwritten.discard(job_id)
