"""Counts the fields of a request on the wire, before anything is made of them.

A message of four megabytes may hold two million fields. To make objects of them, and to look at each, takes
seconds in which nobody else is served; to count as many as are permitted takes some milliseconds, whatever
comes behind them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remsvc.validation import ARGV, ENVIRONMENT, LABELS, STATES, Limit

_REPEATED: Mapping[str, Limit] = {
    "remsvc.jobs.v1.Argv.args": ARGV,
    "remsvc.jobs.v1.JobSpec.environment": ENVIRONMENT,
    "remsvc.jobs.v1.JobSpec.labels": LABELS,
    "remsvc.jobs.v1.ListJobsRequest.labels": LABELS,
    "remsvc.jobs.v1.ListJobsRequest.states": STATES,
}
# A message with fewer bytes is parsed as quickly as it would be counted.
_SMALL = 16 * 1024
# Of fields that are not repeated, of those that a later version has added, and of those in a map's entries.
_OTHERS = Limit("fields", 2 * ENVIRONMENT.most + 1000, "entries", "")
_VARINT, _FIXED64, _BYTES, _GROUP, _GROUP_END, _FIXED32 = range(6)


@dataclass(frozen=True, slots=True)
class _Shape:
    """The fields of a message that matter, by their numbers."""

    limits: Mapping[int, Limit]
    inner: Mapping[int, _Shape]


class FieldCount:
    """Counts the fields of messages of one type.

    Args:
        descriptor: of the type.
    """

    def __init__(self, descriptor: Any) -> None:
        self._shape = _shape(descriptor)

    def check(self, data: bytes) -> None:
        """Count the fields of a message, up to too many.

        Raises:
            InvalidCommandError: there are, of the field that it names.
        """
        if len(data) > _SMALL:
            _count(data, 0, len(data), self._shape, Counter())


def _shape(descriptor: Any) -> _Shape:
    inner = {
        field.number: field.message_type for field in descriptor.fields if field.message_type is not None
    }
    return _Shape(
        {
            field.number: _REPEATED[field.full_name]
            for field in descriptor.fields
            if field.full_name in _REPEATED
        },
        {number: _shape(kind) for number, kind in inner.items()},
    )


def _count(data: bytes, at: int, end: int, shape: _Shape, counts: Counter[str]) -> None:
    """Count what is between ``at`` and ``end``, up to what is no field: the parser will refuse that."""
    limits, inner = shape.limits, shape.inner
    while at < end:
        key, at = _varint(data, at, end)
        number, kind = key >> 3, key & 7
        limit = limits.get(number, _OTHERS)
        counts[limit.field] += 1
        if counts[limit.field] > limit.most:
            raise limit.error(counts[limit.field])
        if kind == _BYTES:
            size, at = _varint(data, at, end)
            if number in inner:
                _count(data, at, min(at + size, end), inner[number], counts)
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        elif kind not in (_GROUP, _GROUP_END):
            return


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at ``at``, and where the next thing begins: the end, where there is no whole number."""
    value = shift = 0
    while at < end and shift < 70:
        octet = data[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
    return 0, end
