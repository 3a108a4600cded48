"""Services whose methods answer at random: at once, late or never, much or nothing, well or not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from remsvc.http2.messages import prefix
from remsvc.server.calls.call import Call
from remsvc.server.calls.health import HealthService
from remsvc.server.calls.methods import Method, Methods, Requests, methods_of
from remsvc.server.calls.reflection import ReflectionService
from remsvc.server.http2.call import Http2Call
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.status import StatusCode
from remsvc_proto import RemSvc_pb2
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

_SERVICES = (
    RemSvc_pb2.DESCRIPTOR.services_by_name["RemSvc"],
    jobs_pb2.DESCRIPTOR.services_by_name["JobService"],
)
_SIZES = (0, 0, 3, 10, 10, 1_000, 1_000, 4_096, 5_000, 20_000, 100_000, 100_000)
_LARGE_SIZES = (5_000, 100_000, 400_000, 1_500_000)
_LONGEST_REQUEST = 4 * 1024**2
_FOR_EVER = 1e6
_PAUSES = (0.0, 0.0, 0.001, 0.2, 0.5)
_REASONS = ("", "denied", "100 % sure\n", "\N{GREEK SMALL LETTER PHI}" * 300, "x" * 9_000)

Stream = tuple[int, int]
"""A connection's number in its session, and the stream of a call on it."""


class CrashError(Exception):
    """A mistake of a handler's, as the server has to bear it."""


class Answers:
    """Handlers for all methods that there are.

    Args:
        draining: done when the server is shutting down.

    Attributes:
        written: the data that each call was answered with so far, as it must arrive.
        statuses: how each call was answered that was answered to its end.
        hanging: the calls that will never be answered.
    """

    def __init__(self, draining: asyncio.Future[None]) -> None:
        self.begin(0)
        names = [service.full_name for service in _SERVICES]
        services = [self._service(service) for service in _SERVICES]
        health, reflection = HealthService(names, draining), ReflectionService(names)
        self.methods: Methods = methods_of(*services, health.methods(), reflection.methods())

    def begin(self, seed: int) -> None:
        """Begin a session. ``seed`` decides how each of its calls is answered; in every tenth, at length."""
        self._seed = seed
        self.written: dict[Stream, bytearray] = {}
        self.statuses: dict[Stream, StatusCode] = {}
        self.hanging: set[Stream] = set()

    def _service(self, service: Any) -> Iterator[Method]:
        for method in service.methods:
            name, request = f"/{service.full_name}/{method.name}", method.input_type._concrete_class
            if method.client_streaming:
                yield Method(name, request, _LONGEST_REQUEST, stream=self._stream)
            elif method.server_streaming:
                yield Method(name, request, _LONGEST_REQUEST, many=self._many)
            else:
                yield Method(name, request, _LONGEST_REQUEST, one=self._one)

    async def _one(self, request: Any, call: Call) -> bytes:
        with self._noted(call) as (rng, written):
            await self._pause(rng, call)
            self._fail_perhaps(rng)
            return self._message(rng, written)

    async def _many(self, request: Any, call: Call) -> AsyncIterator[bytes]:
        with self._noted(call) as (rng, written):
            for _ in range(rng.choice((0, 1, 2, 5, 20))):
                await self._pause(rng, call)
                yield self._message(rng, written)
            self._fail_perhaps(rng)

    async def _stream(self, requests: Requests, call: Call) -> None:
        with self._noted(call) as (rng, written):
            if rng.random() < 0.4:
                await self._read_ahead(requests, call, rng, written)
            else:
                for _ in range(rng.choice((0, 1, 3, 1_000))):
                    if await requests.read() is None:
                        break
                    await self._pause(rng, call)
                    for _ in range(rng.choice((0, 1, 1, 3))):
                        await call.write(self._message(rng, written))
                    requests.answered()
            self._fail_perhaps(rng)

    async def _read_ahead(
        self, requests: Requests, call: Call, rng: random.Random, written: bytearray
    ) -> None:
        """Read and write at the same time, as streams of commands do."""
        reading = asyncio.ensure_future(requests.read())
        try:
            while (request := await reading) is not None:
                reading = asyncio.ensure_future(requests.read())
                await self._pause(rng, call)
                if request is not None:
                    await call.write(self._message(rng, written))
                requests.answered()
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.exception()

    @contextmanager
    def _noted(self, call: Call) -> Iterator[tuple[random.Random, bytearray]]:
        stream = _stream_of(call)
        rng = random.Random(hash((self._seed, *stream)))
        written = self.written.setdefault(stream, bytearray())
        if rng.random() < 0.1:
            call.set_trailers((("some-text", "x" * 20), ("some-bin", b"\0\xff" * 20)))
        try:
            yield rng, written
        except RefusedError as refused:
            self.statuses[stream] = refused.code
            raise
        except CrashError:
            self.statuses[stream] = StatusCode.UNKNOWN
            raise
        else:
            self.statuses[stream] = StatusCode.OK

    def _message(self, rng: random.Random, written: bytearray) -> bytes:
        size = rng.choice(_LARGE_SIZES if self._seed % 10 == 0 else _SIZES)
        message = rng.randbytes(8) * (size // 8)
        written += prefix(len(message)) + message
        return message

    async def _pause(self, rng: random.Random, call: Call) -> None:
        dice = rng.random()
        if dice < 0.5:
            return
        if dice > 0.97:
            self.hanging.add(_stream_of(call))
        try:
            await asyncio.sleep(rng.choice(_PAUSES) if dice <= 0.97 else _FOR_EVER)
        except asyncio.CancelledError:
            if dice < 0.7:
                await asyncio.sleep(rng.choice(_PAUSES))  # some take a while to end
            raise

    def _fail_perhaps(self, rng: random.Random) -> None:
        dice = rng.random()
        if dice < 0.01:
            raise CrashError
        if dice < 0.1:
            raise exhausted(rng.choice(_REASONS), 1.0)
        if dice < 0.2:
            raise RefusedError(rng.choice(list(StatusCode)[1:]), rng.choice(_REASONS))


def _stream_of(call: Call) -> Stream:
    assert isinstance(call, Http2Call)
    return int(call.peer.rpartition(":")[2]), call.stream
