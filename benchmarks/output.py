"""Output: how fast it comes back, and what memory the server needs meanwhile.

A command prints a text of 256 KiB, 50 MB or 1 GB (``cat`` of files that are in the page cache), or 5 MB on
standard error. It is captured by version 1, and by a durable job that is created and watched to its end.
Everything that comes back is kept and counted; the rate is of the bytes that were printed. The reference is
the same command captured with plain pipes in Python (``subprocess.run``, read to the end). The client is
included: gRPC's own blocking stubs, over one connection, plaintext.

Version 1 answers with one message and keeps at most 16 MiB of an output, however high ``max_output_bytes``:
more cannot be had through it. Those rows say so: everything is printed, 16 MiB come back.

Peak memory is the most that was resident of the server's process, or of its supervisors together, since
just before the command (``VmHWM``); to the server's is added what the machine's shared memory grew by
meanwhile (``Shmem``), because files in memory count for no process.
"""

from __future__ import annotations

import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from benchmarks.rows import Rounds, Row
from benchmarks.server import Server
from benchmarks.settings import Settings
from remsvc.client import job_protocol, protocol
from remsvc.client.jobs import MOST_OUTPUT, JobSpec
from remsvc.command import Command
from remsvc_proto import RemSvc_pb2
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

if TYPE_CHECKING:
    UnaryMethod = grpc.UnaryUnaryMultiCallable[bytes, bytes]
    WatchMethod = grpc.UnaryStreamMultiCallable[bytes, bytes]

GROUP = "output"
_LINE = "2026-01-31T12:00:00.000Z INFO worker[4711]: as long as the lines of logs usually are, caf\u00e9\n"
_KEPT = 16 * 1024 * 1024
"""Bytes: the server's maximum of ``max_output_bytes``."""
_SECONDS = 120.0
_LOOK_SECONDS = 0.005


@dataclass(frozen=True)
class Text:
    """What a command prints: how much of it, in words and bytes, and by which shell command."""

    name: str
    size: int
    command: str
    stderr: bool = False
    repeated: int = 1


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    fifty = _text_file(settings.folder / "fifty", 50_000_000)
    small = _text_file(settings.folder / "small", 256 * 1024)
    five = _text_file(settings.folder / "five", 5_000_000)
    times = settings.amount(20, 4)
    texts = (
        Text("256 KiB", 256 * 1024, f"cat {small}", repeated=20),
        Text("50 MB", 50_000_000, f"cat {fifty}"),
        Text(
            f"{times * 50_000_000 / 1e9:g} GB",
            times * 50_000_000,
            f"for i in $(seq {times}); do cat {fifty}; done",
        ),
        Text("5 MB on stderr", 5_000_000, f"cat {five} >&2", stderr=True, repeated=4),
    )
    times = settings.amount(10, 2)
    much = Text(f"{times * 50} MB", times * 50_000_000, f"for i in $(seq {times}); do cat {fifty}; done")
    rounds = Rounds(GROUP, settings.amount(3, 2))
    with ExitStack() as stack:
        most = f"max_output_bytes = {_KEPT}\n"
        server = stack.enter_context(Server(settings, "output", server_keys=most))
        watched = stack.enter_context(Server(settings, "watched"))
        default = stack.enter_context(Server(settings, "default"))
        channel = stack.enter_context(server.channel())
        watched_channel = stack.enter_context(watched.channel())
        default_channel = stack.enter_context(default.channel())
        for text in texts:
            plain = f"{text.name}, plain pipes in Python"
            rounds.add(_rate(text, _plain), Row(GROUP, plain, "MB/s"), seconds=_SECONDS)
            cut = text.size > _KEPT
            note = "16 MiB of it come back: version 1 has no more" if cut else ""
            _add(
                rounds,
                text,
                "version 1",
                server,
                _version_1(channel, min(text.size, _KEPT)),
                plain,
                note=note,
            )
            target = 1.0 if text.size == 50_000_000 else None
            _add(rounds, text, "durable and watched", watched, _watch(watched_channel), plain, target=target)
        cut_short = _version_1(default_channel, 256 * 1024)
        note = "256 KiB of it come back, the default"
        _add(rounds, much, "version 1, truncated", default, cut_short, memory_target=60, note=note)
        return rounds.run()


Capture = Callable[[Text], None]
"""Has a text printed, and checks what comes back."""


def _add(
    rounds: Rounds,
    text: Text,
    how: str,
    server: Server,
    capture: Capture,
    reference: str = "",
    *,
    target: float | None = None,
    memory_target: float | None = None,
    note: str = "",
) -> None:
    """The rate of one way to capture a text, and the memory that it takes."""
    name = f"{text.name}, {how}"
    memory, supervisors = f"{name}: server's peak memory", f"{name}: supervisors' peak memory"
    rate = _rate(text, capture)

    def figures() -> dict[str, float]:
        server.forget_peak()
        with _shared_memory_growth() as growth:
            result = rate()
        peak = server.peak_memory()
        return {name: result, memory: peak.server + growth[0], supervisors: peak.supervisors}

    rounds.add(
        figures,
        Row(GROUP, name, "MB/s", reference=reference, target=target, of_ratio=True, note=note),
        Row(GROUP, memory, "MB", target=memory_target, target_is="at most"),
        Row(GROUP, supervisors, "MB"),
        seconds=_SECONDS,
    )


def _rate(text: Text, capture: Capture) -> Callable[[], float]:
    """MB per second that are printed and captured."""

    def measurement() -> float:
        started = time.perf_counter()
        for _ in range(text.repeated):
            capture(text)
        return text.size * text.repeated / 1e6 / (time.perf_counter() - started)

    return measurement


def _plain(text: Text) -> None:
    command = ["/bin/sh", "-c", text.command]
    result = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)
    _expect(text.size, len(result.stderr if text.stderr else result.stdout))


def _version_1(channel: grpc.Channel, kept: int) -> Capture:
    run: UnaryMethod = channel.unary_unary(protocol.RUN)

    def capture(text: Text) -> None:
        message = run(protocol.encode_command(Command(text.command), 1))
        answer = RemSvc_pb2.RemResMsg.FromString(message)
        if answer.rc != 0 or not (answer.err if text.stderr else answer.out):
            raise RuntimeError(f"rc {answer.rc}: {answer.err[:100]}")
        # The message is little but the output: where it was cut, a line says so, and no character is cut.
        if not kept - 4 <= len(message) <= kept + 200:
            raise RuntimeError(f"{len(message):,} bytes came back, not {kept:,}")

    return capture


def _watch(channel: grpc.Channel) -> Capture:
    create: UnaryMethod = channel.unary_unary(job_protocol.CREATE)
    watch: WatchMethod = channel.unary_stream(job_protocol.WATCH)

    def capture(text: Text) -> None:
        spec = JobSpec(text.command, output_limit=MOST_OUTPUT)
        job = jobs_pb2.Job.FromString(create(job_protocol.encode_create(spec, uuid.uuid4().hex)))
        pieces, event = list[bytes](), jobs_pb2.WatchJobResponse()
        for message in watch(jobs_pb2.WatchJobRequest(id=job.id).SerializeToString(), timeout=_SECONDS):
            event = jobs_pb2.WatchJobResponse.FromString(message)
            pieces.append(event.stderr.data if text.stderr else event.stdout.data)
        if event.job.state != jobs_pb2.SUCCEEDED:
            raise RuntimeError(f"job {job.id} did not succeed")
        _expect(text.size, len(b"".join(pieces)))

    return capture


def _expect(size: int, found: int) -> None:
    if found != size:
        raise RuntimeError(f"{found:,} bytes came back, not {size:,}")


def _text_file(path: Path, size: int) -> Path:
    """A file of so many bytes of text, the last line filled up."""
    line = _LINE.encode()
    lines, rest = divmod(size, len(line))
    path.write_bytes(line * lines + b"." * rest)
    return path


@contextmanager
def _shared_memory_growth() -> Iterator[list[float]]:
    """MB by which the machine's shared memory is ever more than at first; looked at every 5 ms."""
    growth, first, over = [0.0], _shared_memory(), threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            growth[0] = max(growth[0], _shared_memory() - first)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield growth
    finally:
        over.set()
        looking.join()


def _shared_memory() -> float:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
