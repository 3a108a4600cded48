"""The thread that writes the audit log: as many records as wait, with one write and one fsync."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace

from remsvc.errors import RemSvcError
from remsvc.server.audit.file import AuditFile, AuditFileInUseError, Record, now
from remsvc.server.audit.record import bounded, memory
from remsvc.server.audit.syslog import Syslog
from remsvc.time_limit import TimeLimit

_logger = logging.getLogger("remsvc.audit")

_MAX_WAITING, _MAX_WAITING_BYTES = 10_000, 16 * 1024 * 1024
# Of what may wait, and of what is free on the disk: refusals, which anybody can cause, leave the rest to what
# is permitted.
_SHARE_OF_REFUSALS = 4
_RESERVED_BYTES, _RESERVED_SHARE = 128 * 1024 * 1024, 10
_LOOK_SECONDS = 1.0
_MAX_BATCH = 1_000
_RETRY_SECONDS = 1.0
_STUCK_SECONDS = 10.0
_CLOSE_SECONDS = 5.0


class AuditError(RemSvcError):
    """A record could not be written to the audit log."""


@dataclass(frozen=True, eq=False)
class _Entry:
    """A record that waits to be written.

    Attributes:
        written: done when it is on disk; None where nobody waits for that.
        keep: whether it is tried again where writing fails, until it succeeds.
        refusal: whether it says that something was refused.
        size: bytes of memory.
    """

    record: Record
    written: asyncio.Future[None] | None
    keep: bool
    refusal: bool = False
    size: int = 0


class AuditWriter:
    """Takes records in an event loop, and writes them in a thread, in their order.

    Args:
        file: the log.
        syslog: where the lines go as well. Where it cannot be reached, the log says so, and all goes on.
    """

    def __init__(self, file: AuditFile, syslog: Syslog | None) -> None:
        self._file = file
        self._syslog = syslog
        self._condition = threading.Condition()
        self._waiting: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._withheld = 0
        self._withholding = False
        self._looked = float("-inf")
        self._urgent = False
        self._reopening = False
        self._closing = False
        self._busy_since: float | None = None
        self._lost = 0
        self._failing = False
        self._unsynced = False
        self._unsent = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    async def open(self) -> None:
        """Open the log and start the thread.

        Raises:
            AuditFileInUseError: another server writes to it. Any other failure is logged, and the
                first record tries again.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._file.open, "start")
        except AuditFileInUseError:
            raise
        except OSError as error:
            self._fail(error)
        self._thread.start()

    async def close(self) -> None:
        """Write what waits, and end the thread. Gives up where that takes longer than five seconds."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        await asyncio.to_thread(self._thread.join, _CLOSE_SECONDS)
        if self._thread.is_alive():
            _logger.error("the audit log could not be written to its end in time")

    def reopen(self) -> None:
        """Go on in a new file, if the log was moved away."""
        with self._condition:
            self._reopening = self._urgent = True
            self._condition.notify()

    def note(self, record: Record, *, refusal: bool = False) -> None:
        """Have a record written when its turn comes, without waiting. Where that fails, it is tried again.

        Args:
            refusal: whether it says that something was refused. Anybody can cause refusals: where they
                would take the room of other records, in memory or on the disk, they are only counted.
        """
        self._put(_Entry(record, None, keep=True, refusal=refusal))

    async def write(self, record: Record, *, keep: bool) -> None:
        """Write a record. It is on disk when this returns.

        Args:
            keep: whether to try again later where that fails.

        Raises:
            AuditError: it is not on disk, or nobody knows whether it is.
        """
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written.add_done_callback(_retrieve)
        if not self._put(_Entry(record, written, keep)):
            raise AuditError("too many records wait to be written")
        try:
            with TimeLimit(_STUCK_SECONDS):
                await asyncio.shield(written)
        except TimeoutError:
            raise AuditError(f"it could not be written within {_STUCK_SECONDS:g} s") from None

    def _put(self, entry: _Entry) -> bool:
        record = bounded({"time": now(), **entry.record})
        entry = replace(entry, record=record, size=memory(record))
        share = _SHARE_OF_REFUSALS if entry.refusal else 1
        with self._condition:
            since = self._busy_since
            stuck = since is not None and time.monotonic() - since > _STUCK_SECONDS
            full = len(self._waiting) >= _MAX_WAITING // share
            full = full or self._waiting_bytes + entry.size > _MAX_WAITING_BYTES // share
            if full or (stuck and entry.written is not None):
                self._lost += 1
                return False
            self._waiting.append(entry)
            self._waiting_bytes += entry.size
            self._urgent = True
            self._condition.notify()
        return True

    # The thread

    def _run(self) -> None:
        try:
            while self._step():
                pass
            self._send(self._file.close())
        except OSError as error:
            self._fail(error)
        finally:
            self._file.release()
            if self._syslog is not None:
                self._syslog.close()

    def _step(self) -> bool:
        """Write what waits, or wait for something to write.

        Returns:
            False when there will be nothing more.
        """
        with self._condition:
            if not (self._urgent or self._closing):
                # Without a wake-up: time to try again what failed, or to bring the head to the disk.
                self._condition.wait(_RETRY_SECONDS if self._waiting or self._unsynced else None)
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_BATCH))]
            self._waiting_bytes -= sum(entry.size for entry in batch)
            self._urgent = bool(self._waiting)
            reopening, self._reopening = self._reopening, False
            closing = self._closing
            self._busy_since = time.monotonic()
        try:
            self._work(batch, reopening)
        except OSError as error:
            self._fail(error)
            self._put_back(batch, error)
        else:
            self._settle(batch, None)
        finally:
            self._busy_since = None
        return not closing or (bool(self._waiting) and not self._failing)

    def _work(self, batch: list[_Entry], reopening: bool) -> None:
        if reopening and self._file.rotated():
            self._send(self._file.close())
            self._file.open("rotated")
            self._write([])
        if batch:
            self._write(batch)
        elif self._unsynced:
            self._unsynced = False
            self._file.sync_head()

    def _write(self, batch: list[_Entry]) -> None:
        self._look_for_space()
        records: list[Record] = [entry.record for entry in batch if not (entry.refusal and self._withholding)]
        withheld = len(batch) - len(records)
        lost, unsent = self._lost, self._unsent
        told = 0 if self._withholding else self._withheld
        counts = {"unwritten": lost, "unsent_to_syslog": unsent, "withheld_refusals": told}
        if lost or unsent or told:
            said = {name: count for name, count in counts.items() if count}
            records.append({"event": "log", "action": "lost", **said})
        lines = self._file.write(records)
        self._withheld += withheld - told
        with self._condition:
            self._lost -= lost
            self._unsent -= unsent
        self._unsynced = True
        if self._failing:
            self._failing = False
            _logger.warning("the audit log can be written again; %d records were lost", lost)
        self._send(lines)

    def _look_for_space(self) -> None:
        """Look whether the disk is so full that refusals must leave the room on it to other records."""
        moment = time.monotonic()
        if moment - self._looked < _LOOK_SECONDS:
            return
        self._looked = moment
        free, total = self._file.space()
        withholding = free < min(_RESERVED_BYTES, total // _RESERVED_SHARE)
        if withholding and not self._withholding:
            _logger.error(
                "only %d bytes are free for the audit log: what is refused is counted, and not written", free
            )
        self._withholding = withholding

    def _fail(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            _logger.error("the audit log cannot be written: %s", error)

    def _put_back(self, batch: list[_Entry], error: OSError) -> None:
        """Keep records for the next try, where they are to be kept; the others count as lost."""
        kept = [replace(entry, written=None) for entry in batch if entry.keep]
        with self._condition:
            self._waiting.extendleft(reversed(kept))
            self._waiting_bytes += sum(entry.size for entry in kept)
            self._lost += len(batch) - len(kept)
            self._urgent = any(entry.written is not None for entry in self._waiting)
        self._settle(batch, error)

    def _settle(self, batch: list[_Entry], error: OSError | None) -> None:
        futures = [entry.written for entry in batch if entry.written is not None]
        if futures and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, futures, error)

    def _send(self, lines: list[bytes]) -> None:
        if self._syslog is None:
            return
        for number, line in enumerate(lines):
            try:
                self._syslog.send(line)
            except OSError as error:
                if not self._unsent:
                    _logger.error("audit records do not reach syslog: %s", error)
                with self._condition:
                    self._unsent += len(lines) - number
                return


def _resolve(futures: list[asyncio.Future[None]], error: OSError | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(AuditError(str(error)))


def _retrieve(future: asyncio.Future[None]) -> None:
    """Mark an error as seen: who asked may have gone away."""
    if not future.cancelled():
        future.exception()
