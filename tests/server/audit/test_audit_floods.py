"""Whatever callers send, the audit log stays readable, and neither its disk nor its queue fills up."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.client import Client, ConnectionOptions
from remsvc.client.jobs import JobSpec
from remsvc.command import Command
from remsvc.errors import ServerError
from remsvc.server.audit.chain import encode_line
from remsvc.server.audit.file import AuditFile
from remsvc.server.audit.record import bounded
from remsvc.server.audit.writer import AuditWriter
from tests.server.audit.test_audit import (
    AUTH,
    DEADLINE,
    client_of,
    path,
    records,
    run_job,
    verify,
    wait_until,
)
from tests.small_disk import small_disk

if TYPE_CHECKING:
    from tests.conftest import Serve

__all__ = ["path"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX commands")
LONGEST_LINE = 64 * 1024


# Records


def test_a_permitted_command_of_any_length_is_one_short_line(serve: Serve, path: Path) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\n")
    text = ": " + "\U0001f600" * 32_000
    with client_of(server) as client:
        client.run(Command(text, src="\x01" * 4096), timeout=DEADLINE)
        many = {f"{number}-" + "é" * 400: "x" for number in range(1000)}
        job = run_job(client, JobSpec(argv=("/bin/true", *["x" * 60_000] * 10), environment=many), "job")
        assert job.exit_code == 0
    assert server.terminate() == 0
    assert max(map(len, path.read_bytes().split(b"\n"))) <= LONGEST_LINE
    command = records(path, event="decision")[0]
    assert text.startswith(command["command"])
    assert len(command["command"]) > 1000
    assert command["command_length"] == len(text)
    assert command["command_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert command["source_length"] == 4096
    names = sorted(many)
    of_job = records(path, request_id="job", event="decision")[0]
    assert of_job["environment"] == names[: len(of_job["environment"])]
    assert of_job["environment_length"] == len(names)
    assert of_job["environment_sha256"] == hashlib.sha256("\n".join(names).encode()).hexdigest()
    verify(path)


def test_a_refused_command_is_cut_and_known_by_its_hash(serve: Serve, path: Path) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\nredact = s3cret\n[denylist]\n01 = forbidden\n")
    text = "forbidden s3cret " + "x" * 100_000
    with client_of(server) as client, pytest.raises(ServerError, match="denied"):
        client.run(Command(text), timeout=DEADLINE)
    assert server.terminate() == 0
    (refused,) = records(path, outcome="refused")
    shown = text.replace("s3cret", "***")
    assert (refused["command"], refused["command_length"]) == (shown[:4096], len(shown))
    assert refused["command_sha256"] == hashlib.sha256(shown.encode()).hexdigest()
    assert len(json.dumps(refused)) < 16 * 1024


_FIELDS = ("command", "environment", "user", "working_directory", "source", "reason", "rule", "job")


_MADE = st.dictionaries(
    st.sampled_from(_FIELDS), st.tuples(st.text(min_size=1), st.integers(1, 20_000)), max_size=8
)


@given(_MADE)
def test_no_record_is_longer_than_a_line_may_be(made: dict[str, tuple[str, int]]) -> None:
    record: dict[str, object] = {}
    for name, (text, times) in made.items():
        many = name == "environment"
        record[name] = [text] * times if many else text * (times % (131_072 // len(text) + 1))
    cut = bounded(record)
    assert len(encode_line(cut)) < LONGEST_LINE - 2048
    for name, value in record.items():
        kept = cut[name]
        assert kept == value[: len(kept)]  # type: ignore[index, arg-type]
        if kept == value:
            assert f"{name}_length" not in cut
        else:
            assert cut[f"{name}_length"] == len(value)  # type: ignore[arg-type]


# Floods


@pytest.mark.parametrize("what", ["denied", "job", "not there"])
def test_refusals_of_one_identity_are_told_of_together(serve: Serve, path: Path, what: str) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\n[denylist]\n01 = forbidden\n")
    count = 500
    with client_of(server) as client:
        for number in range(count):
            with suppress(ServerError):
                if what == "not there":
                    client.cancel_job(f"job-{number}")
                elif what == "job":
                    client.create_job(JobSpec(shell_command="forbidden"), f"request-{number}")
                else:
                    client.run(Command("forbidden"), timeout=DEADLINE)
        with client_of(server, "bob") as bob, suppress(ServerError):
            bob.run(Command("forbidden for bob"), timeout=DEADLINE)
    assert server.terminate() == 0
    refused = records(path, outcome="refused", identity="alice")
    told = [record for record in refused if "suppressed" in record]
    assert 100 <= len(refused) - len(told) < 400
    assert len(refused) - len(told) + sum(record["suppressed"] for record in told) == count
    assert re.fullmatch(r"\d+ more refused in \d+ s", told[0]["reason"])
    # The log says the same.
    if what != "not there":
        assert len(re.findall(r" refused reason=.*identity=alice", server.log)) == len(refused) - len(told)
    more = re.findall(r"WARNING remsvc.audit (\d+) more refused in \d+ s identity=alice", server.log)
    assert [int(each) for each in more] == [record["suppressed"] for record in told]
    # Another's is not lost among them.
    (bob_s,) = records(path, outcome="refused", identity="bob")
    assert bob_s["command"] == "forbidden for bob"
    verify(path)


def test_strangers_are_told_of_together(serve: Serve, path: Path) -> None:
    server = serve(f"{AUTH}[audit]\nfile = {path}\n[limits]\nfailed_authentications = 100000/s\n")
    with Client(ConnectionOptions(server.target, token="wrong")) as client:
        for _ in range(500):
            with suppress(ServerError):
                client.ping(timeout=DEADLINE)
    assert server.terminate() == 0
    refused = records(path, event="authentication")
    told = [record for record in refused if "suppressed" in record]
    assert {record["peer"] for record in told} == {"127.0.0.1"}
    assert len(refused) - len(told) + sum(record["suppressed"] for record in told) == 500
    assert server.log.count("unauthenticated method=") == len(refused) - len(told)


# The disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 20 megabytes."""
    with small_disk(tmp_path / "disk", "size=20m,mode=700") as folder:
        yield folder


def test_refusals_leave_the_last_of_the_disk_to_what_is_permitted(serve: Serve, disk: Path) -> None:
    path = disk / "audit.jsonl"
    server = serve(f"{AUTH}[audit]\nfile = {path}\n[denylist]\n01 = forbidden\n")
    with client_of(server) as client:
        client.run(Command("true"), timeout=DEADLINE)
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > 1_000_000:
                filler.write(bytes(4096))

        def is_withheld() -> bool:
            with suppress(ServerError):
                client.run(Command("forbidden"), timeout=DEADLINE)
            return "what is refused is counted, and not written" in server.log

        wait_until(is_withheld, "it is said")
        before = len(records(path, outcome="refused"))
        with pytest.raises(ServerError, match="denied"):
            client.run(Command("forbidden"), timeout=DEADLINE)
        assert client.run(Command("echo permitted"), timeout=DEADLINE).out == "permitted\n"
        assert len(records(path, outcome="refused")) == before
        (disk / "filler").unlink()

        def is_written() -> bool:
            client.run(Command("true"), timeout=DEADLINE)
            return bool(records(path, action="lost"))

        wait_until(is_written, "how many there were is written")
    assert server.terminate() == 0
    (lost,) = records(path, action="lost")
    assert lost["withheld_refusals"] >= 1
    verify(path)


# The queue


async def test_what_waits_for_a_disk_is_bounded_in_bytes(tmp_path: Path) -> None:
    """And of that, refusals may be a quarter."""
    path = tmp_path / "audit.jsonl"
    path.symlink_to("nowhere")
    writer = AuditWriter(AuditFile(path), None)
    await writer.open()
    for number in range(2000):
        writer.note({"event": "decision", "outcome": "refused", "command": f"{number}" * 4000}, refusal=True)
    for number in range(2000):
        writer.note({"event": "transition", "outcome": "LOST", "command": f"{number:04}" * 5000})
    path.unlink()
    await writer.close()
    (lost,) = records(path, action="lost")
    refused, others = records(path, outcome="refused"), records(path, outcome="LOST")
    assert lost["unwritten"] == 4000 - len(refused) - len(others)
    assert 0 < sum(len(record["command"]) for record in refused) < 4.5e6
    assert 8e6 < sum(len(record["command"]) for record in (*refused, *others)) < 17e6
