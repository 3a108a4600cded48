"""A call that ends with a status, and what that status says to a program."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from remsvc.server.authentication import CallContext


class RefusedError(Exception):
    """A call that ends with this status.

    Attributes:
        details: ``google.rpc`` messages.
        rule: the rule of the policy that refused it, if one did.
    """

    def __init__(self, code: grpc.StatusCode, reason: str, *details: Any, rule: str = "") -> None:
        self.code = code
        self.details = details
        self.rule = rule
        super().__init__(reason)


def exhausted(reason: str, retry_after: float, rule: str = "") -> RefusedError:
    """Too much at this time; ``retry_after``: seconds after which to try again."""
    delay = Duration()
    delay.FromNanoseconds(round(retry_after * 1e9))
    retry = error_details_pb2.RetryInfo(retry_delay=delay)
    return RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, retry, rule=rule)


async def abort(refused: RefusedError, context: CallContext) -> NoReturn:
    """End the call."""
    metadata: tuple[tuple[str, bytes], ...] = ()
    if refused.details:
        status = status_pb2.Status(code=code_pb2.Code.Value(refused.code.name), message=str(refused))
        for detail in refused.details:
            status.details.add().Pack(detail)
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(refused.code, str(refused), metadata)
    raise refused
