"""A real gRPC server whose jobs are lies: whatever a test puts on the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from remsvc_proto import RemSvc_pb2

Answers = Callable[[bytes], Iterable[bytes]]


class LyingServer:
    """Serves on a free port of 127.0.0.1, until :meth:`close`.

    Attributes:
        answers: by a method's name, what it answers to a request, message by message. Methods that are not in
            it are UNIMPLEMENTED. A ping is answered as it should be.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answers] = {"Ping": lambda _: [RemSvc_pb2.PongMsg().SerializeToString()]}
        self._threads = ThreadPoolExecutor(max_workers=8)
        self._server = grpc.server(self._threads, options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(grace=None).wait()
        self._threads.shutdown()


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, server: LyingServer) -> None:
        self._server = server

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        if (answers := self._server.answers.get(name)) is None:
            return None

        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            yield from answers(next(requests))

        return grpc.stream_stream_rpc_method_handler(handle)
