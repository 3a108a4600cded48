"""A client's connection without a network: what a server says to it, and how its calls end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remsvc.client.http2.call import ClientCall
from remsvc.client.http2.session import ClientSession, NotBegunError
from remsvc.client.transport import CallError
from remsvc.http2 import engine
from remsvc.http2.engine import EngineError, Header, Http2Engine, StreamGoneError
from remsvc.http2.messages import prefix
from remsvc.status import StatusCode
from tests.attacks.raw_http2 import GOAWAY, HEADERS, RST_STREAM, frame

HEAD: list[Header] = [(b":status", b"200"), (b"content-type", b"application/grpc")]
OK: list[Header] = [(b"grpc-status", b"0")]


def make_call(*requests: bytes, single: bool = False, deadline: float | None = None) -> ClientCall:
    return ClientCall("/a.B/C", requests, (), single=single, deadline=deadline)


def length_prefixed(content: bytes) -> bytes:
    return prefix(len(content)) + content


class Pair:
    """A session, and the server at its other end."""

    def __init__(self, *, keepalive: float = 100.0, max_streams: int = 100) -> None:
        self.now = 1000.0
        self.session = ClientSession(scheme="http", authority="host:1", keepalive=keepalive, now=self.now)
        self.server = Http2Engine(
            server=True,
            max_streams=max_streams,
            header_bytes=16384,
            header_bytes_taken=16384,
            max_headers=128,
            connection_window=1 << 20,
        )
        self.events: list[object] = []

    def receive(self, data: bytes) -> None:
        """Something comes from the server."""
        view = memoryview(data)
        while view:
            view = view[self.session.take(view, self.now) :]

    def exchange(self) -> None:
        """Carry everything to the other side, until nothing is left."""
        while True:
            there = self.session.to_send(self.now)
            if there:
                self.events += self.server.receive(there)
            back = self.server.to_send()
            self.events += self.server.late_events()
            if back:
                self.receive(back)
            if not there and not back:
                return

    def begin(self, call: ClientCall) -> ClientCall:
        self.session.begin(call, self.now)
        self.exchange()
        return call

    def take_all(self, call: ClientCall) -> list[bytes]:
        answers = []
        while (answer := self.session.read(call)) is not None:
            answers.append(answer)
        return answers


def requests_of(pair: Pair) -> list[dict[bytes, bytes]]:
    return [dict(event.headers) for event in pair.events if type(event) is engine.RequestReceived]  # type: ignore[attr-defined]


def body_of(pair: Pair, stream: int) -> bytes:
    return b"".join(
        event.data  # type: ignore[attr-defined]
        for event in pair.events
        if type(event) is engine.DataReceived and event.stream_id == stream  # type: ignore[attr-defined]
    )


def test_a_call_goes_there_and_back() -> None:
    pair = Pair()
    call = ClientCall("/a.B/C", [b"one", b"", b"three"], (("x-y", " z "), ("d-bin", b"\xff")), single=False,
                deadline=pair.now + 2.5)  # fmt: skip
    pair.begin(call)
    (headers,) = requests_of(pair)
    assert headers[b":path"] == b"/a.B/C"
    assert headers[b":authority"] == b"host:1"
    assert headers[b"grpc-timeout"] == b"2500000u"
    assert headers[b"grpc-accept-encoding"] == b"identity"
    assert (headers[b"x-y"], headers[b"d-bin"]) == (b"z", b"/w")
    assert body_of(pair, call.stream) == b"".join(map(length_prefixed, (b"one", b"", b"three")))
    pair.server.respond(call.stream, HEAD)
    pair.server.send(call.stream, length_prefixed(b"answer") + length_prefixed(b""))
    pair.exchange()
    assert pair.take_all(call) == [b"answer", b""]
    assert not call.ended
    pair.server.finish(call.stream, [*OK, (b"x-bin", b"/w,AA"), (b"y", b"z")])
    pair.exchange()
    assert call.ended
    assert call.error is None
    assert call.trailers == (("x-bin", b"\xff"), ("x-bin", b"\0"), ("y", "z"))
    assert pair.session.idle


def test_many_small_answers_may_wait_to_be_read() -> None:
    """As many as a window holds, each in a frame of its own, all at once."""
    pair = Pair()
    call = pair.begin(make_call(b"x"))
    pair.server.respond(call.stream, HEAD)
    for _ in range(5000):
        pair.server.send(call.stream, length_prefixed(b""))
        pair.receive(pair.server.to_send())
    assert len(pair.take_all(call)) == 5000
    assert pair.session.ended is None


def failure(pair: Pair, call: ClientCall) -> CallError:
    assert call.ended
    with pytest.raises(CallError) as caught:
        call.raise_error()
    return caught.value


def test_nothing_is_begun_before_the_server_has_greeted() -> None:
    session = ClientSession(scheme="http", authority="h", keepalive=1, now=0)
    call = make_call(b"x")
    session.begin(call, 0)
    assert len(session.to_send(0)) < 100
    session.close("Socket closed")
    assert isinstance(call.error, NotBegunError)
    assert not call.error.sent


def test_calls_wait_for_their_turn() -> None:
    pair = Pair(max_streams=2)
    pair.exchange()
    calls = [pair.begin(make_call(b"x")) for _ in range(5)]
    assert [bool(call.stream) for call in calls] == [True, True, False, False, False]
    pair.session.end(calls[2], CallError(StatusCode.DEADLINE_EXCEEDED))
    assert calls[2].error is not None
    assert not calls[2].error.sent
    pair.session.end(calls[0], CallError(StatusCode.CANCELLED))
    pair.exchange()
    assert [bool(call.stream) for call in calls] == [True, True, False, True, False]
    pair.server.respond(calls[1].stream, [*HEAD, *OK], end=True)
    pair.exchange()
    assert calls[1].ended
    assert bool(calls[4].stream)


@pytest.mark.parametrize(
    ("code", "status", "sent"),
    [
        (0, StatusCode.INTERNAL, True),
        (1, StatusCode.INTERNAL, True),
        (2, StatusCode.INTERNAL, True),
        (engine.REFUSED_STREAM, StatusCode.UNAVAILABLE, False),
        (engine.CANCEL, StatusCode.CANCELLED, True),
        (engine.ENHANCE_YOUR_CALM, StatusCode.RESOURCE_EXHAUSTED, True),
        (engine.INADEQUATE_SECURITY, StatusCode.PERMISSION_DENIED, True),
        (0xFFFF, StatusCode.INTERNAL, True),
    ],
)
def test_a_reset_has_its_status(code: int, status: StatusCode, sent: bool) -> None:
    pair = Pair()
    call = pair.begin(make_call(b"x"))
    pair.receive(frame(RST_STREAM, 0, call.stream, code.to_bytes(4, "big")))
    error = failure(pair, call)
    assert (error.code, error.sent) == (status, sent)


def test_a_refusal_after_an_answer_is_not_believed() -> None:
    pair = Pair()
    call = pair.begin(make_call(b"x"))
    pair.server.respond(call.stream, HEAD)
    pair.exchange()
    pair.receive(frame(RST_STREAM, 0, call.stream, engine.REFUSED_STREAM.to_bytes(4, "big")))
    assert failure(pair, call).sent


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b":status", b"400")], StatusCode.INTERNAL),
        ([(b":status", b"401")], StatusCode.UNAUTHENTICATED),
        ([(b":status", b"403")], StatusCode.PERMISSION_DENIED),
        ([(b":status", b"404")], StatusCode.UNIMPLEMENTED),
        ([(b":status", b"429")], StatusCode.UNAVAILABLE),
        ([(b":status", b"502")], StatusCode.UNAVAILABLE),
        ([(b":status", b"503")], StatusCode.UNAVAILABLE),
        ([(b":status", b"504")], StatusCode.UNAVAILABLE),
        ([(b":status", b"500")], StatusCode.UNKNOWN),
        ([(b":status", b"200"), (b"content-type", b"text/html")], StatusCode.UNKNOWN),
        ([(b":status", b"200")], StatusCode.UNKNOWN),
        ([*HEAD, (b"grpc-status", b"")], StatusCode.UNKNOWN),
        ([*HEAD, (b"grpc-status", b"-1")], StatusCode.UNKNOWN),
        ([*HEAD, (b"grpc-status", b"17")], StatusCode.UNKNOWN),
        ([*HEAD, (b"grpc-status", b"0000")], StatusCode.UNKNOWN),
        ([*HEAD, (b"grpc-status", b"16")], StatusCode.UNAUTHENTICATED),
        ([(b":status", b"503"), (b"grpc-status", b"8")], StatusCode.RESOURCE_EXHAUSTED),
    ],
)
@pytest.mark.parametrize("end", [True, False])
def test_what_is_no_answer_has_its_status(headers: list[Header], status: StatusCode, end: bool) -> None:
    if not end and any(name == b"grpc-status" for name, _ in headers):
        pytest.skip("a status comes last")
    pair = Pair()
    call = pair.begin(make_call(b"x"))
    pair.server.respond(call.stream, headers, end=end)
    pair.exchange()
    assert failure(pair, call).code is status
    assert pair.session.idle


def test_calls_above_a_goaway_were_not_begun_and_the_others_go_on() -> None:
    pair = Pair(max_streams=2)
    pair.exchange()
    first, second, third = (pair.begin(make_call(b"x")) for _ in range(3))
    pair.receive(frame(GOAWAY, 0, 0, first.stream.to_bytes(4, "big") + bytes(4)))
    assert not failure(pair, second).sent
    assert isinstance(failure(pair, third), NotBegunError)
    assert pair.session.going_away
    assert isinstance(failure(pair, pair.begin(make_call(b"x"))), NotBegunError)
    pair.server.respond(first.stream, [*HEAD, *OK], end=True)
    pair.exchange()
    assert first.ended
    assert first.error is None


def test_a_server_that_ends_a_call_early_gets_no_more_requests() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1000)

    pair = Pair()
    call = ClientCall("/a.B/C", endless(), (), single=False, deadline=None)
    pair.begin(call)
    pair.server.respond(call.stream, [*HEAD, *OK], end=True)
    pair.exchange()
    assert call.ended
    assert call.error is None
    assert pair.session.idle
    assert any(type(event) is engine.StreamClosed for event in pair.events)


def test_what_makes_requests_may_fail() -> None:
    def requests() -> Iterator[bytes]:
        yield b"one"
        yield b"two"
        raise ZeroDivisionError

    pair = Pair()
    call = ClientCall("/a.B/C", requests(), (), single=False, deadline=None)
    pair.begin(call)
    with pytest.raises(ZeroDivisionError):
        call.raise_error()
    pair.exchange()
    assert pair.session.idle


def test_a_server_that_does_not_answer_a_ping_is_dead() -> None:
    pair = Pair(keepalive=10.0)
    pair.exchange()
    assert pair.session.tick(pair.now + 1000) > pair.now + 1000  # nobody is asked while there is no call
    call = pair.begin(make_call(b"x"))
    pair.now += 10.0
    again = pair.session.tick(pair.now)
    assert again == pair.now + 15.0
    pair.exchange()
    assert not call.ended
    pair.now += 10.0
    pair.session.tick(pair.now)
    assert pair.session.to_send(pair.now)  # and is never delivered
    pair.now += 15.0
    pair.session.tick(pair.now)
    error = failure(pair, call)
    assert error.code is StatusCode.UNAVAILABLE
    assert "ping" in error.details


@pytest.mark.parametrize("count", [1, 50])
def test_the_whole_window_comes_back(count: int) -> None:
    pair = Pair()
    for _ in range(count):
        call = pair.begin(make_call(b"x"))
        pair.server.respond(call.stream, HEAD)
        pair.server.send(call.stream, length_prefixed(bytes(2_000_000)) * 2)
        pair.exchange()
        assert len(pair.session.read(call) or b"") == 2_000_000
        pair.exchange()
        if count % 2:
            pair.session.end(call, CallError(StatusCode.CANCELLED))
        else:
            pair.take_all(call)
            pair.server.finish(call.stream, OK)
        pair.exchange()
    assert not pair.session.going_away


def answered(pair: Pair, stream: int) -> bytes:
    pair.server.respond(stream, HEAD)
    pair.server.send(stream, length_prefixed(b"a" * 100) + length_prefixed(b"b" * 20_000))
    pair.server.finish(stream, OK)
    return pair.server.to_send()


@given(st.lists(st.integers(1, 25_000), max_size=20))
def test_the_pieces_in_which_an_answer_comes_make_no_difference(cuts: list[int]) -> None:
    pair = Pair()
    call = pair.begin(make_call(b"x"))
    octets = answered(pair, call.stream)
    start = 0
    for cut in sorted(cuts):
        pair.receive(octets[start:cut])
        start = max(start, cut)
    pair.receive(octets[start:])
    assert pair.take_all(call) == [b"a" * 100, b"b" * 20_000]
    assert call.ended
    assert call.error is None


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 20_300), st.integers(0, 255)), max_size=6),
    st.lists(
        st.builds(
            frame,
            st.integers(0, 12),
            st.integers(0, 255),
            st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]),
            st.binary(max_size=40),
        ),
        max_size=4,
    ),
)
def test_whatever_a_server_sends_every_call_ends(changes: list[tuple[int, int]], more: list[bytes]) -> None:
    pair = Pair()
    calls = [pair.begin(make_call(b"x")), pair.begin(make_call(b"y", single=True))]
    octets = bytearray(b"".join(more) + answered(pair, 1) + b"".join(more))
    for position, value in changes:
        octets[position % len(octets)] = value
    pair.receive(bytes(octets))
    for call in calls:
        pair.take_all(call)
    pair.session.to_send(pair.now)
    pair.session.tick(pair.now + 1)
    pair.session.close("Socket closed")
    pair.session.to_send(pair.now)
    assert pair.session.idle
    for call in calls:
        assert call.ended
        assert not pair.take_all(call)


Step = Callable[[Pair, list[ClientCall], int], None]


def _begin(pair: Pair, calls: list[ClientCall], number: int) -> None:
    calls.append(make_call(bytes(number * 1000), b"", single=number % 2 == 0))
    pair.session.begin(calls[-1], pair.now)


def _end(pair: Pair, calls: list[ClientCall], number: int) -> None:
    if calls:
        pair.session.end(calls[number % len(calls)], CallError(StatusCode.CANCELLED))


def _read(pair: Pair, calls: list[ClientCall], number: int) -> None:
    for call in calls[number % 3 :: 3]:
        pair.take_all(call)


def _respond(pair: Pair, calls: list[ClientCall], number: int) -> None:
    _of_server(calls, number, lambda stream: pair.server.respond(stream, HEAD))


def _answer(pair: Pair, calls: list[ClientCall], number: int) -> None:
    _of_server(calls, number, lambda stream: pair.server.send(stream, length_prefixed(bytes(number * 5000))))


def _finish(pair: Pair, calls: list[ClientCall], number: int) -> None:
    _of_server(calls, number, lambda stream: pair.server.finish(stream, OK))


def _reset(pair: Pair, calls: list[ClientCall], number: int) -> None:
    _of_server(calls, number, lambda stream: pair.server.reset(stream, number))


def _exchange(pair: Pair, calls: list[ClientCall], number: int) -> None:
    pair.exchange()


def _of_server(calls: Iterable[ClientCall], number: int, act: Callable[[int], None]) -> None:
    begun = [call.stream for call in calls if call.stream]
    if begun:
        with suppress(StreamGoneError, EngineError):
            act(begun[number % len(begun)])


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([_begin, _end, _read, _respond, _answer, _finish, _reset, _exchange]),
            st.integers(0, 20),
        ),
        max_size=60,
    )
)
def test_whatever_both_sides_do_no_call_is_forgotten(steps: list[tuple[Step, int]]) -> None:
    pair = Pair(max_streams=3)
    calls: list[ClientCall] = []
    for step, number in steps:
        step(pair, calls, number)
    pair.exchange()
    for call in calls:
        pair.session.end(call, CallError(StatusCode.CANCELLED))
    pair.exchange()
    assert pair.session.idle
    assert pair.session.ended is None
    for call in calls:
        assert call.ended
        pair.take_all(call)
    last = pair.begin(make_call(b"x"))
    pair.server.respond(last.stream, [*HEAD, *OK], end=True)
    pair.exchange()
    assert last.ended
    assert last.error is None


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "http1.x"),
        (b"\x15\x03\x01\0\x02\x02F", "speaks TLS"),
        (frame(HEADERS, 4, 1, b"\x88"), "broke the rules"),
    ],
)
def test_what_does_not_speak_http2_is_told(octets: bytes, reason: str) -> None:
    pair = Pair()
    pair.receive(octets)
    pair.session.to_send(pair.now)
    assert pair.session.ended is not None
    assert reason in pair.session.ended
