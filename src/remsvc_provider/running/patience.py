"""Repeats a run's calls to the job service, as long as that makes sense.

CreateJob is repeated here and nowhere else: the client makes a single attempt (``repeat=False``), because its
own repetitions would multiply those that are counted here. The calls that look for jobs are repeated here as
well; the client never repeats these.

Three other places make a call again, each by a rule of its own:

- The client repeats CancelJob. That a job could not be cancelled even so is told in the task's log, and is
  no failure that is repeated here.
- The client's watch goes on at the byte where it broke, until its ``reconnect_timeout``.
- :class:`~remsvc_provider.running.access.ServerAccess` makes a call again with new credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from remsvc.errors import NO_ANSWER, CallCancelledError, ResourceExhaustedError, ServerError, UnavailableError
from remsvc.time_limit import TimeLimit
from remsvc_provider.turns import turn

if TYPE_CHECKING:
    from remsvc.client import AsyncClient
    from remsvc_provider.running.access import ServerAccess

ATTEMPTS = 3
FIRST_DELAY = 1.0
MAX_DELAY = 16.0
TRANSIENT = (UnavailableError, CallCancelledError, ResourceExhaustedError)
"""Errors that may pass by themselves. :class:`Patience` repeats calls after these and after a deadline. A
stream of version 1 is repeated after these, if nothing of it was sent."""

T = TypeVar("T")


def delay_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 1, 2, 4 ... 16."""
    return float(min(FIRST_DELAY * 2 ** min(failures - 1, 10), MAX_DELAY))


class Patience:
    """Makes a call until the server answers it, or until there is no more sense in waiting.

    Only for calls that do no harm when they arrive twice. How long it goes on depends on what is at stake:

    - A server that never answered gets three attempts: nothing runs there, so the task may as well fail.
    - A server that has answered once, or may hold jobs of this task, is asked until the caller's own time
      limit: giving up would leave its jobs without anybody who waits for them.
    - A server whose queue is full, and that says when to come back, is asked until then as well.

    Args:
        access: to the server.
        report: called with a line about each failure that is not the last.
        forever: do not give up after three attempts, because the server may hold jobs of this task already.
    """

    def __init__(self, access: ServerAccess, report: Callable[[str], None], *, forever: bool) -> None:
        self._access = access
        self._report = report
        self._forever = forever
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Make no further attempts."""
        self._stopped.set()

    async def insist(self, call: Callable[[AsyncClient], Awaitable[T]]) -> T:
        """The answer of a call, which is made as often as it takes.

        Raises:
            ServerError: the failure of the last attempt. Its ``sent`` is True if any of the attempts may have
                reached the server.
        """
        failures = 0
        sent = False
        while True:
            try:
                async with turn(self._access.target):
                    answer = await self._access.call(call)
            except (*NO_ANSWER, ResourceExhaustedError) as error:
                failures += 1
                if not isinstance(error, ResourceExhaustedError):  # which is an answer
                    error.count_earlier_attempts(sent=sent)
                    sent = error.sent
                if not self._goes_on(error, failures):
                    raise
                await self._pause(error, failures)
            else:
                self._forever = True
                return answer

    def _goes_on(self, error: ServerError, failures: int) -> bool:
        if self._stopped.is_set():
            return False
        if isinstance(error, ResourceExhaustedError):
            return error.retry_after is not None or failures < ATTEMPTS
        return self._forever or failures < ATTEMPTS

    async def _pause(self, error: ServerError, failures: int) -> None:
        delay = delay_after(failures)
        if self._forever:
            following = f"trying again in {delay:g} s"
        else:
            following = f"attempt {failures + 1} of {ATTEMPTS} follows in {delay:g} s"
            if not error.sent:
                following = f"nothing was sent, {following}"
        self._report(f"{error}; {following}")
        with suppress(TimeoutError), TimeLimit(delay):
            await self._stopped.wait()
            raise error
