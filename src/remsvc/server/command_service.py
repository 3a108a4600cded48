"""Wire version 1: the ``RS.RemSvc`` service."""

from __future__ import annotations

import contextlib
import logging
import time

import grpc

from remsvc.server.authentication import CallContext
from remsvc.server.command_runner import CommandRunner
from remsvc.server.command_stream import CommandStream
from remsvc.server.command_turn import Turns
from remsvc.server.logs import fields
from remsvc.server.requests import parser, serialize
from remsvc_proto import RemSvc_pb2

_logger = logging.getLogger("remsvc.command")

SERVICE_NAME = RemSvc_pb2.DESCRIPTOR.services_by_name["RemSvc"].full_name


class CommandService:
    """Its methods. What they refuse, whoever calls them makes the call's status of.

    Args:
        stream_idle: seconds that a stream waits for its next command.
    """

    def __init__(self, runner: CommandRunner, turns: Turns, stream_idle: float) -> None:
        self._runner = runner
        self._turns = turns
        self._stream_idle = stream_idle
        self._started = time.monotonic()

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given. Bytes that are no request are refused as such, not as a crash."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Ping": unary(self._ping, parser(RemSvc_pb2.PingMsg), serialize),
                "GetStatus": unary(self._get_status, parser(RemSvc_pb2.Empty), serialize),
                "RemCmd": unary(self._rem_cmd, parser(RemSvc_pb2.RemCmdMsg), serialize),
                "RemCmdStrm": stream(self._rem_cmd_strm, parser(RemSvc_pb2.RemCmdMsg), serialize),
            },
        )

    async def _ping(self, request: RemSvc_pb2.PingMsg, context: CallContext) -> RemSvc_pb2.PongMsg:
        _logger.info("ping %s", fields(identity=context.identity, peer=context.peer()))
        return RemSvc_pb2.PongMsg(seq=request.seq, time=request.time, data=request.data)

    async def _get_status(self, request: RemSvc_pb2.Empty, context: CallContext) -> RemSvc_pb2.StatusMsg:
        _logger.info("status %s", fields(identity=context.identity, peer=context.peer()))
        uptime = int(time.monotonic() - self._started)
        return RemSvc_pb2.StatusMsg(rc=0, msg=f"state=OK uptime={uptime}s commands={self._runner.started}")

    async def _rem_cmd(self, request: RemSvc_pb2.RemCmdMsg, context: CallContext) -> RemSvc_pb2.RemResMsg:
        turn = self._turns.new(request, context)
        with contextlib.ExitStack() as running:
            await self._turns.begin(turn, context, f"/{SERVICE_NAME}/RemCmd", running)
            return await self._turns.finish(turn, context)

    async def _rem_cmd_strm(self, _: object, context: CallContext) -> None:
        method = f"/{SERVICE_NAME}/RemCmdStrm"
        await CommandStream(context, self._turns, method, self._stream_idle).serve()
