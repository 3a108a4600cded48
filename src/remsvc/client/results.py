"""The answers of wire version 1, as types."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping.

    Attributes:
        seq, time, data: as sent.
        round_trip: seconds from sending to the answer.
    """

    seq: int
    time: int
    data: bytes
    round_trip: float


@dataclass(frozen=True, slots=True)
class Status:
    """The answer to ``GetStatus``.

    Attributes:
        rc: 0.
        msg: ``state=OK uptime=<seconds>s commands=<number run>``.
        transport: which transport the server uses, ``http2`` or ``grpc``; empty where it does not say.
        process_trees: how the server knows which processes belong to a command, to end them all: by
            ``cgroup``, or by ``parentage``, from which a command can escape on purpose; empty where the
            server does not say.
    """

    rc: int
    msg: str
    transport: str = ""
    process_trees: str = ""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of one command.

    Attributes:
        rc: exit code; 128+N when signal N ended it; 1 when it could not be run.
        tid: the number it was sent with.
        out, err: its output; bytes that are not UTF-8 come as U+FFFD.
        hsh: the hash it was sent with.
        lossy: the server sent bytes that are not UTF-8 (the C++ server does), and the client
            replaced them in ``out`` or ``err``.
    """

    rc: int
    tid: int
    out: str
    err: str
    hsh: str
    lossy: bool = False
