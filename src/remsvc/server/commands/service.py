"""The version-1 service, ``RS.RemSvc``: answers a ping, says how the server is, and runs commands.

What its callers may rely on is fixed (``proto/RemSvc.proto``). Each command goes through
:class:`~remsvc.server.commands.lifecycle.CommandLifecycle`, whether it came alone or in a stream.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from remsvc.server.calls.call import Call
from remsvc.server.calls.methods import Method, Requests
from remsvc.server.commands.lifecycle import CommandLifecycle
from remsvc.server.commands.runner import CommandRunner
from remsvc.server.commands.stream import CommandStream
from remsvc.server.logs import fields
from remsvc.validation import DATA
from remsvc_proto import RemSvc_pb2

_logger = logging.getLogger("remsvc.command")

SERVICE_NAME = RemSvc_pb2.DESCRIPTOR.services_by_name["RemSvc"].full_name
_KIB, _MIB = 1024, 1024**2
_RUN, _RUN_STREAM = f"/{SERVICE_NAME}/RemCmd", f"/{SERVICE_NAME}/RemCmdStrm"


class CommandService:
    """Answers the calls of version 1.

    Its methods raise what has gone wrong; the status of the call is made of that in one place
    (:mod:`remsvc.server.calls.statuses`).

    Args:
        runner: counts the commands that were started, which ``GetStatus`` tells.
        lifecycle: checks, starts and answers commands.
        stream_idle: seconds that a stream waits for its next command before it is ended.
        transport: the name of the transport that carries the calls; ``GetStatus`` sends it as metadata.
        trees: returns the means by which a command's processes are found now (control groups, for instance);
            ``GetStatus`` sends it as metadata.
    """

    def __init__(
        self,
        runner: CommandRunner,
        lifecycle: CommandLifecycle,
        stream_idle: float,
        transport: str,
        trees: Callable[[], str] = str,
    ) -> None:
        self._runner = runner
        self._lifecycle = lifecycle
        self._stream_idle = stream_idle
        self._transport = transport
        self._trees = trees
        self._started = time.monotonic()

    def methods(self) -> tuple[Method, ...]:
        """The methods of the service, for the table of all that can be called."""
        return (
            Method(f"/{SERVICE_NAME}/Ping", RemSvc_pb2.PingMsg, DATA.most + 4 * _KIB, one=self._ping),
            Method(f"/{SERVICE_NAME}/GetStatus", RemSvc_pb2.Empty, 4 * _KIB, one=self._get_status),
            Method(_RUN, RemSvc_pb2.RemCmdMsg, _MIB, one=self._rem_cmd),
            Method(_RUN_STREAM, RemSvc_pb2.RemCmdMsg, _MIB, stream=self._rem_cmd_strm),
        )

    async def _ping(self, request: RemSvc_pb2.PingMsg, call: Call) -> RemSvc_pb2.PongMsg:
        if _logger.isEnabledFor(logging.INFO):
            _logger.info("ping %s", fields(identity=call.identity, peer=call.peer))
        DATA.check(request.data)
        return RemSvc_pb2.PongMsg(seq=request.seq, time=request.time, data=request.data)

    async def _get_status(self, request: RemSvc_pb2.Empty, call: Call) -> RemSvc_pb2.StatusMsg:
        if _logger.isEnabledFor(logging.INFO):
            _logger.info("status %s", fields(identity=call.identity, peer=call.peer))
        uptime = int(time.monotonic() - self._started)
        # Beside the message: its text is fixed.
        trees = self._trees()
        beside = (("remsvc-transport", self._transport), ("remsvc-process-trees", trees))
        call.set_trailers(beside if trees else beside[:1])
        return RemSvc_pb2.StatusMsg(rc=0, msg=f"state=OK uptime={uptime}s commands={self._runner.started}")

    async def _rem_cmd(self, request: RemSvc_pb2.RemCmdMsg, call: Call) -> RemSvc_pb2.RemResMsg:
        requested = self._lifecycle.new(request, call)
        place = self._lifecycle.place(call)
        with place:
            await self._lifecycle.begin(requested, call, _RUN, place)
            return await self._lifecycle.finish(requested, call)

    async def _rem_cmd_strm(self, requests: Requests, call: Call) -> None:
        await CommandStream(requests, call, self._lifecycle, _RUN_STREAM, self._stream_idle).serve()
