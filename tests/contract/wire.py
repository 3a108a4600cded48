"""Wire version 1, written down by hand: messages and methods, independent of the generated stubs."""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
INT32, INT64, BYTES, STRING = _FIELD.TYPE_INT32, _FIELD.TYPE_INT64, _FIELD.TYPE_BYTES, _FIELD.TYPE_STRING

PACKAGE, SERVICE = "RS", "RS.RemSvc"

MESSAGES = {
    "PingMsg": [("seq", 1, INT32), ("time", 2, INT64), ("data", 3, BYTES)],
    "PongMsg": [("seq", 1, INT32), ("time", 2, INT64), ("data", 3, BYTES)],
    "StatusMsg": [("rc", 1, INT32), ("msg", 2, STRING)],
    "RemCmdMsg": [
        ("cmd", 1, STRING),
        ("cmdtyp", 2, INT32),
        ("cmdusr", 3, STRING),
        ("tid", 4, INT32),
        ("src", 5, STRING),
        ("hsh", 6, STRING),
    ],
    "RemResMsg": [
        ("rc", 1, INT32),
        ("tid", 2, INT32),
        ("out", 3, STRING),
        ("err", 4, STRING),
        ("hsh", 5, STRING),
    ],
    "Empty": [],
}


class Method(NamedTuple):
    request: str
    response: str
    streaming: bool  # both ways, or neither

    def path(self, name: str) -> str:
        return f"/{SERVICE}/{name}"


METHODS = {
    "Ping": Method("PingMsg", "PongMsg", streaming=False),
    "GetStatus": Method("Empty", "StatusMsg", streaming=False),
    "RemCmd": Method("RemCmdMsg", "RemResMsg", streaming=False),
    "RemCmdStrm": Method("RemCmdMsg", "RemResMsg", streaming=True),
}


def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """``RemSvc.proto`` as a descriptor."""
    file = descriptor_pb2.FileDescriptorProto(name="RemSvc.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            message.field.add(name=field, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
    service = file.service.add(name="RemSvc")
    for name, method in METHODS.items():
        service.method.add(
            name=name,
            input_type=f".{PACKAGE}.{method.request}",
            output_type=f".{PACKAGE}.{method.response}",
            client_streaming=method.streaming,
            server_streaming=method.streaming,
        )
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(file_descriptor())


def message(name: str) -> Any:
    """The class of the message ``name``."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def inside(number: int, body: bytes) -> bytes:
    """A field that holds bytes, as it travels."""
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))
