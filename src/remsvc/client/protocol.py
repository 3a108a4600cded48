"""Wire version 1 for the clients: methods, messages, and whether a stream answers every command.

An answer whose text is not valid UTF-8 is read as well. The C++ server sends the bytes of a command as they
are, and protobuf would refuse such a message as a whole, the exit code with it. It is read with a copy of
its message type in which the text fields are bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from google.protobuf.message import DecodeError

from remsvc.client.options import GRPC, HTTP2
from remsvc.client.results import CommandResult, Pong, Status
from remsvc.command import Command, crc32hex
from remsvc.errors import InvalidCommandError, MissingResultsError, ProtocolError
from remsvc.status import Metadata
from remsvc_proto import RemSvc_pb2

PING = "/RS.RemSvc/Ping"
GET_STATUS = "/RS.RemSvc/GetStatus"
RUN = "/RS.RemSvc/RemCmd"
RUN_STREAM = "/RS.RemSvc/RemCmdStrm"

_TRANSPORT = "remsvc-transport"
_TREES = "remsvc-process-trees"

EMPTY = RemSvc_pb2.Empty().SerializeToString()


def encode_ping(seq: int = 1, data: bytes = b"") -> bytes:
    """A ``PingMsg`` with the time of day in milliseconds."""
    return RemSvc_pb2.PingMsg(seq=seq, time=time.time_ns() // 1_000_000, data=data).SerializeToString()


def decode_pong(answer: bytes, round_trip: float) -> Pong:
    """A ``PongMsg``. Raises :class:`ProtocolError`."""
    try:
        message = RemSvc_pb2.PongMsg.FromString(answer)
    except DecodeError as error:
        raise ProtocolError(f"the server's answer cannot be read: {error}") from error
    return Pong(message.seq, message.time, message.data, round_trip)


def decode_status(answer: bytes, trailers: Metadata) -> Status:
    """A ``StatusMsg``, and the metadata that came with it. Raises :class:`ProtocolError`."""
    try:
        message = RemSvc_pb2.StatusMsg.FromString(answer)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the server's answer cannot be read: {error}") from error
    beside = dict(trailers)
    transport, trees = beside.get(_TRANSPORT), beside.get(_TREES)
    return Status(
        message.rc,
        message.msg,
        str(transport) if transport in (HTTP2, GRPC) else "",
        str(trees) if trees in ("cgroup", "parentage") else "",
    )


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
    """``RemResMsg`` with bytes in place of strings, which is the same on the wire.

    It stands in a descriptor pool of its own, because the usual pool has a message of this name.
    """
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


def encode_command(command: Command, tid: int) -> bytes:
    """A ``RemCmdMsg`` of a valid command, with its hash."""
    return RemSvc_pb2.RemCmdMsg(
        cmd=command.cmd,
        cmdtyp=command.cmdtyp,
        cmdusr=command.cmdusr,
        tid=tid,
        src=command.src,
        hsh=crc32hex(command.cmd),
    ).SerializeToString()


def encode_commands(commands: Sequence[Command]) -> Iterator[bytes]:
    """The messages of a stream of valid commands, numbered from 1."""
    return (encode_command(command, tid) for tid, command in enumerate(commands, 1))


def validate_all(commands: Sequence[Command]) -> None:
    """Check every command of a stream before the first is sent.

    Raises:
        InvalidCommandError: naming the command by its number, starting at 1.
    """
    for number, command in enumerate(commands, 1):
        try:
            command.validate()
        except InvalidCommandError as error:
            raise InvalidCommandError(f"command {number}: {error}") from None


class AnswerSheet:
    """Which commands of a stream have been answered; they are numbered from 1 to ``count``."""

    def __init__(self, count: int) -> None:
        self._answered = bytearray(count + 1)

    def enter(self, result: CommandResult) -> None:
        """Note an answer. Raises :class:`ProtocolError` for one that answers no open command."""
        if not 0 < result.tid < len(self._answered):
            raise ProtocolError(f"the server answered a command that was not sent: tid {result.tid}")
        if self._answered[result.tid]:
            raise ProtocolError(f"the server answered a command twice: tid {result.tid}")
        self._answered[result.tid] = 1

    def check_complete(self) -> None:
        """Raises :class:`MissingResultsError` for what is not answered."""
        if missing := [tid for tid in range(1, len(self._answered)) if not self._answered[tid]]:
            raise MissingResultsError(missing)
