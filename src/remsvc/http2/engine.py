"""The engine of an HTTP/2 connection: frames, header compression and flow control, done by libnghttp2.

This is the one module that uses the package ``ngh2``. Everything else uses the small interface here, so
that another library could take its place (docs/decisions/0012 says how). An engine takes in the bytes that
the peer has sent, tells what they mean as events (:data:`Http2Event`), and gives the bytes to send. It
reads and writes no socket, and is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import ngh2

Header: TypeAlias = tuple[bytes, bytes]

RequestReceived = ngh2.RequestReceived
InformationalResponseReceived = ngh2.InformationalResponseReceived
ResponseReceived = ngh2.ResponseReceived
TrailersReceived = ngh2.TrailersReceived
DataReceived = ngh2.DataReceived
StreamClosed = ngh2.StreamClosed
SettingsReceived = ngh2.SettingsReceived
WindowUpdated = ngh2.WindowUpdated
SettingsAcknowledged = ngh2.SettingsAcknowledged
GoAwayReceived = ngh2.GoAwayReceived
ConnectionClosed = ngh2.ConnectionClosed

Http2Event = ngh2.Event

# RFC 9113, section 7.
NO_ERROR, PROTOCOL_ERROR, SETTINGS_TIMEOUT = 0x0, 0x1, 0x4
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY = 0x7, 0x8, 0xB, 0xC

WINDOW = 65_535
"""The bytes that a peer may send on a stream before it is permitted more: RFC 9113, section 6.9.2."""

# RFC 9113, section 6.5.2.
_ENABLE_PUSH, _MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, _MAX_HEADER_LIST_SIZE = 0x2, 0x3, 0x4, 0x6
_UNLIMITED = 2**31 - 1
_GOAWAY = 0x7

# Frames that are suspicious without being an error: so many are taken at once, then so many a second.
# Servers may send more, because what they send on a stream that was reset meanwhile counts among them.
_GLITCHES_OF_CLIENTS, _GLITCHES_OF_SERVERS = (1000, 50), (10_000, 330)


class EngineError(Exception):
    """The connection has ended: the peer broke the rules, or did more of something than is permitted.

    What :func:`last_words` gives may still be sent.

    Attributes:
        code: why, as a GOAWAY says it.
    """

    def __init__(self, text: str, code: int = ENHANCE_YOUR_CALM) -> None:
        super().__init__(text)
        self.code = code


class StreamGoneError(Exception):
    """The stream has ended, or has never begun: nothing can be sent on it."""


class Http2Engine:
    """The state of one connection.

    Args:
        server: whether this is the server's end of the connection.
        max_streams: how many streams the peer may have open at the same time.
        header_bytes: the longest list of headers that the peer is told to send, counted as RFC 9113 does.
        header_bytes_taken: the longest list of headers that is accepted; a longer one ends the connection.
        max_headers: how many headers a list may have; a longer one ends the connection.
        connection_window: bytes that the peer may send on all streams together before they are
            acknowledged.
        resets: how many streams the peer may reset at once, and then in each second.

    Attributes:
        queued: a function that returns the bytes of data which wait to be sent: on the stream that it is
            given, or on all streams.

    Raises:
        EngineError: what concerns the connection, once that has ended.
        StreamGoneError: what concerns a stream, once that, or the connection, has ended.
    """

    def __init__(
        self,
        *,
        server: bool,
        max_streams: int,
        header_bytes: int,
        header_bytes_taken: int,
        max_headers: int,
        connection_window: int,
        resets: tuple[int, int] = (1000, 33),
    ) -> None:
        configuration = ngh2.Configuration(
            auto_window_update=False,
            max_inbound_header_list_size=header_bytes_taken,
            max_inbound_header_count=max_headers,
            stream_reset_rate_limit=resets,
            glitch_rate_limit=_GLITCHES_OF_CLIENTS if server else _GLITCHES_OF_SERVERS,
            max_reserved_remote_streams=0,
        )
        self._connection = ngh2.Connection(ngh2.Role.SERVER if server else ngh2.Role.CLIENT, configuration)
        settings = {_MAX_HEADER_LIST_SIZE: header_bytes}
        settings[_MAX_CONCURRENT_STREAMS if server else _ENABLE_PUSH] = max_streams if server else 0
        self._connection.initiate_connection(settings)
        self._connection.set_local_window_size(connection_window)
        self.queued = self._connection.queued_body_size

    def receive(self, data: bytes | bytearray | memoryview) -> list[Http2Event]:
        """Take in what the peer has sent; returns its events, in order."""
        try:
            self._connection.receive_data(data)
            return self._connection.events()
        except ngh2.DenialOfServiceError as error:
            raise EngineError(str(error)) from error
        except ngh2.NGH2Error as error:
            raise EngineError(str(error), PROTOCOL_ERROR) from error

    def to_send(self) -> bytes:
        """All that may be sent now. Ask :meth:`late_events` afterwards."""
        try:
            return self._connection.data_to_send()
        except ngh2.NGH2Error as error:
            raise EngineError(str(error)) from error

    def late_events(self) -> list[Http2Event]:
        """The events that sending has caused: streams have ended with what was sent."""
        return self._connection.events()

    def request(self, headers: Sequence[Header]) -> int:
        """Begin a stream as a client; returns its id. Raises :class:`StreamGoneError` if it cannot."""
        try:
            return self._connection.send_request(headers)
        except ngh2.NGH2Error as error:
            raise StreamGoneError(str(error)) from error

    @property
    def peer_max_streams(self) -> int:
        """How many streams a server lets us have open at the same time."""
        return self._connection.remote_settings.get(_MAX_CONCURRENT_STREAMS, _UNLIMITED)

    @property
    def window(self) -> int:
        """Bytes that the peer may send now, on all streams together."""
        try:
            return self._connection.local_window_size
        except ngh2.NGH2Error:
            return 0

    def sendable(self, stream: int) -> int:
        """Bytes of data that could be sent on the stream now, after those that wait to be sent on it."""
        try:
            return max(self._connection.stream_remote_window_size(stream) - self.queued(stream), 0)
        except ngh2.NGH2Error:
            return 0

    def respond(self, stream: int, headers: Sequence[Header], *, end: bool = False) -> None:
        """Send the headers of an answer."""
        try:
            self._connection.send_response(stream, headers, end_stream=end)
        except ngh2.NGH2Error as error:
            raise StreamGoneError(str(error)) from error

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send data, after the headers."""
        try:
            self._connection.send_data(stream, data, end_stream=end)
        except ngh2.NGH2Error as error:
            raise StreamGoneError(str(error)) from error

    def finish(self, stream: int, trailers: Sequence[Header]) -> None:
        """Send what ends an answer, after its headers and all data."""
        try:
            self._connection.send_trailers(stream, trailers)
        except ngh2.NGH2Error as error:
            raise StreamGoneError(str(error)) from error

    def reset(self, stream: int, error: int) -> None:
        """End a stream at once, in both directions.

        It must not be called while only a part of a frame with the stream's data has come: the engine would
        lose count of it, and with it a part of the connection's window. What is queued is not sent any
        more.
        """
        try:
            self._connection.reset_stream(stream, error)
        except ngh2.NGH2Error as failure:
            raise StreamGoneError(str(failure)) from failure

    def acknowledge(self, stream: int, size: int) -> None:
        """Data of this stream was used: the peer may send as many bytes again."""
        try:
            self._connection.acknowledge_received_data(size, stream)
        except ngh2.NGH2Error as error:
            raise EngineError(str(error)) from error

    def widen(self, stream: int, window: int) -> None:
        """Set how many unacknowledged bytes the peer may send on a stream; stream 0: on all together."""
        try:
            self._connection.set_local_window_size(window, stream_id=stream)
        except ngh2.NGH2Error as error:
            raise StreamGoneError(str(error)) from error

    def ping(self) -> None:
        """Ask the peer whether it is there. Whatever it sends then is an answer."""
        try:
            self._connection.ping()
        except ngh2.NGH2Error as error:
            raise EngineError(str(error)) from error

    def announce_shutdown(self) -> None:
        """Tell the peer to begin no more streams, as the connection will end. Open streams go on."""
        try:
            self._connection.send_shutdown_notice()
        except ngh2.NGH2Error as error:
            raise EngineError(str(error)) from error

    def terminate(self, error: int) -> None:
        """End the connection. What :meth:`to_send` gives afterwards are the last bytes to send."""
        try:
            self._connection.terminate_connection(error)
        except ngh2.NGH2Error as failure:
            raise EngineError(str(failure)) from failure


def last_words(stream: int, error: int) -> bytes:
    """A GOAWAY for a connection whose engine has ended already: RFC 9113, section 6.8.

    Args:
        stream: the last one that was begun; those after it have had no effect.
        error: why.
    """
    return b"\0\0\x08" + bytes((_GOAWAY, 0)) + bytes(4) + stream.to_bytes(4, "big") + error.to_bytes(4, "big")
