"""The journal: what it was told and has acknowledged is there, whatever happens."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remsvc.execution.jobs.journal import SCHEMA_VERSION, Journal, JournalError
from remsvc.execution.jobs.model import (
    JobContent,
    JobRecord,
    TooManySearchesError,
    content_digest,
)
from remsvc.execution.jobs.search import Filter
from remsvc.job_state import JobState, OutputSize
from tests.execution.processes import own_descriptors

JOURNALS = Path(__file__).parent / "journals"

NOW = 1_700_000_000.25


def a_job(number: int = 0, **values: object) -> JobRecord:
    content = JobContent(shell_command=f"echo {number}", labels={"number": str(number)})
    job = JobRecord(
        id=f"job-{number}",
        identity="alice",
        request_id=f"request {number}",
        digest=content_digest(content, b""),
        content=content,
        created=NOW + number,
    )
    return dataclasses.replace(job, **values)  # type: ignore[arg-type]


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    await journal.close()


def without_seq(job: JobRecord | None) -> JobRecord:
    assert job is not None
    return dataclasses.replace(job, seq=0)


async def ids(journal: Journal, wanted: Filter, limit: int = 100) -> list[str]:
    return [job.id for job in (await journal.select(wanted, limit)).jobs]


# Claims and changes


async def test_a_claim_is_found_by_its_id_and_by_its_request(journal: Journal) -> None:
    claimed, is_new = await journal.claim(a_job())
    assert is_new
    assert without_seq(claimed) == a_job()
    assert await journal.find(id="job-0") == claimed
    assert await journal.find(identity="alice", request_id="request 0") == claimed
    assert await journal.find(identity="bob", request_id="request 0") is None
    assert await journal.find(id="job-1") is None


async def test_a_request_is_claimed_once(journal: Journal) -> None:
    claims = await asyncio.gather(
        *(journal.claim(a_job(id=f"job-{n}", digest=f"content {n}")) for n in range(50))
    )
    assert [is_new for _, is_new in claims].count(True) == 1
    (first,) = [job for job, is_new in claims if is_new]
    assert all(job == first for job, _ in claims)
    assert await ids(journal, Filter()) == [first.id]


async def test_all_of_a_job_comes_back(journal: Journal) -> None:
    content = JobContent(
        shell_command="echo '\u00e9\n\U0001d11e' \"",
        user="nobody",
        cwd="/tmp",
        env={"A": "b\nc", "": "x"},
        time_limit=1.5,
        kill_grace=0.0,
        output_limit=2**50,
        labels={"\u043a": '"'},
        source="s",
        lease=3.0,
    )
    job = a_job(content=content)
    await journal.claim(job)
    ended = dataclasses.replace(
        job,
        state=JobState.CANCELLED,
        exit_code=143,
        signal=15,
        reason="r\u00e9ason",
        started=NOW + 1.125,
        ended=NOW + 2.375,
        stdout=OutputSize(2**60, dropped=2**59, head=5),
        stderr=OutputSize(1, head=1),
        pid=4_000_000,
        pid_started=NOW,
        supervisor="abc",
    )
    await journal.update(ended)
    assert without_seq(await journal.find(id=job.id)) == ended


async def test_a_reason_never_wakes_an_ended_job(journal: Journal) -> None:
    await journal.claim(a_job(0, state=JobState.RUNNING))
    await journal.note_reason(a_job(0, reason="cancelled"))
    found = await journal.find(id="job-0")
    assert found is not None
    assert (found.state, found.reason) == (JobState.RUNNING, "cancelled")
    await journal.update(a_job(0, state=JobState.SUCCEEDED, ended=NOW))
    await journal.note_reason(a_job(0, reason="too late"))
    assert without_seq(await journal.find(id="job-0")) == a_job(0, state=JobState.SUCCEEDED, ended=NOW)


async def test_unended_and_ended(journal: Journal) -> None:
    for number, state in enumerate(JobState):
        await journal.claim(a_job(number))
        if state.ended:
            size = OutputSize(1000 * number, dropped=100, head=10)
            end = NOW + 100 - number
            await journal.update(
                a_job(number, state=state, ended=end, stdout=size, stderr=OutputSize(7, head=7))
            )
    assert [job.id for job in await journal.unended()] == ["job-0", "job-1"]
    ended = await journal.ended(100)
    texts = len(a_job().content.to_json())
    assert ended == [(f"job-{n}", NOW + 100 - n, 1000 * n - 100 + 7 + texts) for n in (6, 5, 4, 3, 2)]
    assert await journal.ended(2, 1) == ended[1:3]
    assert await journal.ended_totals() == (5, sum(kept for _, _, kept in ended))
    await journal.forget(["job-6", "job-4", "no such job"])
    assert [job_id for job_id, _, _ in await journal.ended(100)] == ["job-5", "job-3", "job-2"]
    assert await journal.ended_totals() == (3, sum(kept for job_id, _, kept in await journal.ended(100)))
    every = [f"job-{number}" for number in range(len(JobState))]
    assert await journal.known([*every, "no such job", ""]) == {"job-0", "job-1", "job-2", "job-3", "job-5"}


async def test_a_forgotten_request_may_be_used_again_and_gets_a_later_number(journal: Journal) -> None:
    first, _ = await journal.claim(a_job())
    await journal.forget([first.id])
    second, is_new = await journal.claim(a_job(id="another"))
    assert is_new
    assert second.seq > first.seq


# Lists


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_filters_and_pages(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Against the same question asked of a list."""
    texts = st.sampled_from(["", "a", "b", '"', "\u00e9", "$.x", "a'b", "\\", "\U0001d11e"])
    labels = st.dictionaries(texts, texts, max_size=3)
    jobs = data.draw(
        st.lists(
            st.builds(
                lambda identity, state, labels, created: (identity, state, labels, created),
                st.sampled_from(["alice", "bob"]),
                st.sampled_from(JobState),
                labels,
                st.integers(0, 5),
            ),
            max_size=12,
        )
    )
    wanted = Filter(
        identity=data.draw(st.sampled_from([None, "alice", "bob"])),
        states=data.draw(st.sets(st.sampled_from(JobState), max_size=3)),
        labels=data.draw(st.none() | st.dictionaries(texts, texts, max_size=2)),
        created_after=data.draw(st.none() | st.integers(0, 6).map(float)),
    )
    page = data.draw(st.integers(1, 4))

    async def check() -> None:
        journal = Journal(tmp_path_factory.mktemp("journal") / "journal.sqlite")
        try:
            expected: list[str] = []
            for number, (identity, state, labels, created) in enumerate(jobs):
                content = JobContent(shell_command="x", labels=labels)
                await journal.claim(
                    a_job(number, identity=identity, state=state, content=content, created=float(created))
                )
                if (
                    wanted.identity in (None, identity)
                    and (not wanted.states or state in wanted.states)
                    and all(labels.get(key) == value for key, value in (wanted.labels or {}).items())
                    and (wanted.created_after is None or created >= wanted.created_after)
                ):
                    expected.insert(0, f"job-{number}")
            found: list[JobRecord] = []
            before = dataclasses.replace(wanted, before_seq=None)
            while more := (await journal.select(before, page)).jobs:
                assert len(more) <= page
                found += more
                before = dataclasses.replace(wanted, before_seq=found[-1].seq)
            assert [job.id for job in found] == expected
        finally:
            await journal.close()

    asyncio.run(check())


async def claim_many(path: Path, identity: str, count: int, labels: dict[str, str]) -> None:
    """So many ended jobs at once, put there by hand: one by one they would take minutes."""
    job = a_job(
        identity=identity, content=JobContent(shell_command="x", labels=labels), state=JobState.SUCCEEDED
    )
    journal = Journal(path)
    await journal.claim(job)
    await journal.close()
    with sqlite3.connect(path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(jobs)")]
        own = {"seq": "NULL", "id": "id || '-' || value", "request_id": "request_id || '-' || value"}
        values = ", ".join(own.get(column, column) for column in columns)
        connection.execute(
            f"WITH RECURSIVE numbers(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers"
            f" LIMIT {count}) INSERT INTO jobs ({', '.join(columns)}) SELECT {values} FROM jobs, numbers"
        )
    connection.close()


async def test_a_long_search_holds_up_nobody_elses(tmp_path: Path) -> None:
    labels = {f"label {number}": "x" * 250 for number in range(32)}
    path = tmp_path / "journal.sqlite"
    await claim_many(path, "mallory", 10_000, labels)
    journal = Journal(path)
    await journal.claim(a_job(1))
    # Each has all of the labels but one.
    wanted = Filter("mallory", labels={**labels, "label 31": "y"})
    long = [asyncio.create_task(journal.select(wanted, 100)) for _ in range(10)]
    await asyncio.sleep(0)
    for _ in range(3):
        assert await ids(journal, Filter("alice")) == ["job-1"]
    assert not any(search.done() for search in long)
    for search in long:
        search.cancel()
    await asyncio.wait(long)
    assert await ids(journal, Filter("alice")) == ["job-1"]
    await journal.close()


async def test_searches_of_one_identity_are_bounded(journal: Journal) -> None:
    await journal.claim(a_job(1))
    searches = [asyncio.create_task(journal.select(Filter("mallory"), 1)) for _ in range(100)]
    await asyncio.sleep(0)
    assert await ids(journal, Filter("alice")) == ["job-1"]
    outcomes = await asyncio.gather(*searches, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, TooManySearchesError)]
    assert 0 < len(refused) < 100
    assert (await journal.select(Filter("mallory"), 1)).jobs == []


async def test_no_more_is_found_than_fits_into_an_answer(journal: Journal) -> None:
    for number in range(20):
        content = JobContent(shell_command="x", env={"A": "x" * 300_000})
        await journal.claim(a_job(number, content=content))
    found, wanted, pages = [], Filter("alice"), 0
    while True:
        page = await journal.select(wanted, 100)
        assert sum(len(job.content.to_json()) for job in page.jobs) < 3e6
        found += [job.id for job in page.jobs]
        pages += 1
        if page.stopped_at is None:
            break
        wanted = dataclasses.replace(wanted, before_seq=page.stopped_at)
    assert found == [f"job-{number}" for number in range(19, -1, -1)]
    assert pages == 3


# Files


async def test_only_its_owner_can_read_it(journal: Journal, tmp_path: Path) -> None:
    """Commands and environments may hold secrets; the folder's own mode may be anything."""
    await journal.claim(a_job())
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("journal.sqlite*")} == {0o600}


async def test_what_was_acknowledged_is_on_disk_before_it_is_closed(journal: Journal, tmp_path: Path) -> None:
    await journal.claim(a_job())
    copy = tmp_path / "copy.sqlite"
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"journal.sqlite{suffix}", f"{copy}{suffix}")
    other = Journal(copy)
    assert without_seq(await other.find(id="job-0")) == a_job()
    await other.close()


async def test_many_changes_share_a_commit(tmp_path: Path) -> None:
    """Each waits for the disk; a thousand at once do not wait a thousand times."""
    journal = Journal(tmp_path / "journal.sqlite")
    await asyncio.gather(*(journal.claim(a_job(number)) for number in range(1000)))
    frames = (tmp_path / "journal.sqlite-wal").stat().st_size // 4096
    await journal.close()
    assert frames < 1000, "one row a commit would take at least three pages each"


async def test_more_changes_than_may_wait_are_refused(journal: Journal) -> None:
    results = await asyncio.gather(
        *(journal.note_reason(a_job(number)) for number in range(12_000)), return_exceptions=True
    )
    refused = [result for result in results if result is not None]
    assert all(isinstance(result, JournalError) for result in refused)
    await journal.claim(a_job())


async def test_one_change_that_cannot_be_made_does_not_take_others_with_it(journal: Journal) -> None:
    good = [a_job(number) for number in range(20)]
    bad = [
        dataclasses.replace(a_job(30), pid=2**70),  # no SQLite integer
        dataclasses.replace(a_job(31), id="job-3"),  # somebody else's id
        dataclasses.replace(a_job(32), reason="\ud800"),  # no text
    ]
    claims = await asyncio.gather(
        *(journal.claim(job) for job in (*good[:10], *bad, *good[10:])), return_exceptions=True
    )
    failures = [claim for claim in claims if isinstance(claim, BaseException)]
    assert len(failures) == 3
    assert all(isinstance(failure, JournalError) for failure in failures)
    assert await ids(journal, Filter()) == [job.id for job in reversed(good)]
    await journal.claim(a_job(40))


async def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(JournalError, match="not a database"):
        Journal(path)
    assert path.read_bytes() == b"not a database at all" * 100
    with pytest.raises(JournalError, match="No such file"):
        Journal(tmp_path / "missing" / "journal.sqlite")


async def test_a_journal_of_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    await Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(JournalError, match="later version"):
        Journal(path)


async def test_closing_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    before = own_descriptors()
    for _ in range(5):
        journal = Journal(tmp_path / "journal.sqlite")
        await journal.claim(a_job())
        await journal.find(id="job-0")
        await journal.close()
    assert own_descriptors() <= before
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("journal")]
    assert [path.name for path in tmp_path.iterdir()] == ["journal.sqlite"]


# Earlier versions


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
async def test_a_journal_of_every_version_opens(tmp_path: Path, version: int) -> None:
    """The journals in ``journals/`` were written by the versions that they are named after."""
    path = tmp_path / "journal.sqlite"
    shutil.copy(JOURNALS / f"v{version}.sqlite", path)
    journal = Journal(path)
    found = await journal.select(Filter(), 100)
    jobs = {job.request_id.removeprefix("request "): job for job in found.jobs}
    assert {name: job.state.value for name, job in jobs.items()} == {
        "queued": "QUEUED",
        "running": "RUNNING",
        "cancelling": "RUNNING",
        "succeeded": "SUCCEEDED",
        "failed": "FAILED",
        "unstarted": "FAILED",
        "signalled": "FAILED",
        "cancelled": "CANCELLED",
        "timed-out": "TIMED_OUT",
        "lost": "LOST",
    }
    succeeded = jobs["succeeded"]
    assert succeeded.stdout == OutputSize(5_000_000_000, dropped=4_999_998_900, head=100)
    assert (succeeded.identity, succeeded.exit_code, succeeded.created) == ("bob", 0, 1_700_000_001.0)
    assert succeeded.content.labels == {"dag": "nightly", "\u00e9": 'a "quoted" \u00fc'}
    assert jobs["running"].content.argv == ("/bin/echo", "a b", "")
    assert [job.request_id for job in await journal.unended()] == [
        "request queued",
        "request running",
        "request cancelling",
    ]
    # The same request is still known to be the same.
    for job in jobs.values():
        claimed, is_new = await journal.claim(dataclasses.replace(job, id="another"))
        assert not is_new
        assert claimed.digest == content_digest(job.content, b"")
    await journal.close()
    await Journal(path).close()  # opens again
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        sizes = "SELECT count(*) FROM jobs WHERE spec_bytes <> length(CAST(spec AS BLOB))"
        assert connection.execute(sizes).fetchone() == (0,)
    connection.close()


# Torn writes


def cut(wal: bytearray, place: int) -> None:
    del wal[place:]


def zeros(wal: bytearray, place: int) -> None:
    wal[place:] = bytes(len(wal) - place)


def garbage(wal: bytearray, place: int) -> None:
    wal[place:] = os.urandom(len(wal) - place)


@pytest.mark.parametrize("tear", [cut, zeros, garbage])
async def test_torn_anywhere_in_its_last_transaction(
    tmp_path: Path, tear: Callable[[bytearray, int], None]
) -> None:
    """It opens, and has the last transaction whole or not at all; all before that is there."""
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    ) as folder:
        await check_torn(Path(folder), tear)


async def check_torn(tmp_path: Path, tear: Callable[[bytearray, int], None]) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    await journal.claim(a_job(0))
    before = (tmp_path / "journal.sqlite-wal").read_bytes()
    main = path.read_bytes()
    await asyncio.gather(journal.claim(a_job(1)), journal.update(a_job(0, state=JobState.RUNNING)))
    whole = (tmp_path / "journal.sqlite-wal").read_bytes()
    await journal.close()
    assert whole.startswith(before)
    torn = tmp_path / "torn.sqlite"
    outcomes = set()
    for number, place in enumerate(places(len(before), len(whole))):
        wal = bytearray(whole)
        tear(wal, place)
        torn.write_bytes(main)
        Path(f"{torn}-wal").write_bytes(wal)
        Path(f"{torn}-shm").unlink(missing_ok=True)
        # Reading it as the journal does; the journal itself is opened at some of the places.
        if number % 25 == 0 or place == len(whole):
            outcome = await read_by_journal(torn)
        else:
            outcome = read_directly(torn)
        assert outcome in ({"job-0": "QUEUED"}, {"job-0": "RUNNING", "job-1": "QUEUED"}), place
        outcomes.add(len(outcome))
    assert outcomes == {1, 2}
    assert outcome == {"job-0": "RUNNING", "job-1": "QUEUED"}, "nothing was cut"


def places(start: int, end: int) -> list[int]:
    """Where the write-ahead log is torn: each byte of SQLite's frame headers, and of both ends of the pages.

    A page between them is one to SQLite, whose checksum covers it whole: there every 64th byte will do.
    """
    frame, edge = 24 + 4096, 32
    assert (end - start) % frame == 0
    near = [place for place in range(start, end) if (place - start) % frame < 24 + edge]
    near += [place for place in range(start, end) if (place - start) % frame >= frame - edge]
    return sorted({*near, *range(start, end, 64), end})


async def read_by_journal(path: Path) -> dict[str, str]:
    journal = Journal(path)
    states = {job.id: job.state.value for job in (await journal.select(Filter(), 10)).jobs}
    claimed, is_new = await journal.claim(a_job(2))
    assert is_new
    assert await journal.find(id="job-2") == claimed
    await journal.close()
    return states


def read_directly(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return dict(connection.execute("SELECT id, state FROM jobs"))
    finally:
        connection.close()


async def test_after_it_was_closed_nobody_waits(tmp_path: Path) -> None:
    """Whoever asks too late is refused: with a text that names no file."""
    journal = Journal(tmp_path / "journal.sqlite")
    claimed, _ = await journal.claim(a_job())
    await journal.close()
    calls = (
        journal.claim(a_job(1)),
        journal.update(claimed),
        journal.note_reason(claimed),
        journal.forget([claimed.id]),
        journal.find(id=claimed.id),
        journal.select(Filter(), 10),
        journal.known([claimed.id]),
        journal.ended_totals(),
    )
    for call in calls:
        with pytest.raises(JournalError) as refused:
            await asyncio.wait_for(call, 10)
        assert refused.value.told == "the server is shutting down"
    await journal.close()
