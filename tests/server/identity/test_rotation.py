"""Tokens come and go while the server runs: who keeps a valid one notices nothing, who does not is out."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from remsvc.server.identity.token_file import list_tokens
from tests.contract.client import command, refused
from tests.contract.jobs import spec
from tests.contract.waiting import wait_until

from .conftest import DEADLINE, Call, RunningServer, Start, Tokens, posix_only, replace

pytestmark = [posix_only, pytest.mark.timeout(300)]

INVALID = "invalid bearer token"
ENDED = "the credentials of this call have been revoked or have expired"


def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "go"
    os.mkfifo(path)
    return path


def first_output(watch: Any) -> bytes:
    return next(bytes(event.stdout.data) for event in watch if event.WhichOneof("event") == "stdout")


@pytest.mark.parametrize("how", ["by SIGHUP", "by the file's change"])
def test_revoking_ends_that_tokens_watches_and_no_others(
    start: Start, call: Call, tokens: Tokens, tmp_path: Path, how: str
) -> None:
    """Of one identity with two tokens, the stolen one is revoked. The job goes on."""
    stolen, kept = tokens.add("airflow"), tokens.add("airflow")
    server = start()
    thief, owner = call(server, stolen), call(server, kept)
    go = fifo(tmp_path)
    job = owner.jobs.create(spec(f"echo before; read line <{go}; echo $line"))
    watches = [thief.jobs.open_watch(job.id), owner.jobs.open_watch(job.id)]
    assert [first_output(watch) for watch in watches] == [b"before\n", b"before\n"]
    if how == "by SIGHUP":
        tokens.revoke(0)
        server.reload()
    else:
        server.change(lambda: tokens.revoke(0))
    with refused(grpc.StatusCode.UNAUTHENTICATED, ENDED):
        list(watches[0])
    with refused(grpc.StatusCode.UNAUTHENTICATED, INVALID):
        thief.client.ping()
    with refused(grpc.StatusCode.UNAUTHENTICATED, INVALID):
        thief.jobs.open_watch(job.id).next()
    go.write_text("after\n")
    assert first_output(watches[1]) == b"after\n"
    assert owner.jobs.watch(job.id).stdout == b"before\nafter\n"
    assert stolen not in server.process.log
    assert list_tokens(tokens.path)[0].digest.hex() not in server.process.log


def test_revoking_ends_an_open_stream_and_its_command(
    start: Start, call: Call, tokens: Tokens, tmp_path: Path
) -> None:
    token = tokens.add("airflow")
    server = start()
    caller = call(server, token)
    stream = caller.client.open_stream()
    stream.send("echo first")
    assert next(stream).out == "first\n"
    pid_file = tmp_path / "pid"
    stream.send(f"echo $$ >{pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000")
    wait_until(pid_file.exists, "the command", DEADLINE)
    tokens.revoke(0)
    server.reload()
    with refused(grpc.StatusCode.UNAUTHENTICATED, ENDED):
        list(stream)
    stream.half_close()
    wait_until(lambda: not psutil.pid_exists(int(pid_file.read_text())), "the command's end", DEADLINE)


def test_an_idle_stream_ends_too(start: Start, call: Call, tokens: Tokens) -> None:
    token = tokens.add("airflow")
    server = start()
    stream = call(server, token).client.open_stream()
    stream.send("true")
    assert next(stream).rc == 0
    tokens.revoke(0)
    server.reload()
    with refused(grpc.StatusCode.UNAUTHENTICATED, ENDED):
        next(stream)
    stream.half_close()


def test_a_watch_whose_client_does_not_read_is_ended(
    start: Start, call: Call, tokens: Tokens, tmp_path: Path
) -> None:
    """A client that keeps the server from writing does not keep itself in."""
    token = tokens.add("airflow")
    server = start()
    caller = call(server, token)
    job = caller.jobs.create(spec("head -c 50000000 /dev/zero; sleep 1000"))
    watch = caller.jobs.open_watch(job.id)
    next(watch)
    wait_until(lambda: caller.jobs.get(job.id).stdout.total_bytes == 50_000_000, "the output", DEADLINE)
    tokens.revoke(0)
    server.reload()
    with refused(grpc.StatusCode.UNAUTHENTICATED, ENDED):
        received = sum(len(event.stdout.data) for event in watch)
        assert received < 50_000_000


def test_a_stream_whose_first_answer_is_not_read_is_ended(start: Start, call: Call, tokens: Tokens) -> None:
    token = tokens.add("airflow")
    server = start()
    stream = call(server, token).client.open_stream()
    stream.send("head -c 250000 /dev/zero | tr '\\0' x", src="written-first")
    wait_until(lambda: "written-first" in server.process.log, "the command's end", DEADLINE)
    tokens.revoke(0)
    server.reload()
    with refused(grpc.StatusCode.UNAUTHENTICATED, ENDED):
        list(stream)
    stream.half_close()


def test_an_expired_token_is_refused(start: Start, call: Call, tokens: Tokens) -> None:
    expired = tokens.add("airflow", time.time() - 1)
    valid = tokens.add("airflow", time.time() + 3600)
    server = start()
    with refused(grpc.StatusCode.UNAUTHENTICATED, INVALID):
        call(server, expired).client.ping()
    call(server, valid).client.ping()
    wait_until(lambda: "has expired" in server.process.log, "what the administrator alone is told")


def test_a_watch_ends_when_its_token_expires(start: Start, call: Call, tokens: Tokens) -> None:
    """With no file changed."""
    server = start_with_kept_token(start, tokens)
    for seconds in (6, 20, 40):  # a slow machine needs longer to open the watch
        token = tokens.add("airflow", time.time() + seconds)
        server.reload()
        caller = call(server, token)
        try:
            job = caller.jobs.create(spec("echo started; sleep 1000"))
            watch = caller.jobs.open_watch(job.id)
            assert first_output(watch) == b"started\n"
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED  # noqa: PT017
            continue
        with refused(grpc.StatusCode.UNAUTHENTICATED, ENDED):
            list(watch)
        return
    pytest.fail("no watch could be opened in time")


def start_with_kept_token(start: Start, tokens: Tokens) -> RunningServer:
    tokens.add("kept")
    return start()


def test_moving_the_expiry_keeps_the_stream(start: Start, call: Call, tokens: Tokens) -> None:
    token = tokens.add("airflow", time.time() + 3600)
    server = start()
    stream = call(server, token).client.open_stream()
    stream.send("true")
    next(stream)
    replace(tokens.path, tokens.path.read_text().partition(" expires=")[0] + "\n")
    server.reload()
    stream.send("echo on")
    assert next(stream).out == "on\n"
    replace(tokens.path, tokens.path.read_text().rstrip() + " expires=2020-01-01T00:00:00Z\n")
    server.reload()
    with refused(grpc.StatusCode.UNAUTHENTICATED, ENDED):
        next(stream)
    stream.half_close()


def test_a_token_that_changes_hands_ends_what_was_open(start: Start, call: Call, tokens: Tokens) -> None:
    token = tokens.add("airflow")
    server = start()
    caller = call(server, token)
    stream = caller.client.open_stream()
    stream.send("true")
    next(stream)
    replace(tokens.path, tokens.path.read_text().replace("airflow = ", "backup = "))
    server.reload()
    with refused(grpc.StatusCode.UNAUTHENTICATED, ENDED):
        next(stream)
    stream.half_close()
    caller.client.ping()
    wait_until(lambda: "identity=backup" in server.process.log, "the new identity in the log", DEADLINE)


def test_reloads_during_a_hundred_streams_drop_none(start: Start, call: Call, tokens: Tokens) -> None:
    """While they are at work, while tokens come and go, and while broken files are tried."""
    kept = tokens.add("airflow")
    server = start()
    callers = [call(server, kept) for _ in range(5)]
    job = callers[0].jobs.create(spec("echo started; sleep 1000"))
    watches = [caller.jobs.open_watch(job.id) for caller in callers for _ in range(10)]
    assert {first_output(watch) for watch in watches} == {b"started\n"}
    streams = [callers[number % 5].client.open_stream() for number in range(50)]
    for reload in range(4):
        for number, stream in enumerate(streams):
            stream.send(f"echo {number}-{reload}")
        tokens.add(f"another-{reload}")
        server.reload()
        good = tokens.path.read_text()
        replace(tokens.path, good[:-3])
        server.reload_fails()
        replace(tokens.path, good)
        server.reload()
        for number, stream in enumerate(streams):
            assert next(stream).out == f"{number}-{reload}\n"
    for stream in streams:
        stream.half_close()
        assert list(stream) == []
        assert stream.call.code() is grpc.StatusCode.OK
    callers[0].jobs.cancel(job.id, kill=True)
    for watch in watches:
        assert list(watch)[-1].job.end_time.seconds
        assert watch.code() is grpc.StatusCode.OK


def test_a_kept_token_is_good_at_every_moment_of_a_rotation(start: Start, call: Call, tokens: Tokens) -> None:
    """The file is replaced again and again; none of the calls meanwhile is refused."""
    kept = tokens.add("airflow")
    server = start()
    caller = call(server, kept)
    stop, failures = threading.Event(), []

    def ping() -> None:
        while not stop.is_set():
            try:
                caller.client.ping()
                list(caller.client.stream([command("true")]))
            except grpc.RpcError as error:
                failures.append(error)

    pinging = threading.Thread(target=ping)
    pinging.start()
    try:
        for _ in range(10):
            rotated = tokens.add("rotated")
            server.reload()
            call(server, rotated).client.ping()
            tokens.revoke(-1)
            server.reload()
            with refused(grpc.StatusCode.UNAUTHENTICATED, INVALID):
                call(server, rotated).client.ping()
    finally:
        stop.set()
        pinging.join()
    assert failures == []


def test_thousands_of_tokens(start: Start, call: Call, tokens: Tokens) -> None:
    first = tokens.add("first")
    lines = [f"identity-{number} = sha256:{number:064x} id=n{number}" for number in range(20_000)]
    replace(tokens.path, tokens.path.read_text() + "\n".join(lines) + "\n")
    last = tokens.add("last")
    server = start()
    for token in (first, last):
        call(server, token).client.ping()
    with refused(grpc.StatusCode.UNAUTHENTICATED, INVALID):
        call(server, "wrong").client.ping()
    stream = call(server, last).client.open_stream()
    stream.send("true")
    next(stream)
    replace(tokens.path, tokens.path.read_text().partition("\n")[2].partition("\n")[2])  # without the first
    server.reload()
    with refused(grpc.StatusCode.UNAUTHENTICATED, INVALID):
        call(server, first).client.ping()
    stream.send("echo on")
    assert next(stream).out == "on\n"
    stream.half_close()


def test_policy_and_administrators_follow(start: Start, call: Call, tokens: Tokens) -> None:
    owner, other = tokens.add("owner"), tokens.add("other")
    server = start()
    job = call(server, owner).jobs.create(spec("sleep 1000"))
    watcher = call(server, other)
    with refused(grpc.StatusCode.NOT_FOUND):
        watcher.jobs.get(job.id)
    text = server.config.read_text()
    server.write(f"{text}[denylist]\nno_true = ^true$\n[jobs]\nadmins = other\n")
    server.reload()
    assert watcher.jobs.get(job.id).id == job.id
    with refused(grpc.StatusCode.PERMISSION_DENIED):
        watcher.client.run("true")
    server.write(text)
    server.reload()
    assert watcher.client.run("true").rc == 0
    with refused(grpc.StatusCode.NOT_FOUND):
        watcher.jobs.cancel(job.id)


def test_who_is_no_administrator_any_more_watches_no_longer(
    start: Start, call: Call, tokens: Tokens, tmp_path: Path
) -> None:
    owner, other = tokens.add("owner"), tokens.add("other")
    server = start()
    text = server.config.read_text()
    server.write(f"{text}[jobs]\nadmins = other\n")
    server.reload()
    go = fifo(tmp_path)
    job = call(server, owner).jobs.create(spec(f"echo before; read line <{go}; echo $line"))
    watches = [call(server, token).jobs.open_watch(job.id) for token in (other, owner)]
    assert [first_output(watch) for watch in watches] == [b"before\n", b"before\n"]
    server.write(text)
    server.reload()
    go.write_text("after\n")
    with refused(grpc.StatusCode.NOT_FOUND):
        list(watches[0])
    assert first_output(watches[1]) == b"after\n"


def test_killing_the_server_while_tokens_are_rotated(start: Start, call: Call, tokens: Tokens) -> None:
    """``kill -9`` in the midst of it: the next start knows exactly the tokens that are in the file."""
    kept = tokens.add("kept")
    revoked: list[str] = []
    rotated = tokens.add("rotated")
    for round_number in range(4):
        server = start()
        stop = threading.Event()

        def rotate(stop: threading.Event = stop) -> None:
            nonlocal rotated
            while not stop.is_set():
                new = tokens.add("rotated")
                tokens.revoke(1)
                revoked.append(rotated)
                rotated = new

        rotating = threading.Thread(target=rotate)
        rotating.start()
        try:
            caller = call(server, kept)
            for _ in range(round_number + 1):
                server.reload()
                caller.client.ping()
            server.process.kill()
        finally:
            stop.set()
            rotating.join()
    server = start()
    for token in (kept, rotated):
        call(server, token).client.ping()
    for token in revoked[-20:]:
        with refused(grpc.StatusCode.UNAUTHENTICATED, INVALID):
            call(server, token).client.ping()
