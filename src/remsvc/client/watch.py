"""Watching a job through broken connections: what has arrived, what to ask for next, and when to give up.

A watch may last for days, so its calls will break. :class:`Watch` remembers how far each output has
arrived, so that the next call goes on exactly there. It also protects its caller from a server that sends
the wrong job, sends messages without end, or says that a job has ended without sending all its output.

Nothing here does input or output: both clients use a :class:`Watch`, each in its own way of waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from remsvc.client import job_protocol
from remsvc.client.deadline import Deadline
from remsvc.client.jobs import Job, OutputChunk, OutputSize, StateChange, WatchEvent
from remsvc.client.options import ConnectionOptions
from remsvc.client.repeats import Backoff
from remsvc.errors import ProtocolError, ResourceExhaustedError, ServerError, server_error
from remsvc.printable import printable

OnDisconnect = Callable[[ServerError], None]

_RESUMABLE = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
# A broken transport may show itself by these, but so may a defect of the server, which no waiting cures. So
# only some of them in a row are believed to be the transport's.
_DOUBTFUL = ("INTERNAL", "UNKNOWN", "CANCELLED")
_DOUBTFUL_IN_A_ROW = 8
# A call that went on for so many seconds after its first message has worked: a defect shows itself at once.
_LASTED = 0.1
# After so many times in a row it is believed that the rest of an ended job's output will never come.
_SHORT_IN_A_ROW = 3
# So many messages that say nothing new are taken at once, and so many more in each second.
_NOTHING_AT_ONCE, _NOTHING_A_SECOND = 1_000, 10


class Watch:
    """The watch of one job, over all its calls.

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
        self._answered_since: float | None = None
        self._short_end: StateChange | None = None
        self._short_ends = 0
        self._nothing = 0.0
        self._nothing_at = 0.0
        self.ended = False
        """Whether the final state has arrived, with all output before it."""

    def begin(self) -> bytes:
        """Begin the next call: its request. Raises :class:`InvalidCommandError`."""
        self._answered_since = None
        self._short_end = None
        return job_protocol.encode_watch(self._job_id, self._offsets["stdout"], self._offsets["stderr"])

    def receive(self, message: bytes) -> WatchEvent | None:
        """Take in a message of the call: the event in it, or None where it says nothing new.

        Raises:
            ProtocolError: it cannot be read.
        """
        self._broken_since = None
        if self._answered_since is None:
            self._answered_since = time.monotonic()
        event = job_protocol.decode_watch(message)
        if isinstance(event, StateChange):
            event = self._enter_job(event)
        elif event is not None:
            event = self._enter_chunk(event)
        if event is None:
            self._count_nothing()
        else:
            self._begin_anew()
            self._short_ends = 0
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
        if self._answered_since is not None and time.monotonic() - self._answered_since >= _LASTED:
            # It worked, though it had nothing new to tell. A proxy may end every call that is silent for
            # some time.
            self._begin_anew()
        # A server that has too many calls says when to try again. Without that, a message was too long.
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

    def conclude(self) -> list[WatchEvent]:
        """The last events, where a call has ended without error and no more output is to be expected.

        This is so once the server has said several times that the job has ended, without ever sending all
        the output that the job's record counts. What is missing becomes a gap, and the watch is complete.
        """
        if self._short_end is None or self._patience is None:
            return []
        self._short_ends += 1
        if self._short_ends < _SHORT_IN_A_ROW:
            return []
        job = self._short_end.job
        gaps: list[WatchEvent] = []
        for stream, size in (("stdout", job.stdout), ("stderr", job.stderr)):
            if not self._is_complete(stream, size):
                missing = size.kept_end - self._offsets[stream]
                gaps.append(OutputChunk(stream, size.kept_end, b"", missing, lost=True))  # type: ignore[arg-type]
        self.ended = True
        return [*gaps, self._short_end]

    def cut_short(self) -> ServerError:
        """The failure of a call that ended without error, but before the job's end and all its output."""
        details = "the server ended the watch before the job's end had come with all its output"
        return server_error("UNKNOWN", details, self._target)

    def _begin_anew(self) -> None:
        """Forget the failures so far: the server answers."""
        self._backoff.reset()
        self._doubtful = 0

    def _count_nothing(self) -> None:
        now = time.monotonic()
        earned = (now - self._nothing_at) * _NOTHING_A_SECOND
        self._nothing = max(self._nothing - earned, 0.0) + 1
        self._nothing_at = now
        if self._nothing > _NOTHING_AT_ONCE:
            raise ProtocolError("the server sends messages without an end that say nothing new")

    def _enter_job(self, event: StateChange) -> StateChange | None:
        job = event.job
        if job.id != self._job_id:
            raise ProtocolError(f"the server answered with job {printable(job.id)} instead of {self._job_id}")
        if job.ended and not (
            self._is_complete("stdout", job.stdout) and self._is_complete("stderr", job.stderr)
        ):
            self._short_end = event
            return None  # asked for again: see conclude
        self.ended = job.ended
        before, self._job = self._job, replace(job, stdout=OutputSize(), stderr=OutputSize())
        return event if self._job != before else None

    def _is_complete(self, stream: str, size: OutputSize) -> bool:
        return not 0 <= self._offsets[stream] < size.kept_end

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
