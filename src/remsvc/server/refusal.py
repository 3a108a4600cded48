"""A call that ends with a status, and what that status says to a program."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from remsvc.status import Status

_LONGEST_REASON = 1000


class RefusedError(Exception):
    """A call that ends with this status. Of a long reason, which may repeat what the caller sent, the
    beginning is told: it has to fit into the trailers.

    Attributes:
        code: the status.
        details: ``google.rpc`` messages.
        rule: the rule of the policy that refused it, if one did.
    """

    def __init__(self, code: Status, reason: str, *details: Any, rule: str = "") -> None:
        self.code = code
        self.details = details
        self.rule = rule
        super().__init__(reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}…")

    @property
    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """What goes out with the status, for a program."""
        if not self.details:
            return ()
        status = status_pb2.Status(code=self.code, message=str(self))
        for detail in self.details:
            status.details.add().Pack(detail)
        return (("grpc-status-details-bin", status.SerializeToString()),)


def exhausted(reason: str, retry_after: float, rule: str = "") -> RefusedError:
    """Too much at this time; ``retry_after``: seconds after which to try again."""
    delay = Duration()
    delay.FromNanoseconds(round(retry_after * 1e9))
    retry = error_details_pb2.RetryInfo(retry_delay=delay)
    return RefusedError(Status.RESOURCE_EXHAUSTED, reason, retry, rule=rule)
