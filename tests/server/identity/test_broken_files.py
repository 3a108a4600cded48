"""A new state that cannot be used leaves the old one in force, whole, and is said loudly."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from remsvc.server.identity.tokens import digest_of
from tests.contract.certificates import Authority
from tests.contract.client import refused
from tests.contract.waiting import wait_until

from .conftest import DEADLINE, Call, Start, Tokens, posix_only, replace, trusting

pytestmark = [posix_only, pytest.mark.timeout(300)]

NEW = f"new = sha256:{digest_of('new').hex()} id=new\n"


def half_written(path: Path) -> None:
    replace(path, path.read_text() + NEW[:-5])


def unlinked(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def writable_by_all(path: Path) -> None:
    replace(path, path.read_text() + NEW)
    path.chmod(0o666)


def in_an_open_directory(path: Path) -> None:
    drop = path.parent / "drop"
    drop.mkdir()
    drop.chmod(0o777)
    replace(drop / "tokens", NEW)
    path.unlink()
    path.symlink_to("drop/tokens")


def of_another_user(path: Path) -> None:
    replace(path, NEW)
    os.chown(path, 65534, 65534)


def by_another_users_link(path: Path) -> None:
    replace(path.parent / "target", NEW)
    path.unlink()
    path.symlink_to("target")
    os.lchown(path, 65534, 65534)


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "emptied": (lambda path: replace(path, ""), "empty file"),
    "half written": (half_written, "half written"),
    "binary": (lambda path: replace(path, os.urandom(32) + b"\xff\n"), "UTF-8"),
    "with NUL": (lambda path: replace(path, NEW.replace("new ", "n\0ew ")), "control characters"),
    "with an escape": (lambda path: replace(path, NEW.replace("id=new", "id=\x1b[2J")), "control characters"),
    "a token in the clear": (lambda path: replace(path, "new = sicret\n"), "hashes only"),
    "one bad line": (lambda path: replace(path, NEW + "other =\n"), r"tokens:2: expected identity"),
    "unlinked": (unlinked, "No such file"),
    "a directory": (a_directory, "directory"),
    "a fifo": (a_fifo, "regular file"),
    "writable by all": (writable_by_all, "others cannot write to"),
    "in an open directory": (in_an_open_directory, "others cannot write to"),
    "of another user": (of_another_user, "root's or the server's user"),
    "by another user's link": (by_another_users_link, "link of another user"),
}
NEED_ROOT = ("of another user", "by another user's link")


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_token_file_keeps_the_old_tokens(
    start: Start, call: Call, tokens: Tokens, name: str
) -> None:
    if name in NEED_ROOT and os.geteuid() != 0:
        pytest.skip("needs root to change owners")
    break_it, said = BREAKS[name]
    token = tokens.add("airflow")
    server = start()
    stream = call(server, token).client.open_stream()
    stream.send("true")
    next(stream)
    good = tokens.path.read_text()
    break_it(tokens.path)
    server.reload_fails()
    errors = [line for line in server.process.log.splitlines() if " ERROR " in line]
    assert [line for line in errors if said in line and "token_file" in line], errors
    assert "sicret" not in server.process.log
    assert "\x1b" not in server.process.log
    call(server, token).client.ping()
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        call(server, "new").client.ping()
    stream.send("echo on")
    assert next(stream).out == "on\n"
    if tokens.path.is_dir():
        tokens.path.rmdir()
    replace(tokens.path, good + NEW)
    server.reload()
    call(server, "new").client.ping()
    stream.send("echo still")
    assert next(stream).out == "still\n"
    stream.half_close()
    assert list(stream) == []


def test_a_change_is_noticed_and_a_broken_state_is_said_once(
    start: Start, call: Call, tokens: Tokens
) -> None:
    token = tokens.add("airflow")
    server = start()
    good = tokens.path.read_text()
    server.change(lambda: replace(tokens.path, good[:-3]), "configuration NOT reloaded")
    call(server, token).client.ping()
    server.change(lambda: replace(tokens.path, good + NEW))
    call(server, "new").client.ping()
    assert server.process.log.count("configuration NOT reloaded") == 1


def test_written_in_place_in_two_steps(start: Start, call: Call, tokens: Tokens) -> None:
    """As an editor or a template engine may write: emptied first. Nobody is thrown out meanwhile."""
    token = tokens.add("airflow")
    server = start()
    stream = call(server, token).client.open_stream()
    stream.send("true")
    next(stream)
    good = tokens.path.read_text()
    with tokens.path.open("w") as file:
        server.reload_fails()  # even if asked at just this moment
        file.write(good[:40])
        file.flush()
        server.reload_fails()
        file.write(good[40:] + NEW)
    server.reload()
    call(server, "new").client.ping()
    stream.send("echo on")
    assert next(stream).out == "on\n"
    stream.half_close()


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("[denylist]\nx = (\n", "RE2"),
        ("[auth]\nother = token\n[auth]\nother = again\n", "given twice"),
        ("[serverr]\nport = 1\n", "unknown section"),
        ("no equals sign\n", "expected key = value"),
        ("[tls]\nenabled = true\ncert = /nowhere\nkey = /nowhere\n", "cannot be read"),
        ("[certificates]\na.example = x\n", "[tls] ca"),
        ("[server]\nauthentication = both\n", "mutual TLS"),
    ],
)
def test_a_broken_configuration_changes_nothing(
    start: Start, call: Call, tokens: Tokens, added: str, said: str
) -> None:
    """Not even the part of it that is valid."""
    token = tokens.add("airflow")
    server = start()
    old = server.config.read_text()
    tokens.path.write_text(tokens.path.read_text() + NEW)
    server.write(f"{old}[allowlist]\nnothing = ^$\n{added}")
    server.reload_fails()
    assert [line for line in server.process.log.splitlines() if " ERROR " in line and said in line]
    assert call(server, token).client.run("echo on").out == "on\n"
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        call(server, "new").client.ping()
    server.write(old)
    server.reload()
    call(server, "new").client.ping()


def test_a_reload_never_opens_the_server(start: Start, call: Call, tokens: Tokens) -> None:
    """Authentication cannot go while it runs; all tokens revoked, nobody may call."""
    token = tokens.add("airflow")
    server = start()
    old = server.config.read_text()
    server.write("[server]\nport = 0\n")
    server.reload_fails()
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        call(server).client.ping()
    call(server, token).client.ping()
    server.write(old)
    tokens.revoke(0)
    server.reload()
    for nobody in ("", token, "x"):
        with refused(grpc.StatusCode.UNAUTHENTICATED):
            call(server, nobody).client.ping()
    wait_until(lambda: "no token that is valid now" in server.process.log, "the warning", DEADLINE)


def test_what_is_safe_is_judged_by_where_the_server_listens(
    start: Start, call: Call, tokens: Tokens, authority: Authority
) -> None:
    """A new host counts at the next start only."""
    token = tokens.add("airflow")
    server = start()
    server.write(server.config.read_text().replace("port = 0", "port = 0\nhost = 0.0.0.0"))
    server.reload_fails()  # tokens in the clear: it could not start so
    server.write(server.config.read_text().replace("host = 0.0.0.0", "host = ::1\ncmd_timeout_ms = 999"))
    server.reload()
    for what in ("host, port", "cmd_timeout_ms"):
        wait_until(lambda what=what: f"{what}: a change takes effect" in server.process.log, what, DEADLINE)
    call(server, token).client.ping()


def test_tls_files_are_taken_in_together_or_not_at_all(
    start: Start, call: Call, authority: Authority, tmp_path: Path
) -> None:
    """Certificate and key are renewed one after the other; between, they do not fit."""
    other_directory = tmp_path / "other"
    other_directory.mkdir()
    other = Authority(other_directory, "other")
    first, second = authority.issue("server"), other.issue("server2")
    server = start(
        f"[server]\nport = 0\nhost = 127.0.0.1\n[tls]\nenabled = true\n"
        f"cert = {first.certificate}\nkey = {first.key}\n"
    )
    old = call(server, credentials=trusting(authority))
    stream = old.client.open_stream()
    stream.send("true")
    next(stream)
    replace(first.certificate, second.certificate.read_bytes())
    server.reload_fails()
    call(server, credentials=trusting(authority)).client.ping()
    replace(first.key, b"no key")
    server.reload_fails()
    call(server, credentials=trusting(authority)).client.ping()
    replace(first.key, second.key.read_bytes())
    server.reload()
    call(server, credentials=trusting(other)).client.ping()
    with refused(grpc.StatusCode.UNAVAILABLE):
        call(server, credentials=trusting(authority)).client.ping(timeout=30)
    stream.send("echo on")
    assert next(stream).out == "on\n"
    stream.half_close()
    text = server.config.read_text()
    server.write(text.partition("[tls]")[0])
    server.reload_fails()  # no TLS
    server.write(text + f"ca = {authority.certificate}\n")
    server.reload_fails()  # mutual TLS
    call(server, credentials=trusting(other)).client.ping()
