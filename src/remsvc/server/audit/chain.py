"""The chain that an audit log's lines form, and how it is checked. Standard library only.

Each line is a JSON object that holds the line's number (``seq``) and the SHA-256 of the line before it
(``prev``). So whoever changes, removes, inserts or moves a line breaks the chain behind it. A chain cannot
show that its end was cut off. For that there is the head, a small file beside the log: it names the last
line, with a code that nobody can make without the key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START = "0" * 64
"""What stands for the line before the first one."""

HEAD_BYTES = 256
HEAD_SUFFIX = ".head"
KEY_SUFFIX = ".key"
_PURPOSE = b"remsvc audit head 1\n"


def line_hash(line: bytes) -> str:
    """SHA-256 of a line without its line feed, in hexadecimal."""
    return hashlib.sha256(line).hexdigest()


def encode_line(record: Mapping[str, object]) -> bytes:
    """One line with its line feed: ASCII, and no control character, whatever the record holds."""
    text = json.dumps(record, separators=(",", ":")).replace("\x7f", "\\u007f")
    return text.encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True)
class ChainedLine:
    """A line, as the one after it refers to it: by its number and its hash."""

    seq: int = 0
    hash: str = START

    def leads_to(self, record: Mapping[str, Any]) -> bool:
        """Whether ``record`` is the next line of the chain."""
        return (record["seq"], record["prev"]) == (self.seq + 1, self.hash)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The record of a line without its line feed, or None where it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("prev"), str):
        return None
    return record if type(record.get("seq")) is int and record["seq"] > 0 else None


class HeadError(Exception):
    """The head file is damaged, or was made by somebody without the key."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last line of a log.

    Attributes:
        line: its number and its hash.
        size: the file's size with it, in bytes.
    """

    line: ChainedLine
    size: int

    def encode(self, key: bytes) -> bytes:
        """As the head file holds it; always of the same length, so that one write replaces it."""
        content = {"seq": self.line.seq, "hash": self.line.hash, "size": self.size}
        text = json.dumps({**content, "mac": self._code(key)}, separators=(",", ":"))
        return text.encode("ascii").ljust(HEAD_BYTES - 1) + b"\n"

    @classmethod
    def decode(cls, data: bytes, key: bytes | None) -> Head:
        """What :meth:`encode` made. Without a key, it is not checked who made it.

        Raises:
            HeadError: it is damaged, or was not made with this key.
        """
        try:
            content = json.loads(data)
            head = cls(ChainedLine(int(content["seq"]), str(content["hash"])), int(content["size"]))
            code = str(content["mac"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise HeadError("it is damaged") from None
        if key is not None and not hmac.compare_digest(code.encode(), head._code(key).encode()):
            raise HeadError("it was not made with this log's key")
        return head

    def _code(self, key: bytes) -> str:
        text = f"{self.line.seq}\n{self.line.hash}\n{self.size}".encode()
        return hmac.new(key, _PURPOSE + text, hashlib.sha256).hexdigest()


def torn(fragment: bytes) -> dict[str, object]:
    """How a record tells of the bytes before it that are left of a write that was cut short."""
    return {"torn_bytes": len(fragment), "torn_sha256": hashlib.sha256(fragment).hexdigest()}


@dataclass
class Report:
    """What a check found.

    Attributes:
        first, last: numbers of the first and the last line; 0 where there is none.
        lines: how many there are.
        problems: what must not be so; empty for a log that nobody has changed.
        notes: what was not checked, and what looks odd but may be so.
        closed: whether the last line says that the file ends there.
    """

    first: int = 0
    last: int = 0
    lines: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    closed: bool = False


def verify(files: Sequence[Path], head: Head | None = None) -> Report:
    """Check the chain through ``files``, the oldest first, and that it holds the head's line.

    Raises:
        OSError: a file cannot be read.
    """
    return _Check(head).run(files)


class _Check:
    def __init__(self, head: Head | None) -> None:
        self._head = head
        self._at_head: str | None = None
        self._last: ChainedLine | None = None
        self._fragment: list[bytes] = []
        self._fragment_at = ""
        self.report = Report()

    def run(self, files: Sequence[Path]) -> Report:
        for path in files:
            for number, line in _lines(path):
                self._line(f"{path}:{number}", line)
            self._end_of_file(path)
        self._check_head()
        return self.report

    def _line(self, where: str, line: bytes) -> None:
        record = parse_line(line.removesuffix(b"\n")) if line.endswith(b"\n") else None
        if record is None:
            self._fragment_at = self._fragment_at or where
            self._fragment.append(line)
            return
        self._check_fragment(record)
        self._check_place(where, record)
        if problem := record.get("problem"):
            self.report.problems.append(f"{where}: the server found: {problem}")
        self._last = ChainedLine(record["seq"], line_hash(line[:-1]))
        if self._head is not None and self._last.seq == self._head.line.seq:
            self._at_head = self._last.hash
        report = self.report
        report.first = report.first or self._last.seq
        report.last = self._last.seq
        report.lines += 1
        report.closed = record.get("event") == "log" and record.get("action") == "closed"

    def _check_place(self, where: str, record: Mapping[str, Any]) -> None:
        if self._last is None:
            if not ChainedLine().leads_to(record) and record.get("file") != "new":
                self.report.problems.append(f"{where}: lines before it were removed: no file begins with it")
            elif record["seq"] > 1:
                self.report.notes.append(f"lines 1 to {record['seq'] - 1} are not in these files")
            return
        if self._last.leads_to(record):
            return
        expected, seq = self._last.seq + 1, record["seq"]
        if seq > expected:
            missing = f"line {expected} is" if seq == expected + 1 else f"lines {expected} to {seq - 1} are"
            self.report.problems.append(f"{where}: {missing} missing before it")
        elif seq < expected:
            self.report.problems.append(f"{where}: it has number {seq}, expected {expected}")
        else:
            self.report.problems.append(f"{where}: the line before it was changed (or this one put there)")

    def _check_fragment(self, record: Mapping[str, Any]) -> None:
        """Check bytes that are no line: they may be there only if the next line says so."""
        if not self._fragment:
            return
        fragment = b"".join(self._fragment)[:-1]
        said = {name: record.get(name) for name in ("torn_bytes", "torn_sha256")}
        follows = record.get("file") == "new" if self._last is None else self._last.leads_to(record)
        if said == torn(fragment) and follows:
            self.report.notes.append(
                f"{self._fragment_at}: {len(fragment)} bytes of a write cut short, as the next line says"
            )
        else:
            self.report.problems.append(f"{self._fragment_at}: not a line of an audit log")
        self._fragment, self._fragment_at = [], ""

    def _end_of_file(self, path: Path) -> None:
        if not self._fragment:
            return
        if b"\n" not in b"".join(self._fragment):
            self.report.notes.append(f"{path}: the last line is not written to its end")
        else:
            self.report.problems.append(f"{self._fragment_at}: not a line of an audit log")
        self.report.closed = False
        self._fragment, self._fragment_at = [], ""

    def _check_head(self) -> None:
        if self._head is None:
            return
        seq, report = self._head.line.seq, self.report
        if self._at_head is None and seq > report.last:
            missing = f"line {seq} is" if seq == report.last + 1 else f"lines {report.last + 1} to {seq} are"
            report.problems.append(f"the end was cut off: {missing} missing")
        elif self._at_head is None:
            report.problems.append(f"line {seq}, which the head names, is not there")
        elif self._at_head != self._head.line.hash:
            report.problems.append(f"line {seq}, or one before it, is not the one that the head names")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        yield from enumerate(file, 1)
