"""From the status that a call has ended with to our errors, with a hint at the cause.

Three things are read here: what a transport says when no connection could be made (:func:`no_connection`),
what an HTTP status means where a proxy or a web server has answered and no gRPC server
(:func:`http_answer`), and the details that our servers send beside a status (:func:`job_id_in`,
:func:`retry_after_in`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import DecodeError

from remsvc.client.deadline import CONNECT_TIMEOUT, Deadline
from remsvc.client.options import ConnectionOptions
from remsvc.client.transport import CallError
from remsvc.errors import AlreadyExistsError, ResourceExhaustedError, ServerError, server_error
from remsvc.printable import printable
from remsvc.status import Metadata, StatusCode

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

T = TypeVar("T")

_TRUST = "the server's certificate was not accepted: "

# What gRPC, in its newest and its oldest supported release, and Python's ssl say when no connection could
# be made, and what that means.
_HINTS: tuple[tuple[str, str], ...] = (
    (r"certificate has expired", _TRUST + "it has expired"),
    (r"certificate is not yet valid", _TRUST + "it is not valid yet (compare the clocks)"),
    (
        r"Hostname Verification|not in peer certificate|(Hostname|IP address) mismatch",
        _TRUST + "it was issued for another host name",
    ),
    (r"local issuer|self.signed", _TRUST + "its authority is not trusted (is it in the CA file given?)"),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        _TRUST
        + "it has expired, is not valid yet, or its authority is not trusted (is it in the CA file given?)",
    ),
    (r"WRONG_VERSION_NUMBER", "the server does not speak TLS on this port (connect without TLS?)"),
    (r"http1\.x", "the server is not a RemSvc server: it speaks HTTP/1"),
    (r"[Cc]onnection refused", "nothing listens on this port (is the server running?)"),
    (r"[Rr]esol|[Nn]ame or service|[Dd]omain name", "the host name is not known"),
    (r"timed out|[Tt]imeout", "the server cannot be reached, or does not speak gRPC"),
)
_CLOSED_PLAIN = "the server closed the connection at once (does it expect TLS?)"
_CLOSED_TLS = "the server broke the TLS handshake off (does it expect a client certificate of its authority?)"

UNREACHED = (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED)
"""How a ping ends where there is no connection, or no server that takes calls."""

# What the gRPC of a server, the newest and the oldest, says of a call that no handler has seen.
_GIVEN_UP = ("CANCELLED", "Cancelled", "")

_LONGEST_DETAILS = 2000

_CONNECTING = re.compile(
    r"^(failed to connect to all addresses|errors resolving|DNS resolution failed|empty address list)"
)
_PREAMBLE = re.compile(
    r"^failed to connect to all addresses; last error: (UNKNOWN: |UNAVAILABLE: |INTERNAL: )?"
)


def from_call(error: CallError, options: ConnectionOptions, *, timeout: float | None = None) -> ServerError:
    """The :class:`ServerError` for ``error``; ``timeout`` is the limit that the caller set, in seconds."""
    return from_status(
        error.code.name,
        error.details,
        options,
        sent=error.sent,
        timeout=timeout,
        trailers=error.trailers,
    )


def from_status(
    code: str,
    details: str,
    options: ConnectionOptions,
    *,
    sent: bool = True,
    timeout: float | None = None,
    trailers: Metadata = (),
) -> ServerError:
    """As :func:`from_call`, from a status code's name, its message, and what came beside them."""
    details = printable(details, limit=_LONGEST_DETAILS)
    if code == "UNAVAILABLE" and _CONNECTING.search(details):
        details = _explain(details, options.tls)
    elif code == "DEADLINE_EXCEEDED" and timeout is not None and re.search(r"^$|Deadline Exceeded", details):
        details = f"no answer within {timeout:g} s"
    elif code == "CANCELLED" and details in _GIVEN_UP:
        details = "the server gave the call up: it shuts down, or has more of them than it can take"
    elif code == "ALREADY_EXISTS":
        return AlreadyExistsError(code, details, options.target, sent=sent, job_id=job_id_in(trailers))
    elif code == "RESOURCE_EXHAUSTED":
        retry_after = retry_after_in(trailers)
        return ResourceExhaustedError(code, details, options.target, sent=sent, retry_after=retry_after)
    return server_error(code, details, options.target, sent=sent)


def no_connection(error: CallError, options: ConnectionOptions, deadline: Deadline) -> ServerError:
    """The error for a failed attempt to connect: no command was sent."""
    failure = from_status(error.code.name, error.details, options, sent=False)
    if failure.code == "CANCELLED":
        return server_error("UNAVAILABLE", failure.details, options.target, sent=False)
    if failure.code != "DEADLINE_EXCEEDED":
        return failure
    if deadline.remaining() == 0:
        return server_error(
            failure.code, f"no connection within {deadline.timeout:g} s", options.target, sent=False
        )
    details = f"the server does not answer: no reply to a ping within {CONNECT_TIMEOUT:g} s"
    return server_error("UNAVAILABLE", details, options.target, sent=False)


def _explain(details: str, tls: bool) -> str:
    reason = _PREAMBLE.sub("", details)
    if "Unwrap failed" in reason:
        hint = _CLOSED_TLS  # gRPC's word for an alert of TLS that comes after its own part of the handshake
    elif "Socket closed" in reason or "onnection reset" in reason or "Broken pipe" in reason:
        hint = _CLOSED_TLS if tls else _CLOSED_PLAIN
    else:
        hint = next((text for pattern, text in _HINTS if re.search(pattern, reason)), "no connection")
    return f"{hint} [{reason}]"


# What HTTP says where no gRPC server has answered

# The codes are gRPC's own (doc/http-grpc-status-mapping.md), except where those leave open that the call
# was refused. The sentence is for the person who has to mend it.
_MEANINGS: dict[str, tuple[StatusCode, str]] = {
    "400": (StatusCode.INTERNAL, "it does not understand the call: is gRPC (HTTP/2) passed on as such?"),
    "401": (StatusCode.UNAUTHENTICATED, "it asks for credentials of its own"),
    "403": (StatusCode.PERMISSION_DENIED, "it does not let the call through"),
    "404": (
        StatusCode.UNIMPLEMENTED,
        "it does not know the call's path: are all services of RemSvc passed on?",
    ),
    "411": (StatusCode.INTERNAL, "it does not pass streams on: is gRPC (HTTP/2) passed on as such?"),
    "413": (
        StatusCode.RESOURCE_EXHAUSTED,
        "the request is larger than it permits (nginx: client_max_body_size)",
    ),
    "414": (StatusCode.RESOURCE_EXHAUSTED, "the call's headers are larger than it permits"),
    "429": (StatusCode.UNAVAILABLE, "it takes no more calls for now"),
    "431": (StatusCode.RESOURCE_EXHAUSTED, "the call's headers are larger than it permits"),
    "502": (StatusCode.UNAVAILABLE, "the server behind it cannot be reached, or is not spoken to as gRPC"),
    "503": (StatusCode.UNAVAILABLE, "the server behind it is not available"),
    "504": (
        StatusCode.UNAVAILABLE,
        "the server behind it does not answer in time (nginx: grpc_read_timeout)",
    ),
}
_WHOSE = "no gRPC server answered, but a proxy or web server"


def http_answer(status: str, content_type: str = "") -> tuple[StatusCode, str]:
    """The status of a call that got such an answer, and the status's message.

    Args:
        status: of HTTP, as it came; empty where it is not known.
        content_type: of the answer; empty where it has none, or it is not known.
    """
    if not status:
        return StatusCode.UNKNOWN, _WHOSE
    if status == "200":
        return StatusCode.UNKNOWN, f"{_WHOSE}, with HTTP status 200 and content-type {content_type!r}"
    if status.startswith("3") and status.isdigit():
        return StatusCode.UNKNOWN, f"{_WHOSE}, with HTTP status {status}: it leads somewhere else"
    code, sentence = _MEANINGS.get(status, (StatusCode.UNKNOWN, ""))
    shown = status if status.isdigit() else repr(status)
    return code, f"{_WHOSE}, with HTTP status {shown}" + (f": {sentence}" if sentence else "")


# The details that come beside a status

_DETAILS_KEY = "grpc-status-details-bin"

_LONGEST_RETRY = 300.0
"""Seconds. Whatever a server says, nobody waits longer before the next attempt."""

# Of google.rpc.Status and its details, the fields that are read: the package that has them all is not in
# the base install. {message: {field: (number, type, or the name of a message; a list: repeated)}}
_MESSAGES: dict[str, dict[str, tuple[int, Any]]] = {
    "Status": {"details": (3, ["Any"])},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "ErrorInfo": {"reason": (1, "string"), "domain": (2, "string"), "metadata": (3, ["Entry"])},
    "Entry": {"key": (1, "string"), "value": (2, "string")},
    "RetryInfo": {"retry_delay": (1, "Duration")},
    "Duration": {"seconds": (1, "int64"), "nanos": (2, "int64")},
}


def job_id_in(trailers: Metadata) -> str | None:
    """The job that has the request id already; None where the server does not say."""

    def read(info: Any) -> str | None:
        return next((entry.value for entry in info.metadata if entry.key == "job"), None)

    return _last_detail("ErrorInfo", trailers, read)


def retry_after_in(trailers: Metadata) -> float | None:
    """The seconds, 0 to 300, after which the server suggests to try again; None where it does not say."""

    def read(info: Any) -> float | None:
        seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
        return min(max(seconds, 0.0), _LONGEST_RETRY)

    return _last_detail("RetryInfo", trailers, read)


def _last_detail(kind: str, trailers: Metadata, read: Callable[[Any], T | None]) -> T | None:
    """What the last detail of one kind says. From the first that cannot be read on, details are ignored."""
    found = None
    for key, value in trailers:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                for detail in _message_type("Status").FromString(value).details:
                    if detail.type_url.rpartition("/")[2] == f"google.rpc.{kind}":
                        found = read(_message_type(kind).FromString(detail.value))
            except (DecodeError, UnicodeDecodeError):
                break
    return found


@cache
def _message_type(name: str) -> Any:
    from google.protobuf import message_factory  # slow to load, rarely needed

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"error_details.{name}"))


@cache
def _pool() -> DescriptorPool:
    from google.protobuf import descriptor_pb2, descriptor_pool  # slow to load, rarely needed

    file = descriptor_pb2.FileDescriptorProto(
        name="error_details.proto", package="error_details", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            repeated = isinstance(kind, list)
            kind = kind[0] if repeated else kind
            entry = message.field.add(name=field, number=number)
            entry.label = entry.LABEL_REPEATED if repeated else entry.LABEL_OPTIONAL
            if kind in _MESSAGES:
                entry.type = entry.TYPE_MESSAGE
                entry.type_name = f".error_details.{kind}"
            else:
                entry.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
