"""What the headers of a request say, taken apart once."""

from __future__ import annotations

from typing import NamedTuple

from remsvc.http2.engine import Header

_COLON = 0x3A
_HEADER_OVERHEAD = 32  # RFC 9113, section 6.5.2


class RequestHead(NamedTuple):
    """The headers that mean something to the transport; what is missing is empty.

    Attributes:
        path: the method's name.
        verb: HTTP's method.
        content_type: the content type.
        timeout: gRPC's time limit, as it was sent.
        authorization: the values of all headers of that name.
        metadata_bytes: of all headers but HTTP/2's own, counted as HTTP/2 does.
    """

    path: bytes
    verb: bytes
    content_type: bytes
    timeout: bytes
    authorization: list[str]
    metadata_bytes: int


def read_head(headers: tuple[Header, ...]) -> RequestHead:
    """Of headers that the engine has found to be well-formed."""
    path = verb = content_type = timeout = b""
    authorization: list[str] = []
    size = 0
    for name, value in headers:
        if name[0] == _COLON:  # of HTTP/2 itself
            if name == b":path":
                path = value
            elif name == b":method":
                verb = value
            continue
        size += len(name) + len(value) + _HEADER_OVERHEAD
        if name == b"content-type":
            content_type = value
        elif name == b"grpc-timeout":
            timeout = value
        elif name == b"authorization":
            authorization.append(value.decode(errors="replace"))
    return RequestHead(path, verb, content_type, timeout, authorization, size)
