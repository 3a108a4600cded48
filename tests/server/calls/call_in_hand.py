"""A call that comes over no transport."""

from __future__ import annotations

import contextlib
from contextlib import AbstractAsyncContextManager
from typing import Any

from remsvc.server.caller import Caller
from remsvc.server.calls.call import Call
from remsvc.server.identity.authentication import Evidence


class CallInHand(Call):
    """A call whose messages the test has in its hands."""

    def __init__(self, method: str, *messages: Any) -> None:
        self.method = method
        self.peer = "ipv4:127.0.0.1:1"
        self.evidence = Evidence.shown(["Bearer te"])
        self.metadata_bytes = 0
        self._caller: Caller | None = None
        self.answers: list[bytes] = []
        self._messages = [message.SerializeToString() for message in messages]

    @property
    def caller(self) -> Caller | None:
        return self._caller

    def note_caller(self, caller: Caller) -> None:
        self._caller = caller

    def set_trailers(self, trailers: tuple[tuple[str, str | bytes], ...]) -> None:
        pass

    @property
    def ended(self) -> bool:
        return False

    async def begin(self) -> None:
        pass

    def take(self) -> bytes | None:
        return None

    async def read(self) -> bytes | None:
        return self._messages.pop(0) if self._messages else None

    def room(self) -> AbstractAsyncContextManager[int]:
        return contextlib.nullcontext(1 << 20)

    async def write(self, message: bytes) -> None:
        self.answers.append(message)
