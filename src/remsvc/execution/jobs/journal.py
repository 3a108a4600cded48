"""Keeps durable jobs on disk: what must survive a crash is written here before anybody acts on it.

The journal is an SQLite database in WAL mode with ``synchronous=FULL``: a change that was reported is on
disk, and a torn write is undone. One thread writes. It puts all changes that are waiting into one
transaction, so that they share the wait for the disk. Two other threads read: one for single jobs, one for
searches. Output and standard input are not in it but in files of their own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from remsvc.errors import ExecutionError
from remsvc.execution.jobs.model import JobContent, JobRecord, gap_of, output_size
from remsvc.execution.jobs.search import Filter, Found, JournalSearch
from remsvc.job_state import JobState

T = TypeVar("T")


class JournalReader:
    """One thread with a connection of its own: its reads wait for each other, and for nothing else.

    Args:
        connection: may be used in any thread, and is closed by :meth:`close`.
        name: of the thread.
    """

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What ``read`` makes of the database as it is now. Raises what that raises."""

        def work() -> T:
            if self._closing:
                raise sqlite3.OperationalError("closed")
            return read(self._connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Break off what is being read, and close. Its reader gets an :class:`sqlite3.Error`."""
        self._closing = True
        self._connection.interrupt()
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()


_logger = logging.getLogger("remsvc.job")

SCHEMA_VERSION = 3

_MIGRATIONS = {
    # From the version before to this one.
    1: """
        CREATE TABLE jobs (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            identity TEXT NOT NULL,
            request_id TEXT NOT NULL,
            digest TEXT NOT NULL,
            spec TEXT NOT NULL,
            state TEXT NOT NULL,
            exit_code INTEGER,
            signal INTEGER,
            reason TEXT NOT NULL,
            created REAL NOT NULL,
            started REAL,
            ended REAL,
            stdout_total INTEGER NOT NULL, stdout_gap_start INTEGER NOT NULL, stdout_gap_end INTEGER NOT NULL,
            stderr_total INTEGER NOT NULL, stderr_gap_start INTEGER NOT NULL, stderr_gap_end INTEGER NOT NULL,
            pid INTEGER,
            pid_started REAL,
            supervisor TEXT NOT NULL,
            UNIQUE (identity, request_id)
        );
        CREATE INDEX jobs_ended ON jobs (ended);
    """,
    # A list is read from the newest job on, and what is kept is added up from the index alone.
    2: """
        CREATE INDEX jobs_listed ON jobs (identity, state);
        DROP INDEX jobs_ended;
        CREATE INDEX jobs_ended ON jobs (
            ended,
            stdout_total, stdout_gap_start, stdout_gap_end,
            stderr_total, stderr_gap_start, stderr_gap_end
        );
    """,
    # What a job was to run takes room as well, and how much is known without reading it.
    3: """
        ALTER TABLE jobs ADD COLUMN spec_bytes INTEGER NOT NULL DEFAULT 0;
        UPDATE jobs SET spec_bytes = length(CAST(spec AS BLOB));
        DROP INDEX jobs_listed;
        CREATE INDEX jobs_listed ON jobs (identity, state, seq, spec_bytes);
        DROP INDEX jobs_ended;
        CREATE INDEX jobs_ended ON jobs (
            ended, spec_bytes,
            stdout_total, stdout_gap_start, stdout_gap_end,
            stderr_total, stderr_gap_start, stderr_gap_end
        );
    """,
}
_CONTENT = ("id", "identity", "request_id", "digest", "spec", "created")  # as claimed, for ever
_LIFE = (
    *("state", "exit_code", "signal", "reason", "started", "ended"),
    *("stdout_total", "stdout_gap_start", "stdout_gap_end"),
    *("stderr_total", "stderr_gap_start", "stderr_gap_end", "pid", "pid_started", "supervisor"),
)
_COLUMNS = (*_CONTENT, *_LIFE)
_INSERT = (
    f"INSERT INTO jobs ({', '.join(_COLUMNS)}, spec_bytes) "  # noqa: S608
    f"VALUES ({', '.join('?' * len(_COLUMNS))}, ?) "
    "ON CONFLICT (identity, request_id) DO NOTHING"
)
# Of the life alone: most indexes on the rest need not be touched.
_UPDATE = f"UPDATE jobs SET {', '.join(f'{column} = ?' for column in _LIFE)} WHERE id = ?"  # noqa: S608
_SELECT = f"SELECT seq, {', '.join(_COLUMNS)} FROM jobs"  # noqa: S608
_KEPT = (
    "spec_bytes + stdout_total - (stdout_gap_end - stdout_gap_start)"
    " + stderr_total - (stderr_gap_end - stderr_gap_start)"
)
_BATCH = 500
_QUEUE = 10_000
_BUSY_SECONDS = 10.0
_CLOSE_SECONDS = 20.0

_FULL_SQLITE = "disk is full"  # SQLITE_FULL; its number is not told before Python 3.11
_CLOSED = "the server is shutting down"
_FULL = "the server has no disk space left for its journal of jobs"

Change = Callable[[sqlite3.Connection], Any]


class JournalError(ExecutionError):
    """The journal cannot be read or written; nothing was changed.

    Attributes:
        told: what a caller is told of it; the text itself names files and is for the log.
    """

    def __init__(self, text: str, told: str = "the server's journal of jobs cannot be used now") -> None:
        self.told = told
        super().__init__(text)


class Journal:
    """The jobs on disk. Its coroutines may be called side by side; each returns when it is on disk.

    Args:
        path: the database; made where it does not exist.

    Raises:
        JournalError: on construction, for a file that is no journal, or of a later version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # It holds commands and their environments, and its -wal and -shm files get its mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._writing = self._connect()
            _migrate(self._writing, path)
            self._reader = JournalReader(self._connect(), "journal-read")
            # A search may look at every job there is: who asks for one job must not wait for it.
            self._searcher = JournalReader(self._connect(), "journal-search")
            self._search = JournalSearch(partial(self._read, self._searcher), _SELECT, _job)
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror}") from error
        except (sqlite3.Error, UnicodeDecodeError) as error:  # of a damaged file, both
            raise JournalError(f"{path}: {error}") from error
        self._changes: queue.SimpleQueue[tuple[Change, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._writer = threading.Thread(target=self._write, name="journal-write", daemon=True)
        self._writer.start()

    async def claim(self, job: JobRecord) -> tuple[JobRecord, bool]:
        """Insert ``job``, unless its identity used its request id before.

        Returns:
            The job on disk, and whether it is new. One that is not may have another digest.
        """

        content = _content(job)
        values = (*content, *_life(job), len(content[_CONTENT.index("spec")]))  # of ASCII: its bytes

        def change(connection: sqlite3.Connection) -> tuple[JobRecord, bool]:
            cursor = connection.execute(_INSERT, values)
            if cursor.rowcount == 1:
                assert cursor.lastrowid is not None
                return dataclasses.replace(job, seq=cursor.lastrowid), True
            rows = connection.execute(
                f"{_SELECT} WHERE identity = ? AND request_id = ?", (job.identity, job.request_id)
            )
            return _job(rows.fetchone()), False

        claimed: tuple[JobRecord, bool] = await self._change(change)
        return claimed

    async def update(self, job: JobRecord) -> None:
        """Write what changes in the life of ``job``, which was claimed before."""
        values = (*_life(job), job.id)
        await self._change(lambda connection: connection.execute(_UPDATE, values))

    async def note_reason(self, job: JobRecord) -> None:
        """Write the reason of ``job`` alone, unless it has ended meanwhile."""
        await self._change(
            lambda connection: connection.execute(
                "UPDATE jobs SET reason = ? WHERE id = ? AND ended IS NULL", (job.reason, job.id)
            )
        )

    async def forget(self, ids: Iterable[str]) -> None:
        """Delete jobs."""
        names = [(name,) for name in ids]
        await self._change(lambda connection: connection.executemany("DELETE FROM jobs WHERE id = ?", names))

    async def known(self, ids: Collection[str]) -> set[str]:
        """Those of these ids that belong to jobs."""
        query, names = "SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(?))", json.dumps([*ids])
        return await self._read(
            self._searcher, lambda connection: {row[0] for row in connection.execute(query, (names,))}
        )

    async def unended(self) -> list[JobRecord]:
        """The jobs that have not ended, oldest first."""
        return await self._jobs(self._searcher, f"{_SELECT} WHERE ended IS NULL ORDER BY seq", ())

    async def find(
        self,
        *,
        id: str | None = None,  # noqa: A002
        identity: str = "",
        request_id: str = "",
    ) -> JobRecord | None:
        """The job with this id, or with this identity and request id."""
        if id is not None:
            jobs = await self._jobs(self._reader, f"{_SELECT} WHERE id = ?", (id,))
        else:
            query = f"{_SELECT} WHERE identity = ? AND request_id = ?"
            jobs = await self._jobs(self._reader, query, (identity, request_id))
        return jobs[0] if jobs else None

    async def select(self, wanted: Filter, limit: int) -> Found:
        """At most ``limit`` jobs, newest first, and no more than fit into an answer.

        Raises:
            TooManySearchesError: too many of this identity are under way.
        """
        return await self._search.select(wanted, limit)

    async def ended(self, limit: int, skip: int = 0) -> list[tuple[str, float, int]]:
        """Id, time of the end, and bytes kept of ended jobs (output, and what they ran), oldest end first.

        At most ``limit`` of them, without the first ``skip``.
        """
        query = f"SELECT id, ended, {_KEPT} FROM jobs WHERE ended IS NOT NULL ORDER BY ended, seq"  # noqa: S608
        page = f"{query} LIMIT ? OFFSET ?"
        return await self._read(
            self._searcher, lambda connection: connection.execute(page, (limit, skip)).fetchall()
        )

    async def ended_totals(self) -> tuple[int, int]:
        """How many jobs have ended, and how many bytes are kept of them."""
        query = f"SELECT count(*), coalesce(sum({_KEPT}), 0) FROM jobs WHERE ended IS NOT NULL"  # noqa: S608
        totals: tuple[int, int] = await self._read(
            self._searcher, lambda connection: connection.execute(query).fetchone()
        )
        return totals

    async def close(self) -> None:
        """Write what is waiting, and close. What is asked for later is refused. Idempotent.

        What a disk that does not answer holds up is given up after a while.
        """
        if self._closed:
            return
        self._closed = True
        self._changes.put(None)
        await asyncio.to_thread(self._writer.join, _CLOSE_SECONDS)
        await asyncio.gather(self._reader.close(), self._searcher.close())
        if self._writer.is_alive():
            _logger.error("the journal could not be written to its end within %g s", _CLOSE_SECONDS)
        else:
            self._writing.close()

    # Threads

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    async def _change(self, change: Change) -> Any:
        done: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            raise JournalError(f"{self._path}: closed", _CLOSED)
        if self._changes.qsize() >= _QUEUE:
            text = "the journal cannot keep up: too many changes are waiting"
            raise JournalError(text, text)
        self._changes.put((change, done))
        return await done

    def _write(self) -> None:
        while (first := self._changes.get()) is not None:
            batch, last = [first], False
            while len(batch) < _BATCH and not last:
                try:
                    item = self._changes.get_nowait()
                except queue.Empty:
                    break
                last = item is None
                if item is not None:
                    batch.append(item)
            self._commit(batch)
            if last:
                return

    def _commit(self, batch: list[tuple[Change, asyncio.Future[Any]]]) -> None:
        try:
            self._writing.execute("BEGIN IMMEDIATE")
            results = [change(self._writing) for change, _ in batch]
            self._writing.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  handed to the caller who asked for the change
            if self._writing.in_transaction:
                self._writing.rollback()
            if len(batch) > 1:
                # One of them is to blame, perhaps: it must not take the others with it.
                for item in batch:
                    self._commit([item])
                return
            failure = self._error(error)
            self._loop.call_soon_threadsafe(_fail, [done for _, done in batch], failure)
        else:
            self._loop.call_soon_threadsafe(_settle, [done for _, done in batch], results)

    async def _jobs(self, reader: JournalReader, query: str, values: Sequence[Any]) -> list[JobRecord]:
        return await self._read(
            reader, lambda connection: [_job(row) for row in connection.execute(query, values)]
        )

    async def _read(self, reader: JournalReader, read: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise JournalError(f"{self._path}: closed", _CLOSED)
        try:
            return await reader.read(read)
        except (sqlite3.Error, UnicodeDecodeError, _RowError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> JournalError:
        text = f"{self._path}: {error}"
        return JournalError(text, _FULL) if _FULL_SQLITE in str(error) else JournalError(text)


def _settle(futures: list[asyncio.Future[Any]], results: list[Any]) -> None:
    for future, result in zip(futures, results, strict=True):
        if not future.done():
            future.set_result(result)


def _fail(futures: list[asyncio.Future[Any]], error: JournalError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"{path}: written by a later version of RemSvc (schema {version}, known: {SCHEMA_VERSION})"
        )
    for step in range(version + 1, SCHEMA_VERSION + 1):
        connection.executescript(f"BEGIN; {_MIGRATIONS[step]} PRAGMA user_version = {step}; COMMIT;")


def _content(job: JobRecord) -> tuple[Any, ...]:
    return (job.id, job.identity, job.request_id, job.digest, job.content.to_json(), job.created)


def _life(job: JobRecord) -> tuple[Any, ...]:
    return (
        *(job.state.value, job.exit_code, job.signal, job.reason, job.started, job.ended),
        *(job.stdout.total, *gap_of(job.stdout)),
        *(job.stderr.total, *gap_of(job.stderr)),
        *(job.pid, job.pid_started, job.supervisor),
    )


class _RowError(Exception):
    pass


def _job(row: tuple[Any, ...]) -> JobRecord:
    try:
        return _read_job(row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _RowError(f"row {row[0]} is no job: {error}") from error


def _read_job(row: tuple[Any, ...]) -> JobRecord:
    values = dict(zip(("seq", *_COLUMNS), row, strict=True))
    for name in ("stdout", "stderr"):
        parts = (values.pop(f"{name}_{part}") for part in ("total", "gap_start", "gap_end"))
        values[name] = output_size(*parts)
    values["content"] = JobContent.from_json(values.pop("spec"))
    values["state"] = JobState(values["state"])
    return JobRecord(**values)
