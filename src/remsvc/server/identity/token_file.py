"""Reads and changes the file of hashed tokens, which has one credential in each line.

::

    airflow-prod = sha256:HEX id=ab12cd expires=2027-01-01T00:00:00Z

``id`` and ``expires`` may be left out. An identity may have several lines. ``;`` and ``#`` begin comments.
No message shows the value in a line, because somebody may have written a token into it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from remsvc.errors import RemSvcError
from remsvc.server.identity.tokens import Credential, digest_of
from remsvc.server.settings.files import UntrustedFileError, read_trusted_file

_TITLE = "; Tokens by their hashes: see 'remsvc token --help'\n"
_SCHEME = "sha256:"
_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_COMMENT = re.compile(r"(?:^|\s)[;#].*$")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_LONGEST_IDENTITY = 256
_NEW = ".new"
RESERVED_IDENTITY = "anonymous"


class TokenFileError(RemSvcError):
    """The file cannot be used or changed; the text says why."""


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A line of the file, as written. ``credential`` is None for comments and blank lines."""

    text: str
    credential: Credential | None = None


@dataclass(frozen=True, slots=True)
class TokenFile:
    """What a file says.

    Attributes:
        lines: all of them, comments included.
        problems: line numbers, each with what is wrong there. A file with any must not be used.
        readable_by_all: whether everybody may read it.
    """

    lines: Sequence[TokenLine]
    problems: Sequence[tuple[int, str]]
    readable_by_all: bool = False

    @property
    def credentials(self) -> list[Credential]:
        """In the order of the file."""
        return [line.credential for line in self.lines if line.credential is not None]


def parse_hash(text: str) -> bytes | None:
    """The digest in ``sha256:HEX``; None where ``text`` is not of that form."""
    match = _HASH.fullmatch(text)
    return bytes.fromhex(match[1]) if match else None


def is_hash(text: str) -> bool:
    """Whether ``text`` means to be a hash, well formed or not."""
    return text.startswith(_SCHEME)


def identity_problem(identity: str) -> str | None:
    """What is wrong with an identity's name, or None."""
    if not identity or len(identity) > _LONGEST_IDENTITY:
        return f"expected an identity of 1 to {_LONGEST_IDENTITY} characters"
    if not identity.isascii() or not identity.isprintable() or re.search(r"[\s=,;#\"]", identity):
        return 'expected an identity of printable ASCII characters without spaces and = , ; # "'
    if identity == RESERVED_IDENTITY:
        return f"expected another identity: {RESERVED_IDENTITY} is who nobody knows"
    return None


def format_time(seconds: float) -> str:
    """Unix time as the file has it."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> float | None:
    """Unix time of RFC 3339 text with a time zone; None where it is none."""
    if not _TIME.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None


def read_token_file(path: Path) -> TokenFile:
    """Read and check a file.

    Raises:
        UntrustedFileError: it cannot be read, or others could have written it.
    """
    file = read_trusted_file(path)
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return TokenFile((), [(0, f"expected UTF-8 text: byte {error.start} is not")])
    lines, problems = _parse(text)
    return TokenFile(lines, problems, file.readable_by_all)


def _parse(text: str) -> tuple[list[TokenLine], list[tuple[int, str]]]:
    problems: list[tuple[int, str]] = []
    if not text:
        problems.append((0, "expected at least a comment: an empty file may be one that is being written"))
    elif not text.endswith("\n"):
        # A line that is cut before its expires= would be valid for ever.
        problems.append(
            (text.count("\n") + 1, "expected a line feed at the end: the file may be half written")
        )
    lines: list[TokenLine] = []
    ids: dict[str, int] = {}
    digests: dict[bytes, int] = {}
    for number, raw in enumerate(text.split("\n")[:-1] if text.endswith("\n") else text.split("\n"), 1):
        raw = raw.removesuffix("\r")
        content = _COMMENT.sub("", raw).strip()
        if not raw.replace("\t", " ").isprintable():
            problems.append((number, "expected no control characters (value not shown)"))
            continue
        if not content:
            lines.append(TokenLine(raw))
            continue
        parsed = _parse_line(content)
        if isinstance(parsed, str):
            problems.append((number, parsed))
            continue
        for what, first in (("token", digests.get(parsed.digest)), ("id", ids.get(parsed.id))):
            if first is not None:
                problems.append((number, f"the same {what} as in line {first}"))
        ids.setdefault(parsed.id, number)
        digests.setdefault(parsed.digest, number)
        lines.append(TokenLine(raw, parsed))
    return lines, problems


def _parse_line(content: str) -> Credential | str:
    """The credential, or what is wrong."""
    identity, equals, value = content.partition("=")
    words = value.split()
    if not equals or not words:
        return "expected identity = sha256:HEX [id=ID] [expires=TIME] (value not shown)"
    if problem := identity_problem(identity.strip()):
        return problem
    digest = parse_hash(words[0])
    if digest is None:
        return "expected sha256: and 64 hex digits: this file holds hashes only (value not shown)"
    values: dict[str, str] = {}
    for word in words[1:]:
        key, _, text = word.partition("=")
        if key not in ("id", "expires") or key in values:
            return "expected at most id=ID and expires=TIME after the hash, once each (value not shown)"
        values[key] = text
    if "id" in values and not _ID.fullmatch(values["id"]):
        return "expected an id of 1 to 64 letters, digits, '_', '.' and '-'"
    expires = None
    if "expires" in values:
        expires = parse_time(values["expires"])
        if expires is None:
            return "expected expires=YYYY-MM-DDTHH:MM:SSZ, a time with its zone"
    return Credential(identity.strip(), digest, values.get("id") or _made_id(digest), expires)


def _made_id(digest: bytes) -> str:
    """An id for a line that has none: from a hash of the hash, so that no log shows any of the stored one."""
    return f"h-{hashlib.sha256(digest).hexdigest()[:10]}"


def add_token(path: Path, identity: str, expires: float | None) -> tuple[str, Credential]:
    """Make a token and write its hash; the file is made if it does not exist.

    Args:
        expires: Unix time from which it is refused.

    Returns:
        The token, which nothing keeps, and its credential.

    Raises:
        TokenFileError: the identity cannot be used, or the file not read, not trusted or not written.
    """
    if problem := identity_problem(identity):
        raise TokenFileError(f"{identity!r}: {problem}")
    with _changing(path) as lines:
        taken = {line.credential.id for line in lines if line.credential}
        token_id = next(name for name in iter(lambda: secrets.token_hex(4), "") if name not in taken)
        token = secrets.token_urlsafe(32)
        credential = Credential(identity, digest_of(token), token_id, expires)
        text = f"{identity} = {_SCHEME}{credential.digest.hex()} id={token_id}"
        if expires is not None:
            text += f" expires={format_time(expires)}"
        lines.append(TokenLine(text, credential))
    return token, credential


def revoke_token(path: Path, token_id: str) -> Credential:
    """Take the token with this id out of the file.

    Raises:
        TokenFileError: there is none, or the file cannot be read, trusted or written.
    """
    with _changing(path, create=False) as lines:
        for line in lines:
            if line.credential and line.credential.id == token_id:
                lines.remove(line)
                return line.credential
        raise TokenFileError(f"{path}: there is no token with the id {token_id!r}")


def list_tokens(path: Path) -> list[Credential]:
    """The file's credentials.

    Raises:
        TokenFileError: the file cannot be read or trusted, or has mistakes.
    """
    return _usable(path).credentials


def _usable(path: Path) -> TokenFile:
    try:
        file = read_token_file(path)
    except UntrustedFileError as error:
        raise TokenFileError(str(error)) from error
    if file.problems:
        raise TokenFileError("; ".join(f"{path}:{line}: {text}" for line, text in file.problems))
    return file


@contextlib.contextmanager
def _changing(path: Path, create: bool = True) -> Iterator[list[TokenLine]]:
    """The file's lines, to be changed within the block.

    Then they replace the file in one step, so that nobody ever reads half of them.
    """
    path = Path(os.path.realpath(path))
    try:
        with _locked(path, create):
            status = path.stat()
            lines = list(_usable(path).lines) if status.st_size else [TokenLine(_TITLE.rstrip("\n"))]
            yield lines
            _replace(path, "".join(f"{line.text}\n" for line in lines), status)
    except OSError as error:
        raise TokenFileError(f"{path}: cannot be changed: {error.strerror}") from error


@contextlib.contextmanager
def _locked(path: Path, create: bool) -> Iterator[None]:
    """No other ``remsvc token`` changes the file meanwhile."""
    while True:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        try:
            if sys.platform == "win32":
                os.close(descriptor)  # an open file could not be replaced
                descriptor = -1
            else:
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not os.path.samestat(os.fstat(descriptor), path.stat()):
                    continue  # replaced while we waited
            yield
            return
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _replace(path: Path, text: str, status: os.stat_result) -> None:
    for left in path.parent.glob(f".{path.name}.*{_NEW}"):
        left.unlink(missing_ok=True)  # by a process that was killed; the lock keeps others from writing now
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_NEW, dir=path.parent)
    new = Path(name)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor
            if sys.platform != "win32":
                # An unprivileged server still has to read what root changes.
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, 0o600 | status.st_mode & 0o040)
            file.write(text.encode())
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if sys.platform != "win32":
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
