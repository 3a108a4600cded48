"""Calls a server in several ways and prints, as JSON, how each call ended: ``statuses.py ADDRESS TOKEN``.

With nothing but grpcio, so that any version of it will do: messages are written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import grpc

_address, _token = sys.argv[1:]
_channel = grpc.insecure_channel(_address, [("grpc.max_receive_message_length", -1)])
_PATH = "/RS.RemSvc/"


def _size(number: int) -> bytes:
    octets = bytearray()
    while number > 127:
        octets.append(number & 127 | 128)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def _field(number: int, content: bytes) -> bytes:
    return _size(number << 3 | 2) + _size(len(content)) + content


def _command(text: str) -> bytes:
    return _field(1, text.encode())


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message; of numbers only where they end."""
    position = 0

    def number() -> int:
        nonlocal position
        found = shift = 0
        while True:
            octet = data[position]
            position += 1
            found |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                return found

    while position < len(data):
        key = number()
        size = number()
        if key & 7 == 2:
            yield key >> 3, data[position : position + size]
            position += size


def _out(answer: bytes) -> str:
    return b"".join(content for number, content in _fields(answer) if number == _OUT).decode()


def _ended(call: Any) -> tuple[int, str]:
    try:
        return 0, call()
    except grpc.RpcError as error:
        return error.code().value[0], error.details()


def _unary(method: str, request: bytes, token: str = _token, timeout: float = 30) -> tuple[int, str]:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    call = _channel.unary_unary(_PATH + method)
    return _ended(lambda: _out(call(request, metadata=metadata, timeout=timeout)))


def _stream(texts: list[str], token: str = _token) -> tuple[int, str]:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    call = _channel.stream_stream(_PATH + "RemCmdStrm")
    answers = call(map(_command, texts), metadata=metadata, timeout=30)
    return _ended(lambda: "".join(map(_out, answers)))


_OUT = 3
_seen = {
    "a command": _unary("RemCmd", _command("echo müsli")),
    "a large answer": _unary("RemCmd", _command("head -c 200000 /dev/zero | tr '\\0' x")),
    "a stream": _stream(["echo 1", "echo 2", "echo 3", "echo 4"]),
    "no token": _unary("Ping", b"", ""),
    "no token on a stream": _stream(["true"] * 10, ""),
    "a denied command": _unary("RemCmd", _command("rm x")),
    "an unknown method": _unary("Nothing", b""),
    "a message that is too large": _unary("Ping", _field(3, bytes(200_000))),
    "a deadline": _unary("RemCmd", _command("sleep 30"), timeout=0.5),
}
print(json.dumps({name: (code, text[:200], len(text)) for name, (code, text) in _seen.items()}))
