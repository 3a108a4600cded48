"""A job's output in its file: every byte at its place, head and tail kept, and never a byte made up."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import resource
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remsvc.execution.supervisor.output import OutputFile, read_gap, read_output
from remsvc.execution.supervisor.records import Gap
from tests.small_disk import small_disk

BLOCK = 1 << 20
"""What may be kept over the limit before more is dropped."""

PATTERN = bytes(range(1, 256)) * 1024  # without a zero: those are holes


def expected(start: int, end: int) -> bytes:
    """What the command wrote from byte ``start`` to ``end``."""
    if end - start > len(PATTERN) - 255:
        return b"".join(expected(place, min(place + 100_000, end)) for place in range(start, end, 100_000))
    first = start % 255
    return PATTERN[first : first + end - start]


class Writer:
    """A command that writes through a pipe into an :class:`OutputFile`."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        reader, self._pipe = os.pipe2(os.O_CLOEXEC)
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, BLOCK)
        self.output = OutputFile(reader, path, limit, bytearray(65536))

    def write(self, size: int) -> None:
        while size > 0:
            piece = min(size, 65536)
            assert os.write(self._pipe, expected(self.output.total, self.output.total + piece)) == piece
            assert self.output.read()
            size -= piece

    def end(self) -> None:
        os.close(self._pipe)
        self.output.drain()
        assert not self.output.open
        self.output.stop_keeping()
        os.close(self.output.fd)

    def read(self, offset: int, size: int) -> tuple[int, bytes]:
        """Read, checking that it is what was written, and that only what is in the gap is left out."""
        start, data = read_output(self.path, offset, size)
        assert len(data) <= size
        assert data == expected(start, start + len(data))
        if start != offset:
            gap = self.output.gap
            assert gap.start <= offset < start == gap.end
        return start, data

    def read_all(self, size: int = 300_000) -> list[tuple[int, int]]:
        """Read from the start to the end: the pieces (from, up to) that there are."""
        pieces: list[tuple[int, int]] = []
        offset = 0
        while (found := self.read(offset, size))[1]:
            start, data = found
            offset = start + len(data)
            if pieces and pieces[-1][1] == start:
                pieces[-1] = pieces[-1][0], offset
            else:
                pieces.append((start, offset))
        return pieces


SIZES = st.one_of(st.integers(0, 300), st.integers(0, 200_000), st.integers(900_000, 1_300_000))


@settings(max_examples=200)
@given(
    limit=st.one_of(st.integers(1, 300), st.integers(1, 3_000_000)),
    sizes=st.lists(SIZES, max_size=8),
    offsets=st.lists(st.tuples(st.integers(0, 6_000_000), st.integers(1, 300_000)), max_size=8),
)
def test_any_writes_any_limit_any_offset(
    limit: int, sizes: list[int], offsets: list[tuple[int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder, "stdout"), limit)
        for size in sizes:
            writer.write(size)
            for offset, length in offsets:
                writer.read(offset, length)
        writer.end()
        total, gap = writer.output.total, writer.output.gap
        assert total == sum(sizes)
        if total <= limit:
            assert gap == Gap()
        if gap == Gap():
            assert total <= max(limit, limit - limit // 2 + BLOCK + 65536)
            assert writer.read_all() == ([(0, total)] if total else [])
        else:
            assert read_gap(writer.path) == gap
            assert gap.start == limit // 2
            assert total - gap.end >= limit - limit // 2
            kept = [(0, gap.start), (gap.end, total)] if gap.start else [(gap.end, total)]
            assert writer.read_all() == kept
            assert gap.start + total - gap.end <= limit + BLOCK + 65536
        if writer.path.exists():
            assert writer.path.stat().st_blocks * 512 <= limit + BLOCK + 3 * 65536


def test_much_output_takes_no_more_room_than_little(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "stdout", 100_000)
    for _ in range(300):
        writer.write(BLOCK + 17)
    writer.end()
    assert writer.output.total == 300 * (BLOCK + 17)
    assert writer.path.stat().st_blocks * 512 <= 100_000 + BLOCK + 3 * 65536


def test_nothing_written_nothing_there(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "stdout", 100)
    assert read_output(writer.path, 0, 10) == (0, b"")
    assert read_output(writer.path, 7, 10) == (7, b"")
    writer.end()
    assert list(tmp_path.iterdir()) == []


def test_what_comes_after_the_end_is_not_kept(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "stdout", 100)
    writer.write(10)
    writer.output.stop_keeping()
    writer.write(0)
    os.write(writer._pipe, b"late")
    assert writer.output.read()
    assert writer.output.total == 10
    writer.end()
    assert writer.read_all() == [(0, 10)]


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "job" / "stdout", 100)
    writer.write(3 * BLOCK)
    writer.end()
    assert (tmp_path / "job").stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "job").iterdir()} == {
        "stdout": 0o600,
        "stdout.gap": 0o600,
    }


def test_a_reader_never_sees_a_hole(tmp_path: Path) -> None:
    """Readers everywhere in the file, while holes are punched where they read."""
    writer = Writer(tmp_path / "stdout", 1_000_000)
    writer.write(100_000)
    done = threading.Event()
    failures: list[str] = []
    reads = [0, 0, 0, 0]

    def read(number: int) -> None:
        chance = random.Random(number)
        offset = 0
        while not done.is_set():
            if number == 0:  # one goes from the start to the end, again and again
                offset = 0 if offset >= writer.output.total else offset
            else:
                offset = chance.randrange(max(0, writer.output.total - 3_000_000), writer.output.total)
            start, data = read_output(writer.path, offset, 300_000)
            if start < offset or data != expected(start, start + len(data)):
                failures.append(f"wrong bytes at {start}, asked for {offset}")
                return
            reads[number] += 1
            offset = start + max(1, len(data))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            writer.write(1_000_003)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert min(reads) > 10
    writer.end()
    assert writer.read_all()[-1][1] == writer.output.total


# A full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for two megabytes and a few files."""
    with small_disk(tmp_path / "disk", "size=2m,nr_inodes=6") as folder:
        yield folder


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_on_a_full_disk_the_command_goes_on_and_what_is_missing_is_said(disk: Path) -> None:
    writer = Writer(disk / "stdout", 64 << 20)
    writer.write(500_000)
    fill(disk)
    writer.write(3_000_000)
    (disk / "filler").unlink()
    writer.write(700_001)
    writer.end()
    gap = writer.output.gap
    assert writer.output.total == 4_200_001
    assert 500_000 <= gap.start < 600_000
    assert 3_500_000 <= gap.end < 3_700_000
    assert writer.read_all() == [(0, gap.start), (gap.end, 4_200_001)]


def test_a_disk_that_stays_full(disk: Path) -> None:
    writer = Writer(disk / "stdout", 64 << 20)
    writer.write(10_000)
    fill(disk)
    writer.write(1_000_000)
    writer.end()
    ((_, end),) = writer.read_all()
    gap = writer.output.gap
    assert (gap.start, gap.end) == (end, 1_010_000)
    assert end >= 10_000


def test_a_disk_that_is_full_from_the_start(disk: Path) -> None:
    fill(disk)
    writer = Writer(disk / "job" / "stdout", 64 << 20)
    writer.write(100_000)
    assert writer.read_all() == []
    (disk / "filler").unlink()
    writer.write(5_000)
    writer.end()
    assert writer.output.gap == Gap(0, 100_000)
    assert writer.read_all() == [(100_000, 105_000)]


@pytest.mark.parametrize("seed", range(8))
def test_a_disk_that_is_full_now_and_then(disk: Path, seed: int) -> None:
    """Whatever comes: what can be read is right, all but the gap can be read, and the gap is dropped."""
    chance = random.Random(seed)
    writer = Writer(disk / "stdout", chance.choice([50_000, 600_000, 64 << 20]))
    for _ in range(60):
        action = chance.randrange(4)
        if action == 0:
            fill(disk)
        elif action == 1:
            (disk / "filler").unlink(missing_ok=True)
        elif action == 2 and chance.random() < 0.3:
            with contextlib.suppress(OSError):  # no more files: the gap cannot be noted
                for number in range(6):
                    (disk / f"file{number}").touch()
        elif action == 2:
            for number in range(6):
                (disk / f"file{number}").unlink(missing_ok=True)
        writer.write(chance.choice([1, 5_000, 70_000, 700_000]))
        writer.read_all()
    (disk / "filler").unlink(missing_ok=True)
    for number in range(6):
        (disk / f"file{number}").unlink(missing_ok=True)
    writer.write(5_000)
    writer.end()
    gap, total = writer.output.gap, writer.output.total
    pieces = [(0, total)] if gap == Gap() else [(0, gap.start), (gap.end, total)]
    assert writer.read_all() == [piece for piece in pieces if piece[0] < piece[1]]
    kept = total - (gap.end - gap.start)
    assert writer.path.stat().st_blocks * 512 <= kept + 2 * 65536, "what was dropped takes no room"


def test_what_could_not_be_stored_is_counted_and_why(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "stdout", 10**6)
    writer.write(1000)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limit[1]))  # in place of a full disk
    try:
        writer.write(5000)
        assert (writer.output.total, writer.output.lost) == (6000, 3000)
        assert writer.output.why_lost == os.strerror(errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    writer.write(500)
    writer.end()
    assert (writer.output.total, writer.output.lost) == (6500, 3000)
    assert read_gap(writer.path) == Gap(3000, 6000)


def test_what_is_over_the_limit_is_not_lost(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "stdout", 1000)
    writer.write(4 * BLOCK)
    writer.end()
    assert writer.output.lost == 0
