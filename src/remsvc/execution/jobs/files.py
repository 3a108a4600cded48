"""The files of durable jobs: a folder for each, with its standard input, output and exit record."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from remsvc.errors import ExecutionError
from remsvc.execution.jobs.model import output_size
from remsvc.execution.supervisor.output import read_gap, read_output
from remsvc.execution.supervisor.records import ExitRecord, read_exit_record
from remsvc.job_state import OutputSize

STREAMS = ("stdout", "stderr")
_STDIN = "stdin"
_CHUNK = 256 * 1024
_BATCH = 1000


class JobFilesError(ExecutionError):
    """The files of a job cannot be used now: their disk fails, or may not be read.

    Attributes:
        told: what a caller is told of it; the text itself names files and is for the log.
    """

    def __init__(self, error: OSError) -> None:
        self.told = f"the files of the job cannot be used: {error.strerror or 'an error'}"
        super().__init__(str(error))


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a job's output: of which stream (``stdout`` or ``stderr``), from which byte on."""

    stream: str
    offset: int
    data: bytes


class JobFiles:
    """The folders of all jobs, below ``root``. What may wait for the disk is done in a thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, exist_ok=True)

    def folder(self, job_id: str) -> Path:
        """Where a job's files are; made when it starts, or before that for its standard input."""
        return self._root / job_id

    async def write_stdin(self, job_id: str, stdin: bytes) -> None:
        """Keep standard input, on disk when this returns. Raises ``OSError``."""

        def write() -> None:
            folder = self.folder(job_id)
            folder.mkdir(mode=0o700)
            descriptor = os.open(folder / _STDIN, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(stdin)
                file.flush()
                os.fsync(descriptor)

        await asyncio.to_thread(write)

    async def remove_stdin(self, job_id: str) -> None:
        """Remove standard input, which the job does not need any more."""
        if self.has_stdin(job_id):
            path = self.folder(job_id) / _STDIN
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def has_stdin(self, job_id: str) -> bool:
        """Whether there is standard input to give to the job."""
        return os.path.exists(self._path(job_id, _STDIN))  # noqa: PTH110

    def reaches_beyond(self, job_id: str, stream: str, offset: int) -> bool:
        """Whether an output has anything behind ``offset``, kept or dropped.

        A mere ``stat``, in the event loop: most often there is nothing new, and a thread would cost more.

        Raises:
            JobFilesError: the system does not say.
        """
        try:
            return os.stat(self._path(job_id, stream)).st_size > offset  # noqa: PTH116
        except FileNotFoundError:
            return False
        except OSError as error:
            raise JobFilesError(error) from error

    async def read(self, job_id: str, stream: str, offset: int, most: int) -> Piece:
        """A piece of an output from ``offset`` on; where that was dropped, from behind the gap on.

        Returns:
            At most ``most`` bytes of it. It may be empty: then its offset is where to read on.

        Raises:
            JobFilesError: it cannot be read.
        """
        path = Path(self._path(job_id, stream))
        try:
            start, data = await asyncio.to_thread(read_output, path, offset, min(most, _CHUNK))
        except OSError as error:
            raise JobFilesError(error) from error
        return Piece(stream, start, data)

    async def sizes(self, job_id: str) -> tuple[OutputSize, OutputSize]:
        """How much there is of both outputs of a job that runs.

        Raises:
            JobFilesError: that cannot be read.
        """

        def measure(stream: str) -> OutputSize:
            path = self.folder(job_id) / stream
            gap = read_gap(path)
            total = path.stat().st_size if path.exists() else 0
            return output_size(max(total, gap.end), gap.start, gap.end)

        try:
            return await asyncio.to_thread(lambda: (measure("stdout"), measure("stderr")))
        except OSError as error:
            raise JobFilesError(error) from error

    async def exit_record(self, job_id: str) -> ExitRecord | None:
        """How the job ended, where a supervisor wrote it down."""
        return await asyncio.to_thread(read_exit_record, self.folder(job_id))

    async def remove(self, ids: Iterable[str]) -> None:
        """Remove jobs' files, whatever there is of them.

        Raises:
            JobFilesError: the system does not say whether there are any.
        """
        if folders := [folder for job_id in ids if _exists(folder := self.folder(job_id))]:
            await asyncio.to_thread(_remove, folders)

    async def keep_only(
        self, known: Callable[[Sequence[str]], Awaitable[Container[str]]], unended: Container[str]
    ) -> None:
        """Remove the files of what is no job, and standard input of all jobs that have ended.

        Args:
            known: tells which of some ids are those of jobs.
            unended: the ids of the jobs that have not ended.
        """

        def remove(names: Sequence[str], jobs: Container[str]) -> None:
            for name in names:
                folder = self.folder(name)
                if name not in jobs:
                    shutil.rmtree(folder, ignore_errors=True)
                elif name not in unended:
                    (folder / _STDIN).unlink(missing_ok=True)

        names = await asyncio.to_thread(os.listdir, self._root)
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            await asyncio.to_thread(remove, batch, await known(batch))

    def _path(self, job_id: str, name: str) -> str:
        # A path as an object costs more than asking the system about it, and this is asked for every job.
        return f"{self._root}/{job_id}/{name}"


def _exists(folder: Path) -> bool:
    try:
        folder.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise JobFilesError(error) from error
    return True


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
