"""The file of hashed tokens."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remsvc.server.identity.token_file import (
    TokenFileError,
    add_token,
    format_time,
    list_tokens,
    parse_time,
    read_token_file,
    revoke_token,
)
from remsvc.server.identity.tokens import Credential, TokenTable, digest_of

HASH, OTHER_HASH = "ab" * 32, "cd" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def write(path: Path, content: str | bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_file_is_read(path: Path) -> None:
    write(
        path,
        f"# who calls\n\nairflow-prod = sha256:{HASH} id=ab12cd expires=2027-01-01T00:00:00Z ; until then\r\n"
        f"  airflow-prod=sha256:{OTHER_HASH.upper()}\n; spiffe\nspiffe://corp/x = sha256:{'0' * 64} id=3\n",
    )
    file = read_token_file(path)
    assert file.problems == []
    first, second, third = file.credentials
    assert first == Credential("airflow-prod", bytes.fromhex(HASH), "ab12cd", 1798761600.0)
    assert (second.identity, second.digest, second.expires) == (
        "airflow-prod",
        bytes.fromhex(OTHER_HASH),
        None,
    )
    assert second.id.startswith("h-")
    assert OTHER_HASH[:10] not in second.id
    assert third.identity == "spiffe://corp/x"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("airflow", "identity = sha256:HEX"),
        ("airflow =", "identity = sha256:HEX"),
        ("airflow = sicret", "64 hex digits"),
        (f"airflow = {HASH}", "64 hex digits"),
        (f"airflow = sha256:{HASH[:-1]}", "64 hex digits"),
        (f"airflow = sha256:{HASH}0", "64 hex digits"),
        (f"airflow = md5:{HASH}", "64 hex digits"),
        (f"airflow = sha256:{HASH} id=a id=b", "once each"),
        (f"airflow = sha256:{HASH} expire=2027-01-01T00:00:00Z", "once each"),
        (f"airflow = sha256:{HASH} id=", "an id of"),
        (f"airflow = sha256:{HASH} id=a/b", "an id of"),
        (f"airflow = sha256:{HASH} expires=", "a time with its zone"),
        (f"airflow = sha256:{HASH} expires=2027-01-01", "a time with its zone"),
        (f"airflow = sha256:{HASH} expires=2027-01-01T00:00:00", "a time with its zone"),
        (f"airflow = sha256:{HASH} expires=2027-13-01T00:00:00Z", "a time with its zone"),
        (f"airflow = sha256:{HASH} expires=never", "a time with its zone"),
        (f"= sha256:{HASH}", "an identity"),
        (f"anonymous = sha256:{HASH}", "another identity"),
        (f"a b = sha256:{HASH}", "without spaces"),
        (f"a,b = sha256:{HASH}", "without spaces"),
        (f"\u0430irflow = sha256:{HASH}", "ASCII"),  # a Cyrillic letter
        (f"air\0flow = sha256:{HASH}", "control characters"),
        (f"airflow = sha256:{HASH} id=a\x1b[2J", "control characters"),
        (f"airflow = sha256:{HASH} id=a\x85evil", "control characters"),
        (f"airflow = sha256:{HASH} id=a\u2028evil", "control characters"),
        (f"{'a' * 257} = sha256:{HASH}", "256 characters"),
        (f"b = sha256:{OTHER_HASH}", "the same token as in line 1"),
        (f"b = sha256:{HASH} id=first", "the same id as in line 1"),
    ],
)
def test_a_line_that_is_wrong_is_told_without_its_value(path: Path, line: str, expected: str) -> None:
    write(path, f"a = sha256:{OTHER_HASH} id=first\n{line}\n")
    file = read_token_file(path)
    assert [number for number, _ in file.problems] == [2]
    assert expected in file.problems[0][1]
    assert not [text for _, text in file.problems if "sicret" in text or HASH[:8] in text or "\x1b" in text]


@pytest.mark.parametrize(
    "cut", ["", "a = sha256:", f"a = sha256:{HASH}", f"a = sha256:{HASH} id=x expires=2"]
)
def test_a_file_that_is_cut_is_not_used(path: Path, cut: str) -> None:
    """Cut before its ``expires=``, a line would be valid, for ever."""
    write(path, cut)
    assert read_token_file(path).problems


def test_every_cut_of_a_file_is_found_or_leaves_whole_lines(path: Path) -> None:
    whole = f"a = sha256:{HASH} id=a expires=2027-01-01T00:00:00Z\nb = sha256:{OTHER_HASH} id=b\n"
    write(path, whole)
    valid = read_token_file(path).credentials
    for length in range(len(whole)):
        file = read_token_file(write(path, whole[:length]))
        assert file.problems or file.credentials == valid[:1]


def test_a_file_of_comments_alone_permits_nobody(path: Path) -> None:
    file = read_token_file(write(path, "; nobody yet\n"))
    assert (file.problems, file.credentials) == ([], [])


@given(st.binary(max_size=400) | st.text("ab=sha256: ;#\n\r\t\0idexpres", max_size=300).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_bytes_are_read_or_refused(path: Path, content: bytes) -> None:
    file = read_token_file(write(path, content))
    assert file.problems or all(len(credential.digest) == 32 for credential in file.credentials)


def test_adding_listing_revoking(path: Path) -> None:
    token, first = add_token(path, "airflow-prod", None)
    other_token, second = add_token(path, "airflow-prod", 1798761600.0)
    assert len(token) >= 43
    assert token != other_token
    assert path.stat().st_mode & 0o777 == 0o600 or os.name == "nt"
    assert token not in path.read_text()
    assert list_tokens(path) == [first, second]
    assert first.digest == hashlib.sha256(token.encode()).digest()
    assert revoke_token(path, first.id) == first
    assert list_tokens(path) == [second]
    with pytest.raises(TokenFileError, match="no token with the id"):
        revoke_token(path, first.id)
    revoke_token(path, second.id)
    assert read_token_file(path).problems == []  # none left, and still a file that can be used


def test_what_a_person_wrote_is_kept(path: Path) -> None:
    text = f"; mine\n\n  x=sha256:{HASH}   ; why\n"
    write(path, text)
    _, added = add_token(path, "y", None)
    assert path.read_text().startswith(text)
    revoke_token(path, added.id)
    assert path.read_text() == text


def test_a_file_with_mistakes_is_not_changed(path: Path) -> None:
    write(path, "x = a-token-in-the-clear\n")
    for change in (lambda: add_token(path, "y", None), lambda: revoke_token(path, "z")):
        with pytest.raises(TokenFileError, match="64 hex digits"):
            change()
    assert path.read_text() == "x = a-token-in-the-clear\n"
    with pytest.raises(TokenFileError, match="an identity"):
        add_token(path, "a\nb", None)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_link_stays_a_link(path: Path) -> None:
    link = path.parent / "link"
    link.symlink_to(path)
    add_token(link, "x", None)
    assert link.is_symlink()
    assert len(list_tokens(path)) == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to change owners")
def test_the_owner_is_kept(path: Path) -> None:
    """An unprivileged server must still be able to read what root has changed."""
    add_token(path, "x", None)
    path.chmod(0o640)
    os.chown(path, 0, 65534)
    add_token(path, "x", None)
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, 65534, 0o640)


def test_changes_at_the_same_time_all_count(path: Path) -> None:
    def add() -> None:
        for _ in range(5):
            add_token(path, "x", None)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list_tokens(path)) == 20
    assert list(path.parent.iterdir()) == [path]


ROTATE = """
import sys
from pathlib import Path
from remsvc.server.identity.token_file import add_token, list_tokens, revoke_token
path = Path(sys.argv[1])
print("started", flush=True)
while True:
    add_token(path, "rotated", None)
    for credential in list_tokens(path):
        if credential.identity == "rotated":
            revoke_token(path, credential.id)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_rotation_leaves_a_whole_file(path: Path) -> None:
    """``kill -9`` at any moment of changing the file: the others' tokens are all there."""
    kept = [add_token(path, f"kept-{number}", None)[1] for number in range(50)]
    for _ in range(15):
        with subprocess.Popen([sys.executable, "-c", ROTATE, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            before = path.stat().st_ino
            while path.stat().st_ino == before and process.poll() is None:
                pass
            process.kill()
        tokens = list_tokens(path)
        assert [credential for credential in tokens if credential.identity != "rotated"] == kept
    add_token(path, "after", None)  # not blocked by what a killed process has left
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02T00:00:00Z", 86400.0),
        ("1970-01-02T00:00Z", 86400.0),
        ("1970-01-02T01:00:00+01:00", 86400.0),
        ("1970-01-02", None),
        ("1970-01-02T00:00:00", None),
        ("1970-02-30T00:00:00Z", None),
        ("never", None),
        ("١٩٧٠-01-02T00:00:00Z", None),
    ],
)
def test_times(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds
    if seconds is not None:
        assert parse_time(format_time(seconds)) == seconds


def test_a_table_finds_each_of_thousands_of_tokens() -> None:
    tokens = [f"token-{number}" for number in range(20_000)]
    table = TokenTable(Credential(f"identity-{token}", digest_of(token)) for token in tokens)
    for token in tokens[::97]:
        found = table.find(digest_of(token))
        assert found is not None
        assert found.identity == f"identity-{token}"
    for wrong in ("", "token-", "token-20000", "\0", "identity-token-1", "x" * 100_000):
        assert table.find(digest_of(wrong)) is None


def test_looking_up_does_not_walk_through_the_tokens() -> None:
    """Counted, not timed: the work of a look-up is the same with one token and with thousands."""
    counts = []
    for size in (1, 5_000):
        table = TokenTable(Credential("x", digest_of(str(number))) for number in range(size))
        digest, calls = digest_of("wrong"), 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            table.find(digest)
        finally:
            sys.setprofile(None)
        counts.append(calls)
    assert counts[0] == counts[1]


def test_the_first_of_equal_tokens_counts() -> None:
    table = TokenTable([Credential("first", digest_of("t")), Credential("second", digest_of("t"))])
    found = table.find(digest_of("t"))
    assert found is not None
    assert found.identity == "first"
