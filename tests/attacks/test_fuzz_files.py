"""What is read from files and connections, with arbitrary content: refused with a reason, never a crash."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.execution.jobs.journal import Journal, JournalError
from remsvc.execution.jobs.search import Filter
from remsvc.execution.supervisor.frames import FrameReader
from remsvc.execution.supervisor.output import read_gap, read_output
from remsvc.execution.supervisor.records import ExitRecord, read_exit_record
from remsvc.server.config import check_config
from remsvc.server.settings.ini import parse_ini
from tests.attacks.fuzzing import corpus, fuzz

JOURNAL = Path(__file__).parents[1] / "execution" / "jobs" / "journals" / "v1.sqlite"

# The server's configuration

_NAMES = st.sampled_from(
    [
        "server",
        "tls",
        "auth",
        "denylist",
        "allowlist",
        "log",
        "jobs",
        "limits",
        "audit",
        "certificates",
        "group\\",
        "x",
        "identity\\",
        "x",
    ]
).map(lambda name: name.replace("\\", " "))
_LINES = st.lists(
    st.one_of(
        _NAMES.map(lambda name: f"[{name}]"),
        st.tuples(
            st.sampled_from(
                [
                    "port",
                    "host",
                    "enabled",
                    "cert",
                    "level",
                    "file",
                    "users",
                    "rate",
                    "deny.1",
                    "members",
                    "umask",
                    "token_file",
                ]
            ),
            st.sampled_from([" = ", "=", " : ", " "]),
            st.text(max_size=30),
        ).map("".join),
        st.text(max_size=40),
    ),
    max_size=12,
)


def check(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "server.ini")
        path.write_bytes(content)
        problems, warnings = check_config(path)
    for line in (*problems, *warnings):
        assert line
        assert "\n" not in line


@fuzz
@given(st.binary(max_size=300))
def test_a_configuration_of_any_bytes(content: bytes) -> None:
    check(content)


@fuzz
@given(_LINES)
def test_a_configuration_that_is_nearly_one(lines: list[str]) -> None:
    check("\n".join(lines).encode("utf-8", "surrogatepass"))


@fuzz
@given(st.text(max_size=300))
def test_every_line_of_a_configuration_is_an_entry_or_a_mistake(text: str) -> None:
    entries, mistakes = parse_ini(text)
    last = len(text.splitlines()) + 1
    assert all(0 < item.line <= last for item in (*entries, *mistakes))


@pytest.mark.parametrize("content", **corpus("configurations"))
def test_the_corpus_of_configurations(content: bytes) -> None:
    check(content)


# Airflow's connections


def read_connection(uri: str) -> None:
    pytest.importorskip("airflow")
    from airflow.sdk import Connection

    from remsvc_provider.connection.options import connection_options
    from remsvc_provider.version_compat import AirflowException

    try:
        connection = Connection.from_uri(uri, conn_id="x")
    except Exception:  # noqa: BLE001  Airflow's own reading
        return
    try:
        options = connection_options(connection, lambda line: None)
    except AirflowException:
        return
    assert options.target
    token = options.token or ""
    assert token.isprintable()
    assert token.isascii()


@fuzz
@given(
    host=st.text(max_size=20),
    port=st.integers(-5, 100_000),
    query=st.lists(
        st.tuples(
            st.sampled_from(["extra", "use_ssl", "bearer_token", "ca_cert_path", "x"]), st.text(max_size=30)
        ),
        max_size=3,
    ),
)
def test_a_connection_uri_of_any_content(host: str, port: int, query: list[tuple[str, str]]) -> None:
    text = "&".join(f"{key}={value}" for key, value in query)
    read_connection(f"remsvc://{host}:{port}/?{text}")


@pytest.mark.parametrize("content", **corpus("uris"))
def test_the_corpus_of_uris(content: bytes) -> None:
    read_connection(content.decode())


# The state directory: only its owner writes there, but disks fail


async def read_all(path: Path) -> None:
    journal = Journal(path)
    try:
        await journal.unended()
        await journal.ended(100)
        await journal.ended_totals()
        await journal.known(["a"])
        await journal.select(Filter(labels={"a": "b"}), 100)
    finally:
        await journal.close()


def read_journal(path: Path) -> None:
    with contextlib.suppress(JournalError):
        asyncio.run(read_all(path))


@fuzz
@given(where=st.floats(0, 1), what=st.binary(min_size=1, max_size=64), cut=st.booleans())
def test_a_journal_that_is_damaged(where: float, what: bytes, cut: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "journal.sqlite")
        content = bytearray(JOURNAL.read_bytes())
        at = int(where * len(content))
        content[at : len(content) if cut else at + len(what)] = what
        path.write_bytes(content)
        read_journal(path)


_CELL = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=20), st.binary(max_size=20)
)


@fuzz
@given(
    column=st.sampled_from(["spec", "state", "exit_code", "created", "stdout_total", "id", "identity"]),
    cell=_CELL | st.sampled_from(["{}", "[]", "null", '{"argv": 1}', "[" * 50_000]),
)
def test_a_journal_with_rows_that_are_no_jobs(column: str, cell: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "journal.sqlite")
        shutil.copy(JOURNAL, path)
        connection = sqlite3.connect(path)
        try:
            with connection:
                connection.execute(f"UPDATE OR IGNORE jobs SET {column} = ?", (cell,))
        except sqlite3.IntegrityError:
            return
        finally:
            connection.close()
        read_journal(path)


@fuzz
@given(st.binary(max_size=200))
def test_files_of_a_job_with_any_content(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for name in ("exit", "exit.json", "stdout", "stdout.gap"):
            (folder / name).write_bytes(content)
        record = read_exit_record(folder)
        assert record is None or isinstance(record, ExitRecord)
        with contextlib.suppress(OSError):  # it says that it is damaged
            read_gap(folder / "stdout")
        with contextlib.suppress(OSError):
            read_piece(folder / "stdout")


def read_piece(path: Path) -> None:
    start, data = read_output(path, 0, 100)
    assert start >= 0
    assert len(data) <= 100


@fuzz
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_frames_of_the_supervisor_of_any_content(pieces: list[bytes]) -> None:
    reader = FrameReader()
    for piece in pieces:
        try:
            list(reader.feed(piece))
        except ValueError:
            return
