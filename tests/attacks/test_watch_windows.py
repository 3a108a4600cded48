"""Watches whose callers open their windows in odd ways: they get the output, and take nobody else's room."""

from __future__ import annotations

import struct
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import grpc
import pytest

from remsvc_proto import RemSvc_pb2
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from tests.attacks.abuses import PING_PATH
from tests.attacks.conftest import AUTH, CREDENTIALS, METADATA, raw
from tests.attacks.raw_http2 import (
    ACK,
    DATA,
    END_STREAM,
    HEADERS,
    PING,
    SETTINGS,
    RawPeer,
    frame,
    message,
    reset,
    settings,
    window_update,
)
from tests.conftest import DEADLINE, Serve, ServerProcess

pytestmark = pytest.mark.own_http2

JOBS = "/remsvc.jobs.v1.JobService/"
MOST, WINDOW = 2**31 - 1, 65_535  # RFC 9113, sections 6.9.1 and 6.9.2
LARGEST_PIECE = 256 * 1024


class Watcher:
    """A connection whose windows open as a test likes.

    Args:
        window: bytes that it takes of each stream at first.
        connection: and of all together.

    Attributes:
        taken: bytes of data that have come, by their streams.
        ended: the streams that have.
    """

    def __init__(self, peer: RawPeer, window: int, connection: int) -> None:
        self.peer = peer
        self._frames = peer.frames()
        self._parts: dict[int, bytearray] = {}
        self._outputs: dict[int, bytearray] = {}
        self._pieces: dict[int, list[int]] = {}
        self._watched: set[int] = set()
        self._pongs = 0
        self.taken: dict[int, int] = {}
        self.ended: set[int] = set()
        peer.greet(settings((4, window))[9:])
        peer.send(frame(SETTINGS, ACK, 0))
        if connection > WINDOW:
            peer.send(window_update(0, connection - WINDOW))

    def call(self, stream: int, method: str, request: bytes) -> None:
        """Begin a call with one request."""
        self._parts[stream], self._outputs[stream], self._pieces[stream] = bytearray(), bytearray(), []
        self.taken[stream] = 0
        self.peer.call(stream, method, CREDENTIALS, body=message(request))

    def watch(self, stream: int, job: str) -> None:
        """Begin to watch a job's standard output."""
        self._watched.add(stream)
        request = jobs_pb2.WatchJobRequest(id=job, stderr_offset=-1)
        self.call(stream, JOBS + "WatchJob", request.SerializeToString())

    def output(self, stream: int) -> bytes:
        """What has come of a job's output, in whole messages."""
        return bytes(self._outputs[stream])

    def pieces(self, stream: int) -> list[int]:
        """How long the pieces were that it came in."""
        return self._pieces[stream]

    def step(self) -> None:
        """Take in the next frame. Raises ``TimeoutError`` where none comes."""
        got = next(self._frames, None)
        if got is None:
            raise ConnectionError("closed by the server")
        if got.kind == PING:
            self._pongs += 1
        elif got.kind == DATA and got.stream in self._parts:
            self.taken[got.stream] += len(got.payload)
            self._parts[got.stream] += got.payload
            self._read(got.stream)
        if got.kind in (DATA, HEADERS) and got.flags & END_STREAM:
            self.ended.add(got.stream)

    def until(self, happened: Callable[[], object]) -> None:
        """Take in frames until something has happened."""
        ends = time.monotonic() + DEADLINE
        while not happened():
            assert time.monotonic() < ends, "did not happen in time"
            self.step()

    def settle(self) -> None:
        """Wait until the server has answered to all that was sent before."""
        pongs = self._pongs
        self.peer.send(frame(PING, 0, 0, bytes(8)))
        self.until(lambda: self._pongs > pongs)

    def _read(self, stream: int) -> None:
        part = self._parts[stream]
        while len(part) >= 5 and len(part) >= 5 + (size := struct.unpack(">I", part[1:5])[0]):
            content = bytes(part[5 : 5 + size])
            del part[: 5 + size]
            if stream not in self._watched:
                continue
            event = jobs_pb2.WatchJobResponse.FromString(content)
            if event.HasField("stdout"):
                assert event.stdout.offset == len(self._outputs[stream])
                self._outputs[stream] += event.stdout.data
                self._pieces[stream].append(len(event.stdout.data))


def ended_job(server: ServerProcess, size: int) -> str:
    """The id of a job that has written so many bytes, and ended."""
    with grpc.insecure_channel(server.target) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)  # type: ignore[no-untyped-call]
        spec = jobs_pb2.JobSpec(shell_command=f"yes | head -c {size}")
        request = jobs_pb2.CreateJobRequest(request_id=uuid.uuid4().hex, spec=spec)
        job = stub.CreateJob(request, metadata=METADATA, timeout=DEADLINE)
        watch = jobs_pb2.WatchJobRequest(id=job.id, stdout_offset=-1, stderr_offset=-1)
        for _ in stub.WatchJob(watch, metadata=METADATA, timeout=DEADLINE):
            pass
        return str(job.id)


def written(size: int) -> bytes:
    """What such a job has written."""
    return (b"y\n" * (size // 2 + 1))[:size]


@contextmanager
def watching(server: ServerProcess, window: int, *, connection: int = MOST) -> Iterator[Watcher]:
    """A connection that takes so much of each stream, and of all together."""
    with raw(server) as peer:
        yield Watcher(peer, window, connection)


def ping(watcher: Watcher, stream: int) -> None:
    """Have a call answered, on a stream of its own."""
    watcher.call(stream, PING_PATH, RemSvc_pb2.PingMsg(seq=stream).SerializeToString())
    watcher.peer.send(window_update(stream, 1000))
    watcher.until(lambda: stream in watcher.ended)


def test_a_window_that_opens_by_one_byte_at_a_time(serve: Serve) -> None:
    """All comes, in order; only a kilobyte is made at a time, and other calls are answered meanwhile."""
    server = serve(AUTH)
    job = ended_job(server, 2000)
    with watching(server, 0) as watcher:
        watcher.watch(1, job)
        others = count(3, 2)
        while 1 not in watcher.ended:
            for _ in range(10):
                watcher.peer.send(window_update(1, 1))
            ping(watcher, next(others))
        assert watcher.output(1) == written(2000)
        assert max(watcher.pieces(1)) <= 1024


def test_a_window_that_opens_for_the_connection_alone(serve: Serve) -> None:
    size = 600_000
    server = serve(AUTH)
    job = ended_job(server, size)
    with watching(server, MOST, connection=WINDOW) as watcher:
        watcher.watch(1, job)
        watcher.until(lambda: watcher.taken[1] == WINDOW)
        while 1 not in watcher.ended:
            before = watcher.taken[1]
            watcher.peer.send(window_update(0, 5000))
            watcher.until(lambda: 1 in watcher.ended or watcher.taken[1] == before + 5000)  # noqa: B023
        assert watcher.output(1) == written(size)


def test_many_windows_that_are_open_while_that_of_the_connection_is_not(serve: Serve) -> None:
    """Of each watch a piece may be made before any of them is taken: in the end all have come."""
    size, streams = 400_000, range(1, 81, 2)
    server = serve(AUTH)
    job = ended_job(server, size)
    with watching(server, MOST, connection=WINDOW) as watcher:
        for stream in streams:
            watcher.watch(stream, job)
        watcher.until(lambda: sum(watcher.taken.values()) == WINDOW)
        watcher.settle()
        watcher.peer.send(window_update(0, MOST - WINDOW))
        watcher.until(lambda: watcher.ended.issuperset(streams))
        assert all(watcher.output(stream) == written(size) for stream in streams)


def test_a_window_that_becomes_smaller(serve: Serve) -> None:
    """What is worth making is what the window takes now, not what it took once."""
    size, wide, narrow = 4_000_000, 1 << 20, 1 << 16
    server = serve(AUTH)
    job = ended_job(server, size)
    with watching(server, wide) as watcher:
        watcher.watch(1, job)
        watcher.until(lambda: watcher.pieces(1))
        watcher.peer.send(settings((4, narrow)))
        may_send = narrow
        while 1 not in watcher.ended:
            watcher.step()
            if (more := watcher.taken[1] + narrow - may_send) > narrow // 2:
                watcher.peer.send(window_update(1, more))
                may_send += more
        assert watcher.output(1) == written(size)


def test_windows_that_settings_open(serve: Serve) -> None:
    """Nothing else lets the watches go on."""
    size, streams = 100_000, range(1, 41, 2)
    server = serve(AUTH)
    job = ended_job(server, size)
    with watching(server, 0) as watcher:
        for stream in streams:
            watcher.watch(stream, job)
        watcher.settle()
        watcher.peer.send(settings((4, 1 << 24)))
        watcher.until(lambda: watcher.ended.issuperset(streams))
        assert all(watcher.output(stream) == written(size) for stream in streams)


def test_watches_that_are_given_up_leave_their_room_to_others(serve: Serve) -> None:
    """While they wait for their window, and while their output is being read."""
    size = 3_000_000
    server = serve(AUTH)
    job = ended_job(server, size)
    with watching(server, WINDOW) as watcher:
        held = range(1, 41, 2)
        for stream in held:
            watcher.watch(stream, job)
        watcher.until(lambda: all(watcher.taken[stream] == WINDOW for stream in held))
        watcher.peer.send(*(reset(stream) for stream in held))
        watcher.peer.send(settings((4, 1 << 24)))
        for first in range(41, 841, 20):
            reading = range(first, first + 20, 2)
            for stream in reading:
                watcher.watch(stream, job)
            watcher.until(lambda: any(watcher.taken[stream] for stream in reading))  # noqa: B023
            watcher.peer.send(*(reset(stream) for stream in reading))
        watcher.settle()
        watcher.watch(1001, job)
        watcher.until(lambda: 1001 in watcher.ended)
        assert watcher.output(1001) == written(size)
        assert max(watcher.pieces(1001)) > LARGEST_PIECE - 100
