"""Sessions of gRPC over HTTP/2: what clients send in which pieces, what they take, and how they leave.

A session is made from a random number generator, and written down as text so that it can be played again
whatever becomes of the generator: a line for each step. Most are damaged; some stay as they should be, and
then every call must be answered.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import hpack

from remsvc_proto import RemSvc_pb2
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.attacks.raw_http2 import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    message,
)
from tests.soak.damage import Damage

TOKENS = ("a-token-of-the-soak-test-0123456789", "a-token-of-another-caller-0123456789")
_WATCH = b"/grpc.health.v1.Health/Watch"
METHODS = [
    *(
        f"/{service.full_name}/{method.name}".encode()
        for descriptor in (RemSvc_pb2.DESCRIPTOR, jobs_pb2.DESCRIPTOR)
        for service in descriptor.services_by_name.values()
        for method in service.methods
    ),
    b"/grpc.health.v1.Health/Check",
    _WATCH,
    b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
_STREAMS = b"/RS.RemSvc/RemCmdStrm"
_NO_METHODS = (b"/", b"//", b"/RS.RemSvc/Nothing", b"/\xa3/x", b"/" + b"x" * 3_000)
_NO_PATHS = (b"*", b"x", b"")
# Messages that any type takes, or none; questions to reflection.
_SMALL = (b"", b"", b"\x08\x01", b"\x0a\x03abc", b"\x0a\x00", b"\x3a\x00", b"\x22\x09RS.RemSvc", b"\xff")
_INITIAL_WINDOW, _HEADER_TABLE = 0x4, 0x1
_MANY = 1 << 40
_WIDEST = 0x7FFFFFFF
# A client that takes whatever comes from now on.
_WIDE = frame(SETTINGS, 0, 0, _INITIAL_WINDOW.to_bytes(2, "big") + _WIDEST.to_bytes(4, "big")) + frame(
    WINDOW_UPDATE, 0, 0, (_WIDEST // 2).to_bytes(4, "big")
)
# No TLS; TLS of no session: data, an alert, a change of ciphers, a hello, a record that has only begun.
_GARBLED = (
    b"GET / HTTP/1.1\r\n\r\n",
    *(bytes((kind, 3, 3, 0, 4)) + b"abcd" for kind in (20, 21, 22, 23)),
    b"\x17\x03\x03\x40\x00",
    b"\x16\x03\x01\x00\x01\x01",
)
_FRAME = 16_384
# What a client may send, on all streams together, before it is given more.
_WINDOW = 60_000
_CLIENTS, _NEW = 200, 0.05


class Step(NamedTuple):
    """One thing that happens.

    Attributes:
        act: ``plain``, ``windows``, ``tls`` or ``tls-http1``: a peer connects. ``give``: it
            sends ``data``. ``garble``: it sends it without encryption where it should be encrypted.
            ``take``: it takes ``amount`` bytes more. ``eof``: it sends nothing more. ``reset``: it is gone,
            as the server may learn only when it has written ``amount`` times. ``turn``: the loop turns
            ``amount`` times. ``pass``: so many seconds pass. ``drain``: the server takes no more calls for so
            many seconds, then ends. ``end``: it ends, within so many seconds. ``revoke``: its
            callers' token is valid no more.
        connection: which one does it.
    """

    act: str
    connection: int = 0
    amount: float = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Session:
    """What happens, and to whom.

    Attributes:
        steps: in their order.
        limits: the name of the server's.
        answers: the seed of what calls are answered.
        undamaged: whether every call must be answered.
    """

    steps: tuple[Step, ...]
    limits: str
    answers: int
    undamaged: bool = False

    def as_text(self) -> str:
        """A line for each step."""
        lines = [f"limits {self.limits}", f"answers {self.answers}"]
        lines += ["undamaged"] * self.undamaged
        lines += (f"{step.act} {step.connection} {step.amount:.17g} {step.data.hex()}" for step in self.steps)
        return "".join(line.rstrip() + "\n" for line in lines)

    @classmethod
    def from_text(cls, text: str) -> Session:
        """Back. Lines that begin with ``#`` say what it is about."""
        lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
        given = {words[0]: words[1:] for words in lines if len(words) <= 2}
        steps = tuple(
            Step(act, int(connection), float(amount), bytes.fromhex("".join(data)))
            for act, connection, amount, *data in (words for words in lines if len(words) > 2)
        )
        return cls(steps, given["limits"][0], int(given["answers"][0]), "undamaged" in given)


class Sessions:
    """Makes sessions, each from a few valid connections.

    Args:
        rng: decides everything.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        # Making one takes longest, so each is used many times, and another one takes its place.
        self._clients: dict[bool, list[_Client]] = {False: [], True: []}

    def make(self) -> Session:
        """The next one."""
        rng = self._rng
        undamaged = rng.random() < 0.2
        count = 1 if undamaged else rng.choice((1, 1, 1, 2, 3))
        each = [self._connection(number, undamaged) for number in range(count)]
        steps = [*_merged(rng, each), *self._ending(count, undamaged)]
        limits = "usual" if undamaged else rng.choice(("usual", "usual", "tight"))
        return Session(tuple(steps), limits, rng.getrandbits(32), undamaged)

    def _connection(self, number: int, undamaged: bool) -> list[Step]:
        rng = self._rng
        client = self._client(undamaged)
        frames = list(client.frames)
        if not undamaged:
            damage = Damage(rng, client.streams, gentle=rng.random() < 0.5)
            damage.apply(frames, rng.choice((0, 1, 1, 2, 3, 5, 10)))
        kind = rng.choices(("plain", "windows", "tls", "tls-http1"), (70, 10, 19, 0 if undamaged else 1))[0]
        steps = [Step(kind, number)]
        if rng.random() < 0.7:
            steps.append(Step("turn", number, rng.choice((1, 3, 10))))
        takes_all = rng.random() < 0.6
        steps.append(Step("take", number, _MANY if takes_all else rng.choice((0, 30, 1_000, 300_000))))
        calm = rng.choice((0.1, 0.5, 0.9))
        for piece in self._pieces(frames):
            steps.append(Step("give", number, 0, piece))
            if kind == "tls" and not undamaged and rng.random() < 0.01:
                steps.append(Step("garble", number, 0, rng.choice(_GARBLED)))
            if rng.random() < calm:
                continue
            steps.append(Step("turn", number, rng.choice((1, 1, 2, 4))))
            if not takes_all and rng.random() < 0.3:
                steps.append(Step("take", number, rng.choice((1, 100, 16_384, 1_000_000, _MANY))))
            if rng.random() < 0.2:
                pauses = (0.001, 0.3) if undamaged else (0.001, 0.3, 1.1, 3, 6, 15, 45, 70)
                steps.append(Step("pass", number, rng.choice(pauses)))
            if not undamaged and rng.random() < 0.03:
                steps.append(_leaving(rng, number) if rng.random() < 0.8 else Step("revoke"))
        return steps

    def _ending(self, count: int, undamaged: bool) -> Iterator[Step]:
        """How it ends; whatever then is still there, the server's own limits end."""
        rng = self._rng
        yield Step("turn", 0, rng.choice((0, 1, 3, 10)))
        if undamaged:
            yield Step("pass", 0, rng.choice((0, 0.3, 2)))
            yield Step("give", 0, 0, _WIDE)
            yield Step("turn", 0, rng.choice((0, 1, 3)))
            yield Step("take", 0, _MANY)
            return
        if rng.random() < 0.15:
            yield Step(rng.choice(("drain", "end")), 0, rng.choice((0, 0.5, 10)))
            yield Step("turn", 0, rng.choice((0, 1, 3)))
        for number in range(count):
            if rng.random() < 0.6:
                yield Step("take", number, rng.choice((0, 1_000, _MANY)))
                yield Step("pass", number, rng.choice((0, 0.3, 2, 10)))
                yield _leaving(rng, number)
                yield Step("turn", number, rng.choice((0, 1, 3)))

    def _pieces(self, frames: list[bytes]) -> Iterator[bytes]:
        """What is sent, cut into what arrives at once."""
        rng = self._rng
        dice = rng.random()
        if dice < 0.3:
            yield from frames
            return
        data = b"".join(frames)
        if dice < 0.6:
            sizes: tuple[int, ...] = (32_768, 65_536, _MANY)
        else:
            sizes = (9, 50, 200, 1_000) if len(data) < 5_000 else (9, 1_000, 10_000, 40_000)
        position = 0
        while position < len(data):
            size = rng.choice(sizes)
            yield data[position : position + size]
            position += size

    def _client(self, undamaged: bool) -> _Client:
        """A valid connection."""
        rng, clients = self._rng, self._clients[undamaged]
        if len(clients) < _CLIENTS:
            clients.append(_Client(rng, undamaged=undamaged))
            return clients[-1]
        chosen = rng.randrange(_CLIENTS)
        if rng.random() < _NEW:
            clients[chosen] = _Client(rng, undamaged=undamaged)
        return clients[chosen]


class _Client:
    """Everything that one client sends.

    Attributes:
        frames: it, the preface first.
        streams: of its calls.
    """

    def __init__(self, rng: random.Random, *, undamaged: bool) -> None:
        self._rng = rng
        self._undamaged = undamaged
        self._token = rng.choice(TOKENS).encode()
        self._window = _WINDOW  # a stranger's streams have one together
        self._encoder = hpack.Encoder()
        # Now and then one who begins calls and gives them up at once.
        self._restless = not undamaged and rng.random() < 0.01
        calls = 400 if self._restless else rng.choice((1, 1, 2, 2, 3, 5, 12, 40))
        self.streams = [1 + 2 * number for number in range(calls)]
        own = [list(self._call(stream)) for stream in self.streams]
        self.frames = [PREFACE, *self._greeting()]
        for act in _in_order(_merged(rng, own)):
            if rng.random() < 0.1:
                self.frames.append(self._aside())
            kind, flags, stream, content = act
            if kind == HEADERS:
                content = self._encoder.encode(content, huffman=rng.random() < 0.2)
                while len(content) > _FRAME:
                    self.frames.append(frame(kind, flags & ~END_HEADERS, stream, content[:_FRAME]))
                    kind, flags, content = CONTINUATION, END_HEADERS, content[_FRAME:]
            self.frames.append(frame(kind, flags, stream, content))
        if rng.random() < 0.05:
            self.frames.append(frame(GOAWAY, 0, 0, bytes(8)))

    def _greeting(self) -> Iterator[bytes]:
        rng = self._rng
        settings = b""
        if rng.random() < 0.6:
            window = rng.choice((0, 1_000, 100_000, *[_WIDEST] * 4))
            settings += _INITIAL_WINDOW.to_bytes(2, "big") + window.to_bytes(4, "big")
        if rng.random() < 0.2:
            settings += _HEADER_TABLE.to_bytes(2, "big") + rng.choice((0, 100, 65_536)).to_bytes(4, "big")
        yield frame(SETTINGS, 0, 0, settings)
        if rng.random() < 0.7:
            yield frame(WINDOW_UPDATE, 0, 0, (_WIDEST // 4).to_bytes(4, "big"))
        if self._undamaged or rng.random() < 0.9:
            yield frame(SETTINGS, ACK, 0)

    def _aside(self) -> bytes:
        """What is neither a call's beginning nor its data."""
        rng = self._rng
        stream = rng.choice(self.streams)
        kind = rng.choice((PING, PRIORITY, WINDOW_UPDATE, WINDOW_UPDATE, SETTINGS))
        if kind == PING:
            return frame(PING, 0, 0, b"01234567")
        if kind == PRIORITY:
            return frame(PRIORITY, 0, stream, b"\0\0\0\0\x10")
        if kind == SETTINGS or self._undamaged:
            return frame(SETTINGS, 0, 0)
        size = rng.choice((1, 1_000, 100_000))
        return frame(WINDOW_UPDATE, 0, rng.choice((0, stream)), size.to_bytes(4, "big"))

    def _call(self, stream: int) -> Iterator[tuple[int, int, int, Any]]:
        """The frames of a call; headers are not encoded yet, since that depends on those before."""
        rng = self._rng
        if rng.random() < 0.05:
            path = rng.choice(_NO_METHODS if self._undamaged else _NO_METHODS + _NO_PATHS)
        else:
            path = _STREAMS if rng.random() < 0.3 else rng.choice(METHODS)
            if path == _WATCH and self._undamaged:  # which has no end
                path = _STREAMS
        headers = [
            (b":method", b"POST" if rng.random() < 0.98 else b"GET"),
            (b":scheme", b"http"),
            (b":path", path),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc" if rng.random() < 0.98 else b"text/html"),
            (b"user-agent", b"soak"),
        ]
        known = rng.random() < 0.9 and not self._restless
        if known or rng.random() < 0.5:
            headers.append((b"authorization", b"Bearer " + (self._token if known else b"wrong")))
        if rng.random() < 0.2:
            value = rng.choice((b"1n", b"100m", b"1S", b"99999999H", b"0S", b"x", b"1000000000S"))
            headers.append((b"grpc-timeout", value))
        if rng.random() < 0.1:
            headers += [(b"x-some-bin", b"AAA")] * rng.choice((1, 20, 200))
        if rng.random() < 0.03:
            headers.append((b"x-large", b"y" * rng.choice((2_000, 20_000))))
        yield HEADERS, END_HEADERS, stream, headers
        if self._restless:
            yield RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")
            return
        body = self._body(stream_of_messages=path == _STREAMS)
        if not self._undamaged and rng.random() < 0.05:
            return  # a call that is never ended
        if rng.random() < 0.05:
            yield from self._data(body[: rng.randrange(len(body) + 1)], stream, end=False)
            yield RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")
        elif rng.random() < 0.05:
            yield from self._data(body, stream, end=False)
            yield HEADERS, END_HEADERS | END_STREAM, stream, [(b"x-trailer", b"1")]
        else:
            yield from self._data(body, stream, end=True)

    def _body(self, *, stream_of_messages: bool) -> bytes:
        rng = self._rng
        count = rng.choice((0, 1, 1, 2, 5, 30)) if stream_of_messages else rng.choice((0, 1, 1, 1, 1, 1, 2))
        body = b""
        for _ in range(count):
            dice = rng.random()
            if dice < 0.8:
                content = rng.choice(_SMALL)
            elif dice < 0.97:
                content = b"\x0a" + b"\xb8\x17" + b"x" * 3_000  # a text of 3,000 characters
            else:
                content = bytes(rng.choice((20_000, 40_000, 200_000)))
            body += message(content)
        if rng.random() < 0.03:
            body += rng.choice((b"\1\0\0\0\3abc", message(b"", claimed=1 << 30), message(b"ab", claimed=9)))
        if self._undamaged:
            body = body[: self._window]
            self._window -= len(body)
        return body

    def _data(self, body: bytes, stream: int, *, end: bool) -> Iterator[tuple[int, int, int, bytes]]:
        rng = self._rng
        position = 0
        while len(body) - position > _FRAME or (position < len(body) and rng.random() < 0.3):
            size = min(rng.choice((1, 5, 1_000, _FRAME)), _FRAME)
            yield DATA, 0, stream, body[position : position + size]
            position += size
        rest = body[position:]
        if end:
            yield DATA, END_STREAM, stream, rest
        elif rest:
            yield DATA, 0, stream, rest


def _leaving(rng: random.Random, number: int) -> Step:
    return Step("eof", number) if rng.random() < 0.5 else Step("reset", number, rng.choice((0, 0, 1, 2)))


def _merged(rng: random.Random, sequences: Iterable[list[Any]]) -> list[Any]:
    """All items, those of each sequence in their order."""
    waiting = [list(reversed(sequence)) for sequence in sequences if sequence]
    merged = []
    while waiting:
        chosen = rng.choice(waiting)
        # Several of one, so that each of them gets somewhere.
        for _ in range(rng.choice((1, 1, 3, 10))):
            merged.append(chosen.pop())
            if not chosen:
                waiting.remove(chosen)
                break
    return merged


def _in_order(acts: list[tuple[int, int, int, Any]]) -> Iterator[tuple[int, int, int, Any]]:
    """The same with streams numbered in the order in which they begin, as HTTP/2 has it."""
    numbers: dict[int, int] = {}
    for kind, flags, stream, content in acts:
        yield kind, flags, numbers.setdefault(stream, 2 * len(numbers) + 1), content
