"""A version 1 server that answers as a test wants, rightly or wrongly: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from remsvc_proto import RemSvc_pb2

Unary = Callable[[bytes, grpc.ServicerContext], bytes]
Streaming = Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    """The right answer to a ping: both messages have the same fields."""
    return request


def answer(**fields: Any) -> bytes:
    """A ``RemResMsg``."""
    return RemSvc_pb2.RemResMsg(**fields).SerializeToString()


def command(request: bytes) -> RemSvc_pb2.RemCmdMsg:
    """What the client sent."""
    return RemSvc_pb2.RemCmdMsg.FromString(request)


def succeed(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """The right answers to a stream of commands that all succeed."""
    for request in requests:
        message = command(request)
        yield answer(tid=message.tid, out=message.cmd, hsh=message.hsh)


class ScriptedServer:
    """Runs in threads of this process. Methods without a handler are UNIMPLEMENTED."""

    def __init__(
        self,
        *,
        ping: Unary | None = echo,
        status: Unary | None = None,
        run: Unary | None = None,
        stream: Streaming | None = None,
        port: int = 0,
    ) -> None:
        methods: dict[str, grpc.RpcMethodHandler] = {}
        for name, handler in (("Ping", ping), ("GetStatus", status), ("RemCmd", run)):
            if handler is not None:
                methods[name] = grpc.unary_unary_rpc_method_handler(handler)
        if stream is not None:
            methods["RemCmdStrm"] = grpc.stream_stream_rpc_method_handler(stream)
        self._threads = ThreadPoolExecutor(max_workers=8)
        self._server = grpc.server(self._threads, options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("RS.RemSvc", methods),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End all calls and free the port. Idempotent."""
        self._server.stop(grace=None).wait()
        self._threads.shutdown()
