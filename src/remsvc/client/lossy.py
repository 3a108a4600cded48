"""Answers whose text is not valid UTF-8.

The C++ server sends a command's bytes as they are. Protobuf refuses such a message as a whole, exit
code included; here it is read with a twin of the message type whose text fields are bytes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.message import DecodeError

from remsvc.client.results import CommandResult
from remsvc.errors import ProtocolError
from remsvc_proto import RemSvc_pb2


def decode_result(answer: bytes) -> CommandResult:
    """A ``RemResMsg`` from the wire, whatever bytes its text has.

    Raises:
        ProtocolError: it is no such message.
    """
    try:
        message = RemSvc_pb2.RemResMsg.FromString(answer)
    except (DecodeError, UnicodeDecodeError):
        return _decode_lossy(answer)
    return CommandResult(message.rc, message.tid, message.out, message.err, message.hsh)


def _decode_lossy(answer: bytes) -> CommandResult:
    try:
        message = _twin_type().FromString(answer)
    except DecodeError as error:
        raise ProtocolError(f"the server's answer cannot be read: {error}") from error
    out, err, hsh = (
        text.decode("utf-8", errors="replace") for text in (message.out, message.err, message.hsh)
    )
    return CommandResult(message.rc, message.tid, out, err, hsh, lossy=True)


@cache
def _twin_type() -> Any:
    """``RemResMsg`` with bytes for strings: the same on the wire. A pool of its own, as its name is taken."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # slow to load, rarely used

    file = descriptor_pb2.FileDescriptorProto()
    RemSvc_pb2.DESCRIPTOR.CopyToProto(file)
    for message in file.message_type:
        for field in message.field:
            if field.type == field.TYPE_STRING:
                field.type = field.TYPE_BYTES
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("RS.RemResMsg"))
