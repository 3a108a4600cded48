"""The tasks that answer the calls of all connections."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any

from remsvc.server.calls.guard import Calls
from remsvc.server.calls.methods import Method
from remsvc.server.http2.call import Http2Call
from remsvc.server.logs import fields
from remsvc.server.refusal import RefusedError
from remsvc.status import StatusCode

_logger = logging.getLogger("remsvc.server")


class Answering:
    """Has calls answered, and ends what is being answered when the server ends.

    Args:
        calls: answers each of them.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    def answer(self, call: Http2Call, method: Method) -> asyncio.Task[None]:
        """Have a call answered."""
        return _begun(self._answer(call, method), self._loop)

    def cancel(self) -> None:
        """End all calls that are being answered."""
        for task in list(self._tasks):
            task.cancel()

    async def end(self, seconds: float) -> None:
        """The same, and wait for that, at most for so long."""
        self.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=seconds)

    async def _answer(self, call: Http2Call, method: Method) -> None:
        # In and out of the set by itself: a callback would cost each call a round of the event loop more.
        # By a variable, a task that was cancelled would hold itself, and its call: its traceback has them.
        self._tasks.add(_running_task())
        try:
            await self._calls.answer(call, method)
        except RefusedError as refused:
            call.end(refused.code, str(refused), refused.metadata)
        except asyncio.CancelledError:
            call.end(StatusCode.UNAVAILABLE, "the server is shutting down")
            raise
        except Exception:  # even the making of a status may fail; no caller is left to wait for one
            _logger.exception("a call has failed %s", fields(method=call.method, peer=call.peer))
            call.end(StatusCode.UNKNOWN, "the server has failed: its log says how")
        else:
            call.end(StatusCode.OK)
        finally:
            self._tasks.discard(_running_task())


def _running_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("expected to run in a task")
    return task


def _begun(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
    """A task that has taken its first step, where Python can do that: most calls need no second one."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, eager_start=True)
    return loop.create_task(work)
