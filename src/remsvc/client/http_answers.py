"""What it means that no gRPC server has answered, but something that speaks HTTP: a proxy, a web server.

One table for both transports: what a call fails with, and a sentence for whoever has to mend it. The codes
are gRPC's own (doc/http-grpc-status-mapping.md), except where those leave open that the call was refused.
"""

from __future__ import annotations

from remsvc.status import StatusCode

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
    """What a call fails with that was answered so, and its details.

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
