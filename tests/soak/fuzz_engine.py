"""Look for crashes, leaks and undocumented errors of the HTTP/2 engine, best built with the sanitizers.

    scripts/sanitized_ngh2.sh .venv-sanitized
    PYTHONPATH=src:. .venv-sanitized/bin/sanitized-python -m tests.soak.fuzz_engine [--seconds N] [--seed S]
    … --replay FILE

Each session joins two engines, the target (server or client) and its peer. Both do at random what a
connection may do with its engine, and what the peer sends is damaged on its way to the target. What the
target answers reaches the peer unharmed, so that sessions get deep. Some stay undamaged: then no error may
come of it, and every byte must arrive.

Every call on the target is written to a file before it is made: what to play again, also where the process
dies in the middle of it.
"""

from __future__ import annotations

import ast
import contextlib
import faulthandler
import os
import random
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from remsvc.http2 import engine
from remsvc.http2.engine import EngineError, Header, Http2Engine, Http2Event, StreamGoneError
from tests.attacks.raw_http2 import PREFACE
from tests.soak.damage import Damage
from tests.soak.search import Finding, Progress, parse_arguments

_REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/c"), (b":authority", b"x")]
_RESPONSE = [(b":status", b"200")]
_CODES = (0, 1, 2, 7, 8, 11, 0xFFFFFFFF)
_LONG_TEXT = 70_000  # longer than a list of headers may be that is sent

Call = Callable[..., Any]


class Target:
    """An engine with every call on it written down before it is made."""

    def __init__(self, log: int, options: dict[str, Any]) -> None:
        self._log = log
        os.ftruncate(log, 0)
        os.lseek(log, 0, os.SEEK_SET)
        self._write(options)
        self._engine = Http2Engine(**options)

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        self._write((method, args, options))
        return perform(self._engine, method, args, options)

    def _write(self, entry: object) -> None:
        os.write(self._log, repr(entry).encode() + b"\n")


def perform(engine: Http2Engine, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Make one call, or look at one property."""
    attribute = getattr(engine, method)
    return attribute(*args, **options) if callable(attribute) else attribute


class Program:
    """What a connection does with its engine, at random, and a memory of what came of it.

    Args:
        call: calls a method of the engine.
        server: which side it is.
        orderly: whether it does only what ends no stream.

    Attributes:
        streams: that have begun.
        sent: the data of each stream that was sent.
        received: the data of each stream that came, where the program is orderly.
        errors: what ended with one.
    """

    def __init__(self, call: Call, rng: random.Random, *, server: bool, orderly: bool) -> None:
        self._call, self._rng = call, rng
        self._server, self._orderly = server, orderly
        self.streams: list[int] = []
        self.sent: dict[int, bytearray] = defaultdict(bytearray)
        self.received: dict[int, bytearray] = defaultdict(bytearray)
        self.errors: list[Http2Event] = []
        weights: dict[Callable[[int], object], int] = {self._open: 30, self._send: 32}
        if not orderly:
            weights |= {self._finish: 10, self._reset: 5, self._ping: 3, self._widen: 5, self._look: 4}
            weights |= {self._announce_shutdown: 1, self._terminate: 1}
        self._actions, self._weights = list(weights), list(weights.values())

    def act(self, most: int) -> None:
        """Do up to ``most`` random things, mostly on a stream that is likely to be open."""
        rng = self._rng
        for _ in range(rng.randrange(most)):
            known = self.streams[-6:] if rng.random() < 0.8 else self.streams
            odd = not known or (not self._orderly and rng.random() < 0.03)
            stream = rng.choice((1, 2, 3, 99) if odd else known)
            rng.choices(self._actions, self._weights)[0](stream)

    def take(self, events: list[Http2Event]) -> None:
        """What a connection does with events: note them, and acknowledge all data."""
        for event in events:
            if isinstance(event, engine.RequestReceived):
                self.streams.append(event.stream_id)
            elif isinstance(event, engine.DataReceived):
                if self._orderly:
                    self.received[event.stream_id] += event.data
                if event.data:
                    self._try("acknowledge", event.stream_id, len(event.data))
            elif isinstance(event, engine.StreamClosed | engine.ConnectionClosed) and event.error_code:
                self.errors.append(event)

    def _try(self, method: str, *args: Any, **options: Any) -> Any:
        """One call, which may be refused for what the peer has done."""
        with contextlib.suppress(EngineError, StreamGoneError):
            return self._call(method, *args, **options)
        return None

    def _headers(self, first: list[Header]) -> list[Header]:
        rng = self._rng
        headers = [*first, (b"te", b"trailers")]
        for _ in range(0 if self._orderly else rng.choice((0, 0, 1, 3, 20))):
            name = rng.choice((b"a", b"grpc-timeout", b"x-" * 20))
            headers.append((name, rng.randbytes(4).hex().encode() * rng.choice((0, 1, 9, 400))))
        if not self._orderly and rng.random() < 0.1:
            headers.append(rng.choice([(b"content-length", b"3000"), (b"grpc-message", b"m" * _LONG_TEXT)]))
        return headers

    def _open(self, stream: int) -> None:
        if not self._server:
            if begun := self._try("request", self._headers(_REQUEST)):
                self.streams.append(begun)
        else:
            end = not self._orderly and self._rng.random() < 0.1
            self._try("respond", stream, self._headers(_RESPONSE), end=end)

    def _send(self, stream: int) -> None:
        rng = self._rng
        body = rng.randbytes(8) * rng.choice((0, 1, 2, 375, 600, 2_500, 10_000))
        before = self._call("queued", stream)
        self._try("send", stream, body, end=not self._orderly and rng.random() < 0.2)
        if self._call("queued", stream) == before + len(body):
            self.sent[stream] += body

    def _finish(self, stream: int) -> None:
        message = b"x" * self._rng.choice((0, 10, _LONG_TEXT))
        self._try("finish", stream, [(b"grpc-status", b"0"), (b"grpc-message", message)])

    def _reset(self, stream: int) -> None:
        self._try("reset", stream, self._rng.choice(_CODES))

    def _ping(self, _: int) -> None:
        self._try("ping")

    def _widen(self, stream: int) -> None:
        self._try("widen", stream, self._rng.choice((65_535, 1 << 20, 16 << 20)))

    def _look(self, _: int) -> None:
        total = self._call("queued")
        parts = sum(self._call("queued", known) for known in {*self.streams, 1, 2, 3, 99})
        if parts != total:
            raise Finding(f"{total} bytes are queued, and those of the streams are {parts}")

    def _announce_shutdown(self, _: int) -> None:
        if self._server:
            self._try("announce_shutdown")

    def _terminate(self, _: int) -> None:
        if self._rng.random() < 0.3:
            self._try("terminate", self._rng.choice((0, 1, 11)))


class Session:
    """One life of a target, from its first SETTINGS to the end of either side."""

    def __init__(self, log: int, rng: random.Random) -> None:
        self._rng = rng
        self.undamaged = rng.random() < 0.125
        server = rng.random() < 0.5
        self._target = Target(log, _options(rng, server=server, usual=self.undamaged))
        self._peer = Http2Engine(**_options(rng, server=not server, usual=True))
        self._peer_lives = True
        self._program = Program(self._target, rng, server=server, orderly=self.undamaged)
        self._partner = Program(self._call_peer, rng, server=not server, orderly=self.undamaged)
        self._damage = Damage(rng, self._partner.streams, gentle=rng.random() < 0.5)
        # How often: most connections end at the first gross error.
        self._damaged = rng.choice((0.05, 0.2, 0.6))
        self._in_pieces = rng.random() < 0.6

    def run(self) -> None:
        """Live it. Raises :class:`Finding`, or :class:`EngineError` where the target has ended."""
        rng = self._rng
        for _ in range(rng.choice((3, 10, 30))):
            self._partner.act(5)
            self._to_target()
            self._program.act(5)
            if rng.random() < 0.8:
                self._to_peer()
        if self.undamaged:
            self._come_to_rest()

    def check_end(self, error: EngineError) -> None:
        """The target has ended: it must stay so, and harmless."""
        if self.undamaged:
            raise Finding(f"an undamaged session was ended: {error!r}") from error
        self._target("late_events")
        for method, args in {"receive": (b"x",), "to_send": (), "ping": ()}.items():
            with contextlib.suppress(EngineError):
                self._target(method, *args)

    def _call_peer(self, method: str, *args: Any, **options: Any) -> Any:
        return perform(self._peer, method, args, options)

    def _to_target(self) -> bool:
        """Hand what the peer has to say to the target, damaged and in pieces; False if it has nothing."""
        data = b""
        if self._peer_lives:
            try:
                data = self._peer.to_send()
                self._partner.take(self._peer.late_events())
            except EngineError:
                self._peer_lives = False
        if not self.undamaged and self._rng.random() < self._damaged:
            frames = list(_frames_of(data))
            self._damage.apply(frames, self._rng.choice((1, 1, 2, 5)))
            data = b"".join(frames)
        position = 0
        while position < len(data):
            size = self._rng.choice((1, 9, 50, 1_000, 16_384)) if self._in_pieces else len(data)
            piece = data[position : position + size]
            position += size
            self._program.take(self._target("receive", piece))
            if self._rng.random() < 0.1:
                # Also in the middle of a frame: this is where a stream may end while it is being received.
                self._program.act(2)
                self._to_peer()
        return bool(data)

    def _to_peer(self) -> bool:
        """Hand what the target has to say to the peer; False if it has nothing."""
        output = self._target("to_send")
        self._program.take(self._target("late_events"))
        if self._peer_lives:
            try:
                self._partner.take(self._peer.receive(output))
            except EngineError as error:
                self._peer_lives = False
                if self.undamaged:
                    raise Finding(f"an undamaged peer refused what the target sent: {error!r}") from error
        return bool(output)

    def _come_to_rest(self) -> None:
        """Let an undamaged session go on until nothing moves, and compare what was sent with what came."""
        while self._to_target() | self._to_peer():
            pass
        for sender, receiver in ((self._program, self._partner), (self._partner, self._program)):
            if sender.errors:
                raise Finding(f"an undamaged session had errors: {sender.errors}")
            for stream, body in sender.sent.items():
                if receiver.received[stream] != body:
                    raise Finding(f"stream {stream}: {len(body)} bytes sent, others came")


def _options(rng: random.Random, *, server: bool, usual: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"server": server, "max_streams": 100, "max_headers": 256}
    options |= {"header_bytes": 16_384, "header_bytes_taken": 65_536, "connection_window": 1 << 24}
    if not usual and rng.random() < 0.4:
        options |= {"max_streams": 1, "max_headers": 16, "resets": (5, 1)}
        options |= {"header_bytes": 1_024, "header_bytes_taken": 2_048, "connection_window": 100_000}
    return options


def _frames_of(data: bytes) -> Iterator[bytes]:
    """Cut output into frames; a client's preface counts as one."""
    if data.startswith(PREFACE):
        yield PREFACE
        data = data[len(PREFACE) :]
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        yield data[:end]
        data = data[end:]


def play_one(log: int, rng: random.Random) -> str:
    """Play one session. Returns how it ended. Raises whatever is a finding."""
    session = Session(log, rng)
    try:
        session.run()
    except EngineError as error:
        session.check_end(error)
        return "ended by the target"
    return "undamaged" if session.undamaged else "damaged"


def search(seconds: float, seed: int, corpus: Path) -> int:
    """Play new sessions. Returns the exit code."""
    corpus.mkdir(parents=True, exist_ok=True)
    running = corpus / f"engine-{seed}"
    log = os.open(running, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    progress, ends = Progress(seconds, seed), Counter[str]()
    try:
        while progress.goes_on():
            # Each has a seed of its own, so that it can be made again without those before it.
            ends[play_one(log, random.Random(f"{seed}/{progress.sessions}"))] += 1
    except Exception as error:  # noqa: BLE001  a Finding, or an error that is none of those documented
        traceback.print_exc()
        print(f"FINDING in session {seed}/{progress.sessions}: {error!r}\nkept in {running}", flush=True)
        return 1
    finally:
        os.close(log)
    running.unlink()
    progress.say()
    print(", ".join(f"{count:,} {end}" for end, count in ends.items()))
    return 0


def replay(path: Path, show: Callable[[str], object] = print) -> None:
    """Make the same calls again, and show each with what came of it. Raises what is not documented."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    target = Http2Engine(**ast.literal_eval(lines[0]))
    for line in lines[1:]:
        method, args, options = ast.literal_eval(line)
        try:
            came = perform(target, method, args, options)
        except (EngineError, StreamGoneError) as error:
            came = error
        show(f"{method} {args!r:.100} {options or ''} -> {came!r:.300}")


def main() -> int:
    """The program."""
    arguments = parse_arguments(__doc__)
    faulthandler.enable()
    if arguments.replay:
        replay(arguments.replay)
        return 0
    return search(arguments.seconds, arguments.seed, arguments.corpus)


if __name__ == "__main__":
    sys.exit(main())
