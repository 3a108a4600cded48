"""A version-1 client made of descriptors alone, and what tests expect of its calls."""

from __future__ import annotations

import queue
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from . import wire

DEADLINE = 60.0
"""Seconds within which every call must end; no test waits that long unless something is broken."""

Metadata = Iterable[tuple[str, str]]


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def crc32(text: str) -> str:
    return format(zlib.crc32(text.encode("utf-8")), "08x")


def command(cmd: str, **fields: Any) -> Any:
    """A ``RemCmdMsg``."""
    return wire.message("RemCmdMsg")(cmd=cmd, **fields)


class Client:
    """Calls version 1 by method path. It does not own the channel, except where closed."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata = ()) -> None:
        self.channel = channel
        self.metadata = tuple(metadata)
        self._methods = {name: self._method(name) for name in wire.METHODS}

    def _method(self, name: str) -> Any:
        method = wire.METHODS[name]
        kind = self.channel.stream_stream if method.streaming else self.channel.unary_unary
        return kind(
            method.path(name),
            request_serializer=wire.message(method.request).SerializeToString,
            response_deserializer=wire.message(method.response).FromString,
        )

    def with_metadata(self, metadata: Metadata) -> Client:
        """The same channel with other metadata on every call."""
        return Client(self.channel, metadata)

    def ping(self, seq: int = 0, time: int = 0, data: bytes = b"", *, timeout: float = DEADLINE) -> Any:
        request = wire.message("PingMsg")(seq=seq, time=time, data=data)
        return self._methods["Ping"](request, timeout=timeout, metadata=self.metadata)

    def status(self) -> Any:
        request = wire.message("Empty")()
        return self._methods["GetStatus"](request, timeout=DEADLINE, metadata=self.metadata)

    def run(self, cmd: str, *, timeout: float = DEADLINE, **fields: Any) -> Any:
        """``RemCmd``: its answer."""
        return self._methods["RemCmd"](command(cmd, **fields), timeout=timeout, metadata=self.metadata)

    def start(self, cmd: str, **fields: Any) -> Any:
        """``RemCmd``: a future."""
        return self._methods["RemCmd"].future(command(cmd, **fields), metadata=self.metadata)

    def stream(self, commands: Iterable[Any]) -> Any:
        """``RemCmdStrm`` with all its requests known: an iterator of answers."""
        return self._methods["RemCmdStrm"](iter(list(commands)), timeout=DEADLINE, metadata=self.metadata)

    def open_stream(self) -> Stream:
        """``RemCmdStrm``, one request after the other."""
        return Stream(self._methods["RemCmdStrm"], self.metadata)

    def close(self) -> None:
        """Close the connection: calls still open are broken off."""
        self.channel.close()


class Stream:
    """A ``RemCmdStrm`` call that the test feeds by hand. Iterate over it for the answers."""

    def __init__(self, method: Any, metadata: Metadata) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.call = method(iter(self._requests.get, None), timeout=DEADLINE, metadata=metadata)

    def send(self, cmd: str, **fields: Any) -> None:
        self._requests.put(command(cmd, **fields))

    def half_close(self) -> None:
        self._requests.put(None)

    def cancel(self) -> None:
        self.call.cancel()
        self.half_close()  # lets gRPC's thread that waits for requests end

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.call)


@contextmanager
def refused(
    code: grpc.StatusCode | tuple[grpc.StatusCode, ...], details: str | None = None, *, starts: str = ""
) -> Iterator[None]:
    """The block's call must fail with this status (or one of these), this text or a text that starts so."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code() in (code if isinstance(code, tuple) else (code,)), caught.value.details()
    if details is not None:
        assert caught.value.details() == details
    assert caught.value.details().startswith(starts)
