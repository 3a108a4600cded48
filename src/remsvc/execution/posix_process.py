"""A process on POSIX, as the server knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from remsvc.errors import RemSvcError
from remsvc.execution.engine import ProcessEnd, WithdrawnError
from remsvc.execution.supervisor.protocol import End, Order, Withdraw


class PosixProcess:
    """A process owned by the supervisor. See :class:`remsvc.execution.engine.Process`.

    Args:
        number: by which the supervisor knows it.
        send: sends the supervisor an order.
    """

    def __init__(self, number: int, send: Callable[[Order], None]) -> None:
        self.number = number
        self._send = send
        self._result: ProcessEnd | RemSvcError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def withdrawn(self) -> bool:
        return isinstance(self._result, WithdrawnError)

    async def wait(self) -> ProcessEnd:
        while self._result is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if isinstance(self._result, ProcessEnd):
            return self._result
        raise self._result

    def end(self) -> None:
        if self._result is None:
            self._send(End(self.number))

    def withdraw(self) -> None:
        if self._result is None:
            self._send(Withdraw(self.number))

    def settle(self, result: ProcessEnd | RemSvcError) -> None:
        """Note how it ended, and wake those who wait for it; for the engine."""
        self._result = result
        for waiter in self._waiters:
            if not waiter.done():  # its task was cancelled
                waiter.set_result(None)
        self._waiters.clear()
