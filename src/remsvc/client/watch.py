"""Watching a job through broken connections: what has arrived, what to ask for next, when to give up.

Nothing here does input or output: both clients drive a :class:`Watch`, each in its own way of waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from remsvc.client import job_protocol
from remsvc.client.backoff import Backoff
from remsvc.client.deadline import Deadline
from remsvc.client.jobs import Job, OutputChunk, OutputSize, StateChange, WatchEvent
from remsvc.client.options import ConnectionOptions
from remsvc.errors import ProtocolError, ResourceExhaustedError, ServerError, server_error
from remsvc.printable import printable

OnDisconnect = Callable[[ServerError], None]

_RESUMABLE = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
# A broken transport can look like these, and so can a defect of the server, which no patience cures.
_DOUBTFUL = ("INTERNAL", "UNKNOWN", "CANCELLED")
_DOUBTFUL_IN_A_ROW = 8


class Watch:
    """Where the watch of one job stands.

    Args:
        job_id: the job.
        stdout_offset, stderr_offset: where to begin; negative: no output of this stream.
        deadline: the caller's time limit for all of it.
        patience: seconds to go on without any contact, once the connection has broken; None: do
            not go on at all.
        options: name the server in errors.
        on_disconnect: called whenever the connection has broken, before the next attempt.
    """

    def __init__(
        self,
        job_id: str,
        *,
        stdout_offset: int,
        stderr_offset: int,
        deadline: Deadline,
        patience: float | None,
        options: ConnectionOptions,
        on_disconnect: OnDisconnect | None,
    ) -> None:
        self._job_id = job_id
        self._offsets = {"stdout": stdout_offset, "stderr": stderr_offset}
        self._deadline = deadline
        self._patience = patience
        self._target = options.target
        self._on_disconnect = on_disconnect
        self._job: Job | None = None
        self._backoff = Backoff()
        self._broken_since: float | None = None
        self._doubtful = 0
        self.ended = False
        """Whether the final state has arrived, and all output before it."""

    def begin(self) -> bytes:
        """The request of the next call. Raises :class:`InvalidCommandError`."""
        return job_protocol.encode_watch(self._job_id, self._offsets["stdout"], self._offsets["stderr"])

    def receive(self, message: bytes) -> WatchEvent | None:
        """The event in a message of the call; None where it says nothing new.

        Raises:
            ProtocolError: it cannot be read.
        """
        self._broken_since = None
        event = job_protocol.decode_watch(message)
        if isinstance(event, StateChange):
            event = self._enter_job(event)
        elif event is not None:
            event = self._enter_chunk(event)
        if event is not None:
            self._backoff.reset()
            self._doubtful = 0
        return event

    def pause_after(self, failure: ServerError) -> float:
        """How long to wait, in seconds, before the next call, where one has failed.

        Raises:
            ServerError: there is no use in another call: ``failure``, or DEADLINE_EXCEEDED where the
                caller's time is up.
        """
        if self._deadline.expired:
            details = f"the job has not ended within {self._deadline.timeout:g} s"
            raise server_error("DEADLINE_EXCEEDED", details, self._target) from failure
        # A server that has too many calls says when to come back. Else it is a message that is too long.
        retry_after = failure.retry_after if isinstance(failure, ResourceExhaustedError) else None
        if failure.code in _DOUBTFUL:
            self._doubtful += 1
        elif failure.code not in _RESUMABLE and retry_after is None:
            raise failure
        now = time.monotonic()
        if self._broken_since is None:
            self._broken_since = now
        silence = now - self._broken_since
        if self._patience is None or silence > self._patience or self._doubtful >= _DOUBTFUL_IN_A_ROW:
            raise failure
        if self._on_disconnect is not None:
            self._on_disconnect(failure)
        return self._deadline.within(self._backoff.next() + (retry_after or 0.0))

    def cut_short(self) -> ServerError:
        """The failure of a call that ended without error, but before the job's end or all its output."""
        details = "the server ended the watch before the job's end had come with all its output"
        return server_error("UNKNOWN", details, self._target)

    def _enter_job(self, event: StateChange) -> StateChange | None:
        job = event.job
        if job.id != self._job_id:
            raise ProtocolError(f"the server answered with job {printable(job.id)} instead of {self._job_id}")
        if job.ended and not (
            self._is_complete("stdout", job.stdout) and self._is_complete("stderr", job.stderr)
        ):
            return None  # asked for again: see cut_short
        self.ended = job.ended
        before, self._job = self._job, replace(job, stdout=OutputSize(), stderr=OutputSize())
        return event if self._job != before else None

    def _is_complete(self, stream: str, size: OutputSize) -> bool:
        end = size.head if size.head + size.dropped >= size.total else size.total
        return not 0 <= self._offsets[stream] < end

    def _enter_chunk(self, chunk: OutputChunk) -> OutputChunk | None:
        expected = self._offsets[chunk.stream]
        if expected < 0:
            raise ProtocolError(f"the server sent {chunk.stream}, which was not asked for")
        known = expected - chunk.offset
        if known >= len(chunk.data):
            return None
        self._offsets[chunk.stream] = chunk.offset + len(chunk.data)
        if known > 0:  # it begins with bytes that have arrived before
            return replace(chunk, offset=expected, data=chunk.data[known:])
        return replace(chunk, dropped=-known)
