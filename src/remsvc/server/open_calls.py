"""Who makes a call is decided here, and streams end when their caller's credentials do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from remsvc.server.authentication import AuthenticationError, Authenticator
from remsvc.server.call import Call
from remsvc.server.failed_authentication import FailedAuthentications
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.status import Status

_ENDED = "the credentials of this call have been revoked or have expired"


@dataclass(slots=True, eq=False)
class _OpenStream:
    """A stream that is open, and the task that answers it."""

    call: Call
    task: asyncio.Task[Any]
    ended: bool = False


class Authentication:
    """Refuses calls that are not authenticated, and ends streams that are not any more.

    Args:
        authenticator: decides who calls, until :meth:`use` gives another one.
        on_refusal: called with the method, the peer and the reason, for calls that are refused and
            for streams that are ended.
        failures: how many from one address are answered and told to ``on_refusal`` one by one.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        on_refusal: Callable[[str, str, str], None],
        failures: FailedAuthentications,
    ) -> None:
        self._authenticator = authenticator
        self._failures = failures
        self._on_refusal = on_refusal
        self._streams: set[_OpenStream] = set()

    def use(self, authenticator: Authenticator) -> None:
        """From now on, ``authenticator`` decides. Streams whose callers it does not know the same
        way are ended with ``UNAUTHENTICATED``; all others go on."""
        self._authenticator = authenticator
        for stream in tuple(self._streams):
            try:
                caller = authenticator.authenticate(stream.call.evidence)
            except AuthenticationError as error:
                self._end(stream, error.reason)
                continue
            if caller.identity != stream.call.identity:
                self._end(stream, f"no longer of {stream.call.identity}")
            else:
                stream.call.caller = caller  # it may expire at another time

    def end_expired(self) -> None:
        """End the streams whose callers' credentials have expired."""
        now = time.time()
        for stream in tuple(self._streams):
            caller = stream.call.caller
            if caller is not None and caller.expires is not None and caller.expires <= now:
                self._end(stream, f"what {caller.identity} showed has expired")

    def verify(self, call: Call) -> None:
        """Verify who makes a call: sets ``call.caller``.

        Raises:
            RefusedError: it is nobody who may call.
        """
        try:
            call.caller = self._authenticator.authenticate(call.evidence)
        except AuthenticationError as error:
            if wait := self._failures.note(call.peer):
                raise exhausted("too many failed authentications from this address", wait) from None
            self._on_refusal(call.method, call.peer, error.reason)
            raise RefusedError(Status.UNAUTHENTICATED, str(error)) from None

    @contextlib.contextmanager
    def streaming(self, call: Call) -> Iterator[None]:
        """Within, a verified caller's call ends when his credentials do.

        Raises:
            RefusedError: they have.
        """
        task = asyncio.current_task()
        assert task is not None
        stream = _OpenStream(call, task)
        self._streams.add(stream)
        try:
            yield
        except asyncio.CancelledError:
            if not stream.ended or call.ended:
                raise
            raise RefusedError(Status.UNAUTHENTICATED, _ENDED) from None
        finally:
            self._streams.discard(stream)

    def _end(self, stream: _OpenStream, reason: str) -> None:
        if not stream.ended:
            stream.ended = True
            self._on_refusal(stream.call.method, stream.call.peer, reason)
            stream.task.cancel()
