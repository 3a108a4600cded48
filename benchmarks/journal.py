"""A journal that holds 1,000,000 finished jobs: what the server does with it, against an empty one.

The jobs are copies of one that really ran, with ids, times and labels of their own, written by one SQL
transaction into the journal of a server that is stopped. A job that printed something has a folder on disk
as well, a job that did not has none, and neither have these.

In each round both servers are started anew: how long until the first answered call, and what memory that
took. Then single calls: the median of some, or as much as one takes where it is slow. ``list`` asks for the
first page of 100 jobs: of all; by a label that only the 50 oldest have; by a state that no job is in.
Last, and not in a quick run, the longest ``Ping`` while the server looks for jobs that need not be kept.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.rows import Rounds, Row
from benchmarks.server import PingProbe, Server
from benchmarks.settings import Settings
from remsvc.client import Client
from remsvc.client.jobs import Job, JobSpec, JobState

GROUP = "journal"
_CONFIG = "[jobs]\nretention_count = 10000000\nretention_hours = 87840\n"
_SPEC = JobSpec("echo done", labels={"dag_id": "nightly", "task_id": "backup", "try_number": "1"})
_RARE = {"kind": "rare"}
_RARE_JOBS = 50
_BETWEEN = 0.1
"""Seconds between two jobs."""
_MOST_CALLS, _ENOUGH_SECONDS = 50, 0.5
_FIRST_LOOK, _LAST_LOOK = 28.0, 40.0
"""Seconds after the start within which the server looks for jobs that need not be kept."""

Use = Callable[[Client], object]


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    number = settings.amount(1_000_000, 100_000)
    empty, full = settings.folder / "empty", settings.folder / "full"
    for state in (empty, full):
        _run_one(settings, state)
    _multiply(full / "journal.sqlite", number)
    rounds = Rounds(GROUP, 2)
    _add(rounds, settings, empty, "empty")
    _add(rounds, settings, full, f"{number:,} jobs", "empty")
    with closing(_open(full / "journal.sqlite")) as database:
        pages, size = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
    rows = [
        *rounds.run(),
        Row(GROUP, f"{number:,} jobs: disk for each, in the journal", "kB", (pages * size / number / 1000,)),
        Row(GROUP, "disk for a job's output, beside its bytes", "kB", (_disk(full / "jobs"),)),
    ]
    return rows if settings.quick else [*rows, *_looking_back(settings, full, number)]


def _add(rounds: Rounds, settings: Settings, state: Path, name: str, reference: str = "") -> None:
    with closing(_open(state / "journal.sqlite")) as database:
        first = database.execute("SELECT id FROM jobs WHERE request_id = 'first'").fetchone()["id"]
    uses: dict[str, Use] = {
        "create": lambda client: client.create_job(_SPEC, uuid.uuid4().hex),
        "get by id": lambda client: client.get_job(first),
        "get by request id": lambda client: client.get_job(request_id="first"),
        "list": lambda client: _first_page(client),
        f"list by label, of the {_RARE_JOBS} oldest": lambda client: _first_page(client, labels=_RARE),
        "list by state, of none": lambda client: _first_page(client, states=[JobState.LOST]),
    }
    units = {"start-up to first answer": "ms", "peak memory at start-up": "MB"} | dict.fromkeys(uses, "ms")
    rows = {
        work: Row(GROUP, f"{name}: {work}", unit, reference=f"{reference}: {work}" if reference else "")
        for work, unit in units.items()
    }

    def figures() -> dict[str, float]:
        started = time.perf_counter()
        with (
            Server(settings, "journal", state_dir=state, config=_CONFIG) as server,
            Client(server.options) as client,
        ):
            client.ping()
            found = {
                "start-up to first answer": (time.perf_counter() - started) * 1000,
                "peak memory at start-up": server.peak_memory().server,
            }
            for work, use in uses.items():
                found[work] = _milliseconds(client, use)
        return {rows[work].name: value for work, value in found.items()}

    rounds.add(figures, *rows.values(), seconds=180.0)


def _milliseconds(client: Client, use: Use) -> float:
    """The median of many calls, or of fewer where they are slow."""
    taken: list[float] = []
    until = time.perf_counter() + _ENOUGH_SECONDS
    while len(taken) < _MOST_CALLS and (not taken or time.perf_counter() < until):
        started = time.perf_counter()
        use(client)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def _first_page(client: Client, **wanted: Any) -> list[Job]:
    return list(islice(client.list_jobs(page_size=100, timeout=60.0, **wanted), 100))


def _looking_back(settings: Settings, state: Path, number: int) -> list[Row]:
    """What is noticed of the server's look for jobs that need not be kept, which comes every 30 s."""
    rounds = Rounds(GROUP, 1)
    names = [
        f"{number:,} jobs: {what} while old ones are looked for" for what in ("longest Ping", "peak memory")
    ]

    def figures() -> dict[str, float]:
        with Server(settings, "journal", state_dir=state, config=_CONFIG) as server:
            time.sleep(_FIRST_LOOK)
            server.forget_peak()
            with PingProbe(server) as probe:
                time.sleep(_LAST_LOOK - _FIRST_LOOK)
            return dict(zip(names, (max(probe.latencies_ms), server.peak_memory().server), strict=True))

    rounds.add(figures, Row(GROUP, names[0], "ms"), Row(GROUP, names[1], "MB"), seconds=120.0)
    return rounds.run()


# The journals


def _run_one(settings: Settings, state: Path) -> None:
    """Let a server run one job to its end."""
    with (
        Server(settings, "journal", state_dir=state, config=_CONFIG) as server,
        Client(server.options) as client,
    ):
        job = client.create_job(_SPEC, "first")
        for _ in client.watch_job(job.id, timeout=60.0):
            pass


def _multiply(path: Path, number: int) -> None:
    """Copy the one job of a journal, which no server uses: each copy a job of its own, and older."""
    with closing(_open(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -500000")
        columns = [row["name"] for row in database.execute("PRAGMA table_info(jobs)") if row["name"] != "seq"]
        first = database.execute("SELECT * FROM jobs").fetchone()
        rare = json.loads(first["spec"])
        rare["labels"] = _RARE
        rare_spec = json.dumps(rare, sort_keys=True, separators=(",", ":"))  # as the journal writes it
        earlier = f"- (:number - i) * {_BETWEEN}"
        changed = {
            "id": "lower(hex(randomblob(10)))",
            "request_id": "'copy-' || i",
            "spec": f"CASE WHEN i <= {_RARE_JOBS} THEN :rare ELSE spec END",
            **{name: f"{name} {earlier}" for name in ("created", "started", "ended", "pid_started")},
        }
        values = ", ".join(changed.get(column, column) for column in columns)
        database.execute("BEGIN IMMEDIATE")
        database.execute(
            "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < :number) "
            f"INSERT INTO jobs ({', '.join(columns)}) SELECT {values} FROM numbers, jobs WHERE seq = :first",
            {"number": number, "rare": rare_spec, "first": first["seq"]},
        )
        database.execute("COMMIT")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.row_factory = sqlite3.Row
    return database


def _disk(folder: Path) -> float:
    """kB of disk of the folders of one or more jobs, by their number."""
    jobs = list(folder.iterdir())
    used = sum(path.lstat().st_blocks * 512 for job in jobs for path in (job, *job.iterdir()))
    return used / 1000 / len(jobs)
