"""What gRPC says of a call beside its messages: status code and metadata, for use without gRPC's library."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
"""A call's metadata: keys in lower case, and their values, which are bytes where a key ends with ``-bin``."""


class StatusCode(IntEnum):
    """How a call has ended. Errors show these names.

    https://grpc.github.io/grpc/core/md_doc_statuscodes.html
    """

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16
