"""Takes a job's output: its beginning for the task's result, and all of it, line by line, for the task's
log."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from remsvc.client.jobs import Job, OutputChunk, OutputSize
from remsvc_provider.log.lines import LogLines
from remsvc_provider.log.task_log import TaskLog
from remsvc_provider.log.texts import LAST_CHARACTERS, LAST_LINES, shown_id
from remsvc_provider.masking import Masking

PIECE_BYTES = 2_048
"""Bytes of an output that are taken before the event loop has its turn again. Where each byte is a line, even
these take milliseconds."""
TAIL_BYTES = 16_384
"""Bytes of an output's end that the log shows where it has left out what is before."""

_MARK_BEGIN, _MARK_END = "\n\x01[remSvc: output truncated at ", "]\x01\n"


class ResultOutput:
    """The first bytes of an output, which go into the task's result.

    Args:
        limit: bytes.
        masking: of the secrets in it.
    """

    def __init__(self, limit: int, masking: Masking) -> None:
        self._limit = limit
        self._masking = masking
        self._before = ""
        """What was kept up to the last gap, masked."""
        self._kept = bytearray()
        """What was kept since."""
        self._seen = 0

    @property
    def full(self) -> bool:
        """Whether nothing more is needed."""
        return self._seen >= self._limit

    def feed(self, chunk: OutputChunk) -> None:
        """Take the next chunk."""
        if self.full:
            return
        if chunk.dropped:
            self._before = self._text(cut=True)
            self._before += f"\n\x01[remSvc: {_gap(chunk.dropped, lost=chunk.lost)}]\x01\n"
            self._kept.clear()
            self._seen += chunk.dropped
        room = max(0, self._limit - self._seen)
        self._kept += chunk.data[:room]
        self._seen += len(chunk.data[:room])

    def text(self, size: OutputSize, job_id: str) -> str:
        """The output as text; cut, it says so, never inside of a character."""
        if size.total <= self._limit:
            missing = size.total - self._seen
            if missing <= 0:
                return self._text(cut=False)
            return f"{self._text(cut=True)}\n\x01[remSvc: {_gap(missing)}]\x01\n"
        after_gap = bool(self._before)
        kept = _whole_begin(bytes(self._kept)) if after_gap else bytes(self._kept)
        cut = _cut(kept, self._limit, self._masking, begin=after_gap)
        return f"{self._before}{cut}[remSvc: all of it: remsvc jobs logs {job_id}]\n"

    def _text(self, *, cut: bool) -> str:
        """What was kept so far; ``cut``: not as far as the output goes on."""
        after_gap = bool(self._before)
        text = _decoder().decode(_whole_begin(bytes(self._kept)) if after_gap else self._kept, final=not cut)
        return self._before + self._masking.cut(text, begin=after_gap, end=cut)


_decoder = partial(codecs.getincrementaldecoder("utf-8"), "replace")


def _whole_begin(data: bytes) -> bytes:
    """The bytes without what is left of a cut character at their beginning. In front of the rest of a
    secret, it would keep that from being found."""
    return data[:3].lstrip(bytes(range(0x80, 0xC0))) + data[3:]


def _gap(size: int, *, lost: bool = False) -> str:
    """The text that stands in place of bytes that nobody will see."""
    if lost:
        return f"{size} bytes are missing: the server's record speaks of them, and it has them no more"
    return f"{size} bytes were not kept by the server"


def shortened(text: str, limit: int, masking: Masking) -> str:
    """A text of at most so many bytes, or its beginning with the mark that version 1 puts there; without
    secrets."""
    if text.endswith(_MARK_END) and len(text) <= limit + 80 and len(text.encode()) <= limit + 80:
        # The server has just cut it at the same limit.
        begin, mark, end = text.rpartition(_MARK_BEGIN)
        return f"{masking.cut(begin)}{mark}{end}" if mark else masking(text)
    if len(text) * 4 <= limit or len(text.encode()) <= limit:
        return masking(text)
    return _cut(text.encode()[:limit], limit, masking)


def _cut(data: bytes, limit: int, masking: Masking, *, begin: bool = False) -> str:
    """``begin``: what is before was left out, too."""
    text = _decoder().decode(data)  # without half a character
    return f"{masking.cut(text, begin=begin)}{_MARK_BEGIN}{limit} bytes{_MARK_END}"


class LoggedOutput:
    """One output of a job in the task's log: all of it, or its beginning and its end.

    Args:
        add: called with lines.
        prefix: put before every line.
        job_id: named where something is left out.
        limit: bytes of it that go into the log; its end may follow.
        masking: of the secrets in it.

    Attributes:
        offset: where the next chunk begins.
        closed: whether what comes is left out, but for the end.
    """

    def __init__(
        self, add: Callable[[list[str]], object], prefix: str, job_id: str, limit: int, masking: Masking
    ) -> None:
        self._add_lines = add
        self._prefix = prefix
        self._all_of_it = f"all of it: remsvc jobs logs {job_id}"
        self._limit = limit
        self._room = limit
        self._end_bytes = min(TAIL_BYTES, limit)
        self._decoder = _decoder()
        self._lines = LogLines(masking)
        self._after_gap = False
        """Whether the next byte may be in the middle of a character."""
        self._left_out = 0
        self._end = b""
        self.offset = 0
        self.closed = False

    def feed(self, chunk: OutputChunk) -> None:
        """Take the next chunk."""
        self.offset = chunk.offset + len(chunk.data)
        if chunk.dropped and not self.closed:
            self._cut()
            self._add([f"... {_gap(chunk.dropped, lost=chunk.lost)}"])
        elif chunk.dropped:
            self._left_out += chunk.dropped
            self._end = b""
        data = chunk.data
        if not self.closed:
            logged, data = data[: self._room], data[self._room :]
            self._room -= len(logged)
            self._log(logged)
            if not data:
                return
            self.close()
            limit = f"more than {self._limit} bytes: what follows is left out here, but for its end"
            self._add([f"... {limit}; {self._all_of_it}"])
        self._left_out += len(data)
        self._end = (self._end + data)[-self._end_bytes :]

    def close(self) -> None:
        """Leave out what comes from here on, but for its end."""
        if not self.closed:
            self.closed = True
            self._cut()

    def skip_to_end(self, size: OutputSize) -> None:
        """Leave out, unseen, all that need not be read for the end to be shown."""
        offset = size.total - self._end_bytes
        if offset > self.offset:
            self._left_out += offset - self.offset
            self._end = b""
            self.offset = offset

    def skip_all(self, size: OutputSize) -> None:
        """Leave out all that has not come yet."""
        self._left_out += max(size.total - self.offset, 0)
        self._end = b""
        self.offset = max(size.total, self.offset)

    def finish(self, size: OutputSize | None) -> None:
        """Take notice that the output has ended, and of its size where that is known."""
        for _ in self.show_end():
            pass
        missing = 0 if size is None else size.total - self.offset
        if missing > 0:
            self._cut()
            self._add([f"... {_gap(missing)}"])
        else:
            self._add(self._lines.feed(self._decoder.decode(b"", final=True)) + self._lines.end())

    def show_end(self) -> Iterator[None]:
        """Go on with the last lines of what was left out; yields where others may have their turn."""
        if not self._left_out:
            return
        shown, self._end = self._end, b""
        missing, self._left_out = self._left_out - len(shown), 0
        if missing > 0:
            begin = shown.find(b"\n") + 1  # the first line has lost its beginning
            if begin < len(shown):
                shown, missing = shown[begin:], missing + begin
            self._add([f"... {missing} bytes are left out here; {self._all_of_it}"])
        for start in range(0, len(shown), PIECE_BYTES):
            self._log(shown[start : start + PIECE_BYTES])
            yield

    def _log(self, data: bytes) -> None:
        if self._after_gap and data:
            self._after_gap = False
            data = _whole_begin(data)
        self._add(self._lines.feed(self._decoder.decode(data)))

    def _cut(self) -> None:
        """Show what has come so far; what follows is not shown."""
        self._decoder = _decoder()
        self._add(self._lines.cut())
        self._after_gap = True

    def _add(self, lines: list[str]) -> None:
        if lines:
            self._add_lines([self._prefix + line for line in lines])


class JobOutput:
    """Both outputs of a command's job.

    Args:
        job: the job.
        task_log: the task's log.
        tid: the command's number, which marks its lines.
        limit: bytes of each output that go into the result.
        log_limit: bytes of each output that go into the log.
        masking: of the secrets in them.
    """

    def __init__(
        self, job: Job, task_log: TaskLog, tid: int, limit: int, log_limit: int, masking: Masking
    ) -> None:
        job_id = shown_id(job.id)
        self._task_log = task_log
        self._result = {"stdout": ResultOutput(limit, masking), "stderr": ResultOutput(limit, masking)}
        self._logged = {
            "stdout": LoggedOutput(self._add, f"{tid} out | ", job_id, log_limit, masking),
            "stderr": LoggedOutput(self._add, f"{tid} err | ", job_id, log_limit, masking),
        }
        self._last: deque[str] = deque()
        self._last_characters = 0

    @property
    def last_lines(self) -> list[str]:
        """The last lines in the log."""
        return list(self._last)

    def feed(self, chunk: OutputChunk) -> None:
        """Take the next chunk. A long one takes long: see :func:`pieces`."""
        self._result[chunk.stream].feed(chunk)
        self._logged[chunk.stream].feed(chunk)

    def offset(self, stream: str) -> int:
        """Where the next chunk of a stream begins; negative where nothing of it is needed, until the job has
        ended."""
        return self._logged[stream].offset if self.needs(stream) else -1

    def needs(self, stream: str) -> bool:
        """Whether more of a stream is needed before the job has ended."""
        return not self._logged[stream].closed or not self._result[stream].full

    def close(self) -> None:
        """Log no more of either, but for the end."""
        for logged in self._logged.values():
            logged.close()

    def end_offsets(self, job: Job) -> dict[str, int]:
        """Where to go on with each stream, now that the job has ended, to have all that is needed; empty if
        all of it has been read."""
        offsets = {}
        for stream, logged in self._logged.items():
            size: OutputSize = getattr(job, stream)
            if logged.closed and self._result[stream].full:
                logged.skip_to_end(size)
            offsets[stream] = logged.offset if logged.offset < size.kept_end else -1
        return offsets if max(offsets.values()) >= 0 else {}

    def skip_end(self, job: Job) -> None:
        """Log nothing of what has not come yet."""
        for stream, logged in self._logged.items():
            logged.skip_all(getattr(job, stream))

    def show_end(self) -> Iterator[None]:
        """Log the end of what was left out; yields where others may have their turn."""
        for logged in self._logged.values():
            yield from logged.show_end()

    def finish(self, job: Job | None = None) -> None:
        """Take notice that nothing more comes. ``job``: as it ended, if it was followed to its end."""
        for stream, logged in self._logged.items():
            logged.finish(getattr(job, stream) if job is not None else None)

    def texts(self, job: Job) -> tuple[str, str]:
        """Both outputs for the result, where ``job`` has ended."""
        return (
            self._result["stdout"].text(job.stdout, shown_id(job.id)),
            self._result["stderr"].text(job.stderr, shown_id(job.id)),
        )

    def _add(self, lines: list[str]) -> None:
        self._task_log.add("\n".join(lines))
        last = [line[:LAST_CHARACTERS] for line in lines[-LAST_LINES:]]
        self._last.extend(last)
        self._last_characters += sum(map(len, last))
        while len(self._last) > LAST_LINES or self._last_characters > LAST_CHARACTERS:
            self._last_characters -= len(self._last.popleft())


def pieces(chunk: OutputChunk) -> Iterator[OutputChunk]:
    """A chunk in pieces, each of which takes a moment only."""
    yield replace(chunk, data=chunk.data[:PIECE_BYTES])
    for start in range(PIECE_BYTES, len(chunk.data), PIECE_BYTES):
        yield OutputChunk(chunk.stream, chunk.offset + start, chunk.data[start : start + PIECE_BYTES])
