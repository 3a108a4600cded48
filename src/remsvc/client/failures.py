"""From a call's status to our errors, with a hint where the transport only says that something failed."""

from __future__ import annotations

import re

from remsvc.client.deadline import CONNECT_TIMEOUT, Deadline
from remsvc.client.options import ConnectionOptions
from remsvc.client.transport import CallError
from remsvc.errors import ServerError, server_error
from remsvc.printable import printable
from remsvc.status import Status

_TRUST = "the server's certificate was not accepted: "

# What is said when no connection could be made, by gRPC's newest and oldest supported release and by
# Python's ssl, and what it means.
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

UNREACHED = (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED)
"""How a ping ends where there is no connection, or no server that takes calls."""

# What a server's gRPC says of a call that it has shown to no handler, newest and oldest.
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
    from remsvc.client.error_details import add_details  # slow to load, and rarely needed

    failure = from_status(error.code.name, error.details, options, sent=error.sent, timeout=timeout)
    add_details(failure, error.trailers)
    return failure


def from_status(
    code: str, details: str, options: ConnectionOptions, *, sent: bool = True, timeout: float | None = None
) -> ServerError:
    """As :func:`from_call`, from a status code's name and its message."""
    details = printable(details, limit=_LONGEST_DETAILS)
    if code == "UNAVAILABLE" and _CONNECTING.search(details):
        details = _explain(details, options.tls)
    elif code == "DEADLINE_EXCEEDED" and timeout is not None and re.search(r"^$|Deadline Exceeded", details):
        details = f"no answer within {timeout:g} s"
    elif code == "CANCELLED" and details in _GIVEN_UP:
        details = "the server gave the call up: it shuts down, or has more of them than it can take"
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
