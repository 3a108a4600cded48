"""The error that ends a call with a status, with what the status says to people and to programs."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from remsvc.status import StatusCode

# Trailers have to fit into 8 KiB, all of them together: with more, gRPC's clients may see no status at all.
# The reason is in them twice, where there are details: as text in which each octet that is not plain takes
# three, and in a message whose octets take four thirds.
_LONGEST_REASON = 1000
_LONGEST_ENCODED = 2048
_LONGEST_OCTET, _LONGEST_CHARACTER = 3, 12


class RefusedError(Exception):
    """Raised to end a call with a status.

    The reason may repeat what the caller has sent. Of a long one only the beginning is told, because it has
    to fit into the trailers.

    Attributes:
        code: the status.
        details: ``google.rpc`` messages.
        rule: the rule of the policy that refused it, if one did.
    """

    def __init__(self, code: StatusCode, reason: str, *details: Any, rule: str = "") -> None:
        self.code = code
        self.details = details
        self.rule = rule
        super().__init__(_fitting(reason))

    @property
    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """What goes out with the status, for a program."""
        if not self.details:
            return ()
        status = status_pb2.Status(code=self.code, message=str(self))
        for detail in self.details:
            status.details.add().Pack(detail)
        return (("grpc-status-details-bin", status.SerializeToString()),)


def _fitting(reason: str) -> str:
    """As much of a reason as fits into the trailers."""
    if len(reason) * _LONGEST_CHARACTER <= _LONGEST_ENCODED:
        return reason
    room = _LONGEST_ENCODED
    for at, character in enumerate(reason):
        plain = " " <= character <= "~" and character != "%"
        room -= 1 if plain else _LONGEST_OCTET * len(character.encode("utf-8", "replace"))
        if room < 0 or at >= _LONGEST_REASON:
            return f"{reason[:at]}…"
    return reason


def exhausted(reason: str, retry_after: float, rule: str = "") -> RefusedError:
    """The refusal of what is too much now; ``retry_after``: seconds after which the caller may try again."""
    delay = Duration()
    delay.FromNanoseconds(round(retry_after * 1e9))
    retry = error_details_pb2.RetryInfo(retry_delay=delay)
    return RefusedError(StatusCode.RESOURCE_EXHAUSTED, reason, retry, rule=rule)
