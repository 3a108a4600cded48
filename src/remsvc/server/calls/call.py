"""One call, as its transport gives it to those who answer it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

from remsvc.server.caller import CallContext, Caller
from remsvc.server.identity.authentication import Evidence


class Call(CallContext, ABC):
    """A call of a method. Nobody who answers it sees a token: only who was verified to call.

    Attributes:
        evidence: what its caller shows of itself.
        metadata_bytes: of all that its caller sent as metadata, counted as HTTP/2 does.
    """

    evidence: Evidence
    metadata_bytes: int

    @abstractmethod
    def note_caller(self, caller: Caller) -> None:
        """Who calls was verified, for the first time or anew.

        Raises:
            RefusedError: this caller has too many connections already; the call ends with this status.
        """

    @abstractmethod
    def set_trailers(self, trailers: tuple[tuple[str, str | bytes], ...]) -> None:
        """Send this metadata with the status."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether nobody waits for an answer any more: it was given, or the caller has gone."""

    @abstractmethod
    async def begin(self) -> None:
        """Let the caller know at once that the call is being answered, where that may take long."""

    @abstractmethod
    def take(self) -> bytes | None:
        """The next message, where it is here already; None where :meth:`read` has to wait for it."""

    @abstractmethod
    async def read(self) -> bytes | None:
        """The next message; None where the caller has sent its last.

        Raises:
            RefusedError: what came cannot be taken; the call ends with this status.
        """

    @abstractmethod
    def room(self) -> AbstractAsyncContextManager[int]:
        """A context for making the next message.

        Entering it waits until the caller takes more, and gives how many bytes the message may have. They are
        reserved until it is written, or the block ends. Messages of that length never pile up, however slow
        the caller is.

        Raises:
            RefusedError: on entering it: the caller has taken nothing for too long; the call ends with this
                status.
        """

    @abstractmethod
    async def write(self, message: bytes) -> None:
        """Send a message, once there is room for it.

        Raises:
            RefusedError: the caller has taken nothing for too long; the call ends with this status.
        """
