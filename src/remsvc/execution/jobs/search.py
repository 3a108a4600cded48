"""Finds jobs in the journal, in such a way that nobody's search holds up those of others.

A search may have to look at every job that there is, in texts of megabytes, and one thread does all
searches. So a search is done in slices of some milliseconds, and each identity has at most one slice in the
queue of that thread: the searches of different identities take turns. A search that has looked at very many
jobs ends where it is; its caller can go on from there.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from remsvc.execution.jobs.model import JobRecord, TooManySearchesError, compact_json
from remsvc.job_state import JobState
from remsvc.tally import Tally

# Of one identity: beyond, its calls would wait for each other for longer than anybody does.
_MOST_OF_ONE = 64
# Searches of all identities that hold what they have found.
_AT_ONCE = 8
_SLICE_SECONDS = 0.02
# What is looked at in one go, within a slice: some milliseconds' worth.
_ROWS, _BYTES = 256, 1024 * 1024
# After so many jobs a search ends where it is.
_MOST_ROWS = 50_000
# Of what is found, as it stands in the journal: about what fits into an answer.
_MOST_FOUND = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Filter:
    """What to search the jobs for. A job is found that matches everything that is given.

    Attributes:
        identity: whose; None for everyone's.
        states: in one of these.
        labels: with all of these.
        created_after: seconds since the epoch.
        before_seq: older than this one, where a page before ended.
    """

    identity: str | None = None
    states: Collection[JobState] = ()
    labels: Mapping[str, str] | None = None
    created_after: float | None = None
    before_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found: a page of jobs, and where the next page begins.

    Attributes:
        jobs: newest first.
        stopped_at: where the search has ended before it had looked at all: at the job with this ``seq``;
            None where it had.
    """

    jobs: list[JobRecord]
    stopped_at: int | None = None


Read = Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]]


class JournalSearch:
    """All searches of a journal.

    Args:
        read: does something with the connection of the thread that searches.
        select: the beginning of a query for whole rows.
        job: makes a job of a row; its spec's text is the row's ``spec``.
    """

    def __init__(self, read: Read, select: str, job: Callable[[tuple[Any, ...]], JobRecord]) -> None:
        self._read = read
        self._select = select
        self._job = job
        self._searching: Tally[str | None] = Tally()
        self._turns: defaultdict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def select(self, wanted: Filter, limit: int) -> Found:
        """At most ``limit`` jobs, and no more than fit into an answer.

        Raises:
            TooManySearchesError: too many of this identity are under way.
        """
        whose = wanted.identity
        if self._searching.of(whose) >= _MOST_OF_ONE:
            raise TooManySearchesError(f"{_MOST_OF_ONE} searches are under way already")
        self._searching.add(whose)
        try:
            async with self._turns[whose], self._places:
                return await self._search(wanted, limit)
        finally:
            self._searching.remove(whose)
            if not self._searching.of(whose):
                del self._turns[whose]

    async def _search(self, wanted: Filter, limit: int) -> Found:
        found, rows, room = list[JobRecord](), 0, _MOST_FOUND
        while len(found) < limit:
            piece = _Slice(self._select, self._job, wanted, limit - len(found), room)
            await self._read(piece.run)
            found += piece.found
            if piece.at is None:
                break
            rows, room = rows + piece.rows, room - piece.size
            if rows >= _MOST_ROWS or room <= 0:
                return Found(found, stopped_at=piece.at)
            wanted = replace(wanted, before_seq=piece.at)
        return Found(found)


class _Slice:
    """A part of a search, done in the thread.

    Attributes:
        found: what it has found.
        rows: how many jobs it has looked at.
        size: bytes of what it has found.
        at: the last one that it has looked at; None where there are no older ones.
    """

    def __init__(
        self, select: str, job: Callable[[tuple[Any, ...]], JobRecord], wanted: Filter, limit: int, room: int
    ) -> None:
        self._select = select
        self._job = job
        self._wanted = wanted
        self._limit = limit
        self._room = room
        self.found: list[JobRecord] = []
        self.rows = self.size = 0
        self.at = wanted.before_seq

    def run(self, connection: sqlite3.Connection) -> None:
        """Look until it has taken long enough, or enough was found."""
        ends = time.monotonic() + _SLICE_SECONDS
        while True:
            candidates = self._candidates(connection)
            if not candidates:
                self.at = None
                return
            for chunk in _chunks(candidates):
                self._look(connection, chunk)
                if len(self.found) >= self._limit or self.size >= self._room or time.monotonic() > ends:
                    return

    def _candidates(self, connection: sqlite3.Connection) -> list[tuple[int, int]]:
        """The next jobs that may match, and how large they are: of one identity, by an index alone."""
        wanted = self._wanted
        before, values = ("", list[Any]()) if self.at is None else (" AND seq < ?", [self.at])
        if wanted.identity is None:
            arms, given = [f"SELECT seq, spec_bytes FROM jobs WHERE 1{before}"], [[*values, _ROWS]]  # noqa: S608
        else:
            # Each state by itself: the index has the jobs of one state in order.
            states = [state.value for state in dict.fromkeys(wanted.states or JobState)]
            arm = f"SELECT seq, spec_bytes FROM jobs WHERE identity = ? AND state = ?{before}"  # noqa: S608
            arms, given = [arm] * len(states), [[wanted.identity, state, *values, _ROWS] for state in states]
        query = " UNION ALL ".join(f"SELECT * FROM ({arm} ORDER BY seq DESC LIMIT ?)" for arm in arms)  # noqa: S608
        rows = connection.execute(
            f"{query} ORDER BY seq DESC LIMIT ?", [value for each in given for value in each] + [_ROWS]
        )
        return rows.fetchall()

    def _look(self, connection: sqlite3.Connection, chunk: list[tuple[int, int]]) -> None:
        wanted, sizes = self._wanted, dict(chunk)
        conditions, values = ["seq IN (SELECT value FROM json_each(?))"], [json.dumps([*sizes])]
        if wanted.identity is None and wanted.states:
            conditions.append("state IN (SELECT value FROM json_each(?))")
            values.append(json.dumps([state.value for state in wanted.states]))
        if wanted.created_after is not None:
            conditions.append("created >= ?")
            values.append(wanted.created_after)  # type: ignore[arg-type]
        labels = wanted.labels or {}
        for label, value in labels.items():
            # Most jobs do not have it anywhere: only the others are worth reading as JSON.
            conditions.append("instr(spec, ?)")
            values.append(compact_json({label: value})[1:-1])
        query = f"{self._select} WHERE {' AND '.join(conditions)} ORDER BY seq DESC"
        for row in connection.execute(query, values):
            job = self._job(row)
            if all(job.content.labels.get(label) == value for label, value in labels.items()):
                self.found.append(job)
                self.size += sizes[job.seq]
            if len(self.found) >= self._limit or self.size >= self._room:
                self.at = job.seq
                return
        self.rows += len(chunk)
        self.at = chunk[-1][0]


def _chunks(candidates: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """In pieces that are looked at in one go."""
    chunks, size = [list[tuple[int, int]]()], 0
    for candidate in candidates:
        if chunks[-1] and size + candidate[1] > _BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(candidate)
        size += candidate[1]
    return chunks
