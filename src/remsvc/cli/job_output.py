"""Follows a job: writes its output unchanged, and says what of it is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO

from remsvc.cli.standard_streams import written
from remsvc.cli.terminal import warning_line
from remsvc.client.jobs import Job, OutputChunk, OutputSize, StateChange
from remsvc.errors import RemSvcError

if TYPE_CHECKING:
    from remsvc.client import Client
    from remsvc.errors import ServerError

_GAPS_TOLD = 3
"""So many gaps in an output are told one by one. A quick job over its output limit has many: it drops,
again and again, what a slower reader has not seen yet."""


class OutputWriter:
    """Writes each piece of output to its stream, unchanged and at once, and says what is missing.

    Args:
        streams: the streams to write to, by the name of the output: ``stdout``, ``stderr`` or both.
    """

    def __init__(self, streams: Mapping[str, BinaryIO]) -> None:
        self._streams = streams
        self._gaps = dict.fromkeys(streams, 0)
        self._missing = dict.fromkeys(streams, 0)
        self._next = dict.fromkeys(streams, 0)

    def __call__(self, chunk: OutputChunk) -> None:
        if chunk.dropped:
            self._note_gap(chunk)
        self._next[chunk.stream] = chunk.offset + len(chunk.data)
        stream = self._streams[chunk.stream]
        with written(chunk.stream):
            stream.write(chunk.data)
            stream.flush()

    def finish(self, job: Job | None = None) -> None:
        """Say how much is missing altogether, where not every gap was told, and why.

        Args:
            job: the ended job; None where the job goes on, so that the reason is not known yet.
        """
        for name, gaps in self._gaps.items():
            if gaps > _GAPS_TOLD:
                warning_line(f"{self._missing[name]} bytes of {name} are missing, in {gaps} places")
            if job is not None and (rest := _size(job, name).total - self._next[name]) > 0:
                self._missing[name] += rest
                warning_line(f"the last {rest} bytes of {name} are missing: the server did not keep them")
        if job is not None and any(self._missing.values()) and (why := _why_missing(job)):
            warning_line(f"job {job.id}: {why}")

    def _note_gap(self, chunk: OutputChunk) -> None:
        name = chunk.stream
        self._missing[name] += chunk.dropped
        self._gaps[name] += 1
        if self._gaps[name] <= _GAPS_TOLD:
            why = "has lost them" if chunk.lost else "did not keep them"
            warning_line(f"{chunk.dropped} bytes of {name} are missing here: the server {why}")
        elif self._gaps[name] == _GAPS_TOLD + 1:
            warning_line(f"more of {name} is missing from here on")


_MOST_COLLECTED = 1024 * 1024 * 1024
"""Bytes. A server keeps no more of an output by default, and more would fill the memory here."""


class OutputCollector:
    """Keeps all output for one JSON object at the end. Raises :class:`RemSvcError` where it is too long."""

    def __init__(self) -> None:
        self._streams = {"stdout": bytearray(), "stderr": bytearray()}
        self._next = {"stdout": 0, "stderr": 0}
        self._missing = {"stdout": 0, "stderr": 0}

    def __call__(self, chunk: OutputChunk) -> None:
        self._streams[chunk.stream] += chunk.data
        self._next[chunk.stream] = chunk.offset + len(chunk.data)
        self._missing[chunk.stream] += chunk.dropped
        if sum(map(len, self._streams.values())) > _MOST_COLLECTED:
            raise RemSvcError(f"the output has more than {_MOST_COLLECTED} bytes, too many for --json")

    def as_json(self, job: Job) -> dict[str, object]:
        """``out`` and ``err`` as text, whether bytes in them were replaced, and how many are missing."""
        lossy = False
        texts = {}
        for name, stream in (("out", "stdout"), ("err", "stderr")):
            data = bytes(self._streams[stream])
            texts[name] = data.decode("utf-8", errors="replace")
            lossy = lossy or texts[name].encode("utf-8") != data
        missing = {
            f"{name}_missing_bytes": self._missing[name] + max(_size(job, name).total - self._next[name], 0)
            for name in self._streams
        }
        return {**texts, "lossy": lossy, **missing}


def tell_dropped(job: Job) -> None:
    """Say how much of a job's output the server has not kept, and why, where no watch has told it."""
    dropped = {name: _size(job, name).dropped for name in ("stdout", "stderr")}
    for name, size in dropped.items():
        if size:
            warning_line(f"the server did not keep {size} bytes of {name}")
    if any(dropped.values()) and (why := _why_missing(job)):
        warning_line(f"job {job.id}: {why}")


def _why_missing(job: Job) -> str:
    if job.reason:
        return job.reason
    limit = job.spec.output_limit
    over = 0 < limit < max(job.stdout.total, job.stderr.total)
    return f"its output is over its limit of {limit} bytes" if over else ""


def _size(job: Job, stream: str) -> OutputSize:
    return job.stdout if stream == "stdout" else job.stderr


class ConnectionNotice:
    """Says that the connection is lost: once for each time, however many attempts fail until it is back."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._lost = False

    def lost(self, error: ServerError) -> None:
        if not self._lost:
            if error.code == "UNKNOWN":
                warning_line(f"{error.details}; asking {self._server} again")
            else:
                warning_line(f"connection to {self._server} lost, reconnecting")
        self._lost = True

    def back(self) -> None:
        self._lost = False


def binary(stream: object) -> BinaryIO:
    """The stream for bytes below a text stream, which neither encodes nor translates line ends."""
    buffer: BinaryIO = getattr(stream, "buffer")  # noqa: B009
    return buffer


def own_streams() -> dict[str, BinaryIO]:
    """This process's own standard output and error."""
    return {"stdout": binary(sys.stdout), "stderr": binary(sys.stderr)}


def follow(
    client: Client,
    job_id: str,
    server: str,
    write: Callable[[OutputChunk], None],
    enter: Callable[[Job], None],
) -> Job:
    """Write a job's output from its beginning, as it appears; returns the job once it has ended.

    ``enter`` is called with the job at each change of its state. Raises what
    :meth:`Client.watch_job <remsvc.client.sync_jobs.JobCalls.watch_job>` and ``write`` raise.
    """
    notice = ConnectionNotice(server)
    job: Job | None = None
    for event in client.watch_job(job_id, on_disconnect=notice.lost):
        notice.back()
        if isinstance(event, StateChange):
            job = event.job
            enter(job)
        else:
            write(event)
    assert job is not None  # a watch ends only after the final state
    return job
