"""The interface between the clients and what carries their calls: a transport to one server.

There are two transports, :mod:`~remsvc.client.grpc_transport` and :mod:`~remsvc.client.http2`. Each has one
class for asyncio and one for blocking calls. This module imports neither;
:mod:`~remsvc.client.transport_choice` chooses one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable
from enum import Enum, auto
from typing import NamedTuple, Protocol

from remsvc.status import Metadata, StatusCode

MAX_RECEIVE_BYTES = 64 * 1024 * 1024
"""The longest answer accepted: the server's limit on output may be raised well above gRPC's 4 MiB."""

PING_TIMEOUT = 15.0
"""Seconds. A connection on which the answer to a ping takes longer counts as dead."""

FIRST_RECONNECT_PAUSE = 0.2
LONGEST_RECONNECT_PAUSE = 2.0
"""Seconds between attempts to connect. They are short, so that a connection that is kept in a pool notices
within seconds that its server is back."""

NO_MESSAGE = "the server ended the call with OK, but without an answer"
SEVERAL_MESSAGES = "the server sent more than one answer where one is due"


class CallError(Exception):
    """A call has ended with another status than OK.

    Attributes:
        code: the status.
        details: the status's message, as the server or the transport worded it.
        trailers: the metadata that came with it; values of keys that end with ``-bin`` are bytes.
        sent: False only where it is certain that the server has done nothing for the call.
    """

    def __init__(
        self, code: StatusCode, details: str = "", trailers: Metadata = (), *, sent: bool = True
    ) -> None:
        self.code = code
        self.details = details
        self.trailers = trailers
        self.sent = sent
        super().__init__(f"{code.name}: {details}")


class Answer(NamedTuple):
    """The answer to a unary call: its message, and the metadata that came after it."""

    message: bytes
    trailers: Metadata


class Readiness(Enum):
    """What is known about the connection before a call is made."""

    READY = auto()
    """There is a connection, as far as is known."""
    UNTRIED = auto()
    """There is no connection yet; the next call makes it."""
    BROKEN = auto()
    """The last attempt to connect has failed or, with gRPC, the connection was lost. A call that does not
    wait may fail with the error of that attempt."""
    CLOSED = auto()
    """The transport was closed."""


class AsyncTransport(Protocol):
    """Makes calls from one event loop to one server.

    Attributes:
        name: ``http2`` or ``grpc``.
    """

    name: str

    @property
    def readiness(self) -> Readiness:
        """What is known about the connection."""

    async def unary(
        self,
        method: str,
        request: bytes,
        *,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool = False,
    ) -> Answer:
        """One request, one answer.

        Args:
            method: its full name, ``/package.Service/Method``.
            request: the message.
            timeout: seconds for connecting and the whole call.
            metadata: of the call.
            wait_for_ready: go on trying to connect until ``timeout``, not only once.

        Raises:
            CallError: the call has ended in any other way.
        """

    def stream(
        self, method: str, requests: Iterable[bytes], *, timeout: float | None, metadata: Metadata
    ) -> AsyncGenerator[bytes, None]:
        """The answers to ``requests``. The next request is fetched as soon as the server can take it.

        The caller closes the generator in any case; closing it early cancels the call. An error that
        ``requests`` raises ends the call and is passed on. Other errors are those of :meth:`unary`.
        """

    async def close(self) -> None:
        """End the calls that are in progress, and the connection. Idempotent."""


class Transport(Protocol):
    """Makes blocking calls from any thread to one server: otherwise as :class:`AsyncTransport`."""

    name: str

    @property
    def readiness(self) -> Readiness:
        """What is known of the connection."""

    def unary(
        self,
        method: str,
        request: bytes,
        *,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool = False,
    ) -> Answer:
        """See :meth:`AsyncTransport.unary`."""

    def stream(
        self, method: str, requests: Iterable[bytes], *, timeout: float | None, metadata: Metadata
    ) -> Generator[bytes, None, None]:
        """See :meth:`AsyncTransport.stream`."""

    def close(self) -> None:
        """See :meth:`AsyncTransport.close`."""
