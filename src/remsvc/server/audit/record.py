"""Bounds the records of the audit log: what is too long is cut, and the record tells its length and hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from sys import getsizeof

# Bytes of a line for each field, as JSON has it: in sum less than 64 KiB.
_MOST = {"command": 24 * 1024, "environment": 8 * 1024, "jobs": 24 * 1024}
_MOST_OF_ANY = 4 * 1024
# Of JSON for one character, and the quotes and the comma around a text.
_LONGEST_CHARACTER, _AROUND = 12, 3


def bounded(record: Mapping[str, object]) -> dict[str, object]:
    """The record, with those of its values cut that are too long.

    ``NAME_length`` then says how long it was, in characters or entries, and ``NAME_sha256`` is the hash of
    all of it: of the UTF-8 of a text, or of the entries joined with line feeds.
    """
    cut: dict[str, object] = {}
    for name, value in record.items():
        most = _MOST.get(name, _MOST_OF_ANY)
        cut[name] = value
        if isinstance(value, str) and len(value) * _LONGEST_CHARACTER > most:
            kept = _beginning(value, most)
            if len(kept) < len(value):
                cut |= {name: kept, **whole(name, len(value), value)}
        elif isinstance(value, list) and _length(value) > most:
            cut |= {name: _first(value, most), **whole(name, len(value), "\n".join(map(str, value)))}
    return cut


def whole(name: str, length: int, text: str) -> dict[str, object]:
    """What a record tells of a value that was cut."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {f"{name}_length": length, f"{name}_sha256": digest}


def memory(record: Mapping[str, object]) -> int:
    """About how many bytes of memory a record takes while it waits to be written."""
    size = getsizeof(record) + sum(map(getsizeof, record.values()))
    return size + sum(
        getsizeof(entry) for value in record.values() if isinstance(value, list) for entry in value
    )


def _beginning(text: str, most: int) -> str:
    """The beginning of a text that takes at most ``most`` bytes in JSON."""
    kept = text[:most]
    while (size := len(json.dumps(kept)) - 2) > most:
        kept = kept[: min(len(kept) * most // size, len(kept) - 1)]
    return kept


def _first(entries: list[object], most: int) -> list[object]:
    """The first entries, of those that take at most ``most`` bytes in JSON together."""
    for number, entry in enumerate(entries):
        most -= _length([entry])
        if most < 0:
            return entries[:number]
    return entries


def _length(entries: list[object]) -> int:
    return sum(len(json.dumps(entry)) + _AROUND for entry in entries)
