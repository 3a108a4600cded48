"""Runs the commands of a stream one after another, and answers them in the order in which they came.

While one command runs, the next is read and checked already, and given to the engine, which starts it the
moment the one before it has ended. So no time passes between two commands while messages travel to the caller
and back. A command that is refused when it is looked at so early is checked again when the one before it was
answered: the caller sees the commands checked and answered in order.
"""

from __future__ import annotations

import asyncio

from remsvc.server.calls.call import Call
from remsvc.server.calls.methods import Requests, serialize
from remsvc.server.commands.lifecycle import CommandLifecycle, RequestedCommand
from remsvc.server.refusal import RefusedError
from remsvc.status import StatusCode
from remsvc.time_limit import TimeLimit


class CommandStream:
    """The commands of one call of ``RemCmdStrm``. Two tasks share it: one reads commands, one runs them.

    Args:
        requests: the commands.
        call: the call, to which the answers are written.
        lifecycle: checks, starts and answers each command.
        method: the full name of the method, for the audit log.
        idle: seconds to wait for the next command before the stream is ended.
    """

    def __init__(
        self, requests: Requests, call: Call, lifecycle: CommandLifecycle, method: str, idle: float
    ) -> None:
        self._requests = requests
        self._call = call
        self._lifecycle = lifecycle
        self._method = method
        self._idle = idle
        self._current: RequestedCommand | None = None
        self._next: RequestedCommand | None = None
        self._waiting = False  # whether nothing runs, and the next command is waited for
        self._writing: asyncio.Future[None] | None = None
        self._news: asyncio.Future[None] | None = None  # for the one that runs commands
        self._room: asyncio.Future[None] | None = None  # for the one that reads them

    async def serve(self) -> None:
        """Answer command by command, until the caller has no more.

        Raises:
            RefusedError: a command is refused, or the stream must end. So does every other error of
                :mod:`~remsvc.server.calls.statuses`.
        """
        reading = asyncio.ensure_future(self._read())
        reading.add_done_callback(self._tell_news)
        self._lifecycle.on_draining.add(self._tell_news)
        place = self._lifecycle.place(self._call)
        answered = False
        try:
            requested = await self._take(reading)
            while requested is not None:
                if not requested.has_begun:
                    await self._lifecycle.begin(
                        requested, self._call, self._method, place, patiently=answered
                    )
                self._current = requested
                _wake(self._room)
                try:
                    answer = await self._lifecycle.finish(requested, self._call)
                finally:
                    self._current = None
                answered = True
                self._requests.answered()
                await self._written()
                self._writing = asyncio.ensure_future(self._call.write(serialize(answer)))
                requested = self._take_begun()
                if requested is None:
                    if self._next is None:
                        place.give_back()
                    await self._written()
                    requested = await self._take(reading)
        except Exception:
            await self._written()  # before the status: what was answered counts
            raise
        finally:
            place.give_back()
            self._lifecycle.on_draining.discard(self._tell_news)
            ending = [task for task in (reading, self._writing) if task is not None]
            for task in ending:
                task.cancel()
            # Before the wait as well: a call is cancelled again where it takes too long to end.
            self._abandon_next()
            await asyncio.wait(ending)
            self._abandon_next()
            for task in ending:
                if not task.cancelled():
                    task.exception()  # of a call that has ended for a reason of its own

    async def _written(self) -> None:
        """Wait until the last answer was written. The next command runs meanwhile."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing

    async def _read(self) -> None:
        """Read commands, never more than one ahead of the one that runs: each takes memory."""
        while True:
            while self._next is not None:
                await self._change()
            request = await self._requests.read()
            if request is None:
                return
            requested = self._lifecycle.new(request, self._call)
            while not (self._current is not None or self._waiting):  # until it is known what runs before it
                await self._change()
            if (before := self._current) is not None and self._lifecycle.may_look_ahead:
                await self._lifecycle.begin_ahead(requested, self._call, self._method, before)
            self._next = requested
            self._tell_news()

    async def _change(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        await self._room

    async def _take(self, reading: asyncio.Future[None]) -> RequestedCommand | None:
        """The next command; None where there will be none."""
        while self._next is None:
            if reading.done():
                reading.result()
                return None
            if self._lifecycle.draining.done():
                raise RefusedError(StatusCode.UNAVAILABLE, "the server is shutting down")
            self._news = asyncio.get_running_loop().create_future()
            self._waiting = True
            _wake(self._room)
            try:
                with TimeLimit(self._idle):
                    await self._news
            except TimeoutError:
                reason = f"no command came for {self._idle:g} s"
                raise RefusedError(StatusCode.DEADLINE_EXCEEDED, reason) from None
            finally:
                self._waiting = False
        return self._take_next()

    def _take_begun(self) -> RequestedCommand | None:
        """The next command, where it has begun."""
        return self._take_next() if self._next is not None and self._next.has_begun else None

    def _take_next(self) -> RequestedCommand | None:
        requested, self._next = self._next, None
        return requested

    def _abandon_next(self) -> None:
        if (requested := self._take_next()) is not None:
            self._lifecycle.abandon(requested, self._call)

    def _tell_news(self, _: object = None) -> None:
        _wake(self._news)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
