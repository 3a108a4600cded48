"""The audit log's file: what is found, and how it goes on after a crash, a full disk, a rotation."""

from __future__ import annotations

import os
import resource
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.server.audit.chain import Head, HeadError, Report, encode_line, verify
from remsvc.server.audit.file import AuditFile, AuditFileInUseError, read_key

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")

RECORDS = [{"event": "decision", "command": f"echo {number}", "time": "2030"} for number in range(6)]


def read_head(path: Path) -> Head:
    return Head.decode(Path(f"{path}.head").read_bytes(), read_key(Path(f"{path}.key")))


def check(path: Path, *older: Path) -> Report:
    return verify([*older, path], read_head(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(path: Path) -> Iterator[AuditFile]:
    log = AuditFile(path)
    yield log
    log.release()


def test_a_log_goes_on_when_it_is_opened_again(path: Path, log: AuditFile) -> None:
    log.write(RECORDS[:3])
    assert check(path).problems == []
    log.release()
    log.write(RECORDS[3:])
    log.close()
    report = check(path)
    assert (report.problems, report.notes, report.first, report.closed) == ([], [], 1, True)
    assert report.lines == len(RECORDS) + 3  # twice opened, once closed
    for file in (path, Path(f"{path}.head"), Path(f"{path}.key")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Head]:
    path = tmp_path_factory.mktemp("written") / "audit.jsonl"
    log = AuditFile(path)
    log.write(RECORDS)
    log.close()
    return path.with_name("changed.jsonl"), path.read_bytes(), read_head(path)


@given(st.data())
def test_whatever_is_changed_removed_put_in_or_cut_off_is_found(
    written: tuple[Path, bytes, Head], data: st.DataObject
) -> None:
    path, original, head = written
    start = data.draw(st.integers(0, len(original) - 1))
    end = data.draw(st.integers(start, min(start + 400, len(original))))
    changed = original[:start] + data.draw(st.binary(max_size=400)) + original[end:]
    # What stands behind the last line and is not a whole one is a write that goes on just now.
    if changed == original or (changed.startswith(original) and b"\n" not in changed[len(original) :]):
        return
    path.write_bytes(changed)
    assert verify([path], head).problems


@given(st.data())
def test_whole_lines_that_are_moved_removed_or_doubled_are_found(
    written: tuple[Path, bytes, Head], data: st.DataObject
) -> None:
    path, original, head = written
    lines = original.splitlines(keepends=True)
    changed = data.draw(st.lists(st.sampled_from(lines), max_size=len(lines) + 3))
    if changed == lines:
        return
    path.write_bytes(b"".join(changed))
    assert verify([path], head).problems


def test_a_chain_made_anew_does_not_fit_the_head(path: Path, log: AuditFile, tmp_path: Path) -> None:
    """Who can write, but does not have the key, can make a chain, not its head."""
    log.write(RECORDS)
    log.close()
    forged = AuditFile(tmp_path / "forged.jsonl")
    forged.write(RECORDS[1:])
    forged.close()
    assert verify([tmp_path / "forged.jsonl"], read_head(path)).problems
    with pytest.raises(HeadError, match="not made with this log's key"):
        Head.decode((tmp_path / "forged.jsonl.head").read_bytes(), read_key(Path(f"{path}.key")))


def test_a_crash_within_a_write_at_any_byte(path: Path, log: AuditFile) -> None:
    """The part that was written is left, the next line says so, and the chain goes on."""
    log.write(RECORDS[:1])
    head_before, size = Path(f"{path}.head").read_bytes(), path.stat().st_size
    log.write(RECORDS[1:3])
    log.release()
    content = path.read_bytes()
    first_end = content.index(b"\n", size) + 1
    for kept in range(size, len(content) + 1):
        path.write_bytes(content[:kept])
        Path(f"{path}.head").write_bytes(head_before)
        log.write(RECORDS[4:5])
        log.release()
        report = check(path)
        assert report.problems == [], kept
        ends = (first_end, len(content))
        whole = sum(kept >= end - 1 for end in ends)  # only the line feed may be missing
        assert report.lines == 2 + whole + 2  # those before, those that were whole, and two new ones
        assert bool(report.notes) == (kept not in {size, *ends, *(end - 1 for end in ends)})


@pytest.mark.parametrize("room", [0, 1, 100, 200])
def test_a_disk_without_room(path: Path, log: AuditFile, room: int) -> None:
    log.write(RECORDS[:2])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, limits[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                log.write(RECORDS[2:4])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.write(RECORDS[4:])
    report = check(path)
    assert report.problems == []
    assert path.read_text().count('"command":"echo 5"') == 1


def test_rotation(path: Path, log: AuditFile, tmp_path: Path) -> None:
    log.write(RECORDS[:2])
    assert not log.rotated()
    first, second = tmp_path / "audit.jsonl.2", tmp_path / "audit.jsonl.1"
    path.rename(first)
    assert log.rotated()
    log.write(RECORDS[2:3])
    log.close()
    log.open("rotated")
    log.write(RECORDS[3:])
    log.release()
    path.rename(second)  # while no server runs
    log.write(RECORDS)
    report = check(path, first, second)
    assert (report.problems, report.notes, report.first) == ([], [], 1)
    alone = check(path)
    assert (alone.problems, len(alone.notes)) == ([], 1)
    assert check(path, second).problems == []
    assert check(path, first).problems, "the one in between is missing"
    assert check(path, second, first).problems, "in the wrong order"
    assert (verify([first]).problems, verify([first]).closed) == ([], True)


def test_a_cut_end_is_remembered(path: Path, log: AuditFile) -> None:
    log.write(RECORDS)
    log.release()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))
    assert "lines 6 to 7 are missing" in check(path).problems[0]
    log.write(RECORDS[:1])
    log.close()
    problems = check(path).problems
    assert any("the server found: the end was cut off: 2 lines, up to line 7" in line for line in problems)


@pytest.mark.parametrize("what", ["removed", "emptied", "appended to", "scribbled on"])
def test_what_somebody_does_to_the_file_meanwhile_is_remembered(
    path: Path, log: AuditFile, what: str
) -> None:
    log.write(RECORDS[:2])
    if what == "removed":
        path.unlink()
    elif what == "emptied":
        os.truncate(path, 0)
    else:
        with path.open("ab") as file:
            file.write(encode_line({"seq": 4, "prev": "0" * 64}) if what == "appended to" else b"{")
    log.write(RECORDS[2:])
    log.close()
    problems = check(path).problems
    assert any("the server found:" in problem for problem in problems)
    assert '"command":"echo 5"' in path.read_text()


@pytest.mark.parametrize("what", ["removed", "forged", "key removed"])
def test_a_head_that_is_gone_or_of_somebody_else_is_remembered(path: Path, log: AuditFile, what: str) -> None:
    log.write(RECORDS)
    log.release()
    head = Path(f"{path}.head")
    if what == "removed":
        head.unlink()
    elif what == "forged":
        head.write_bytes(head.read_bytes().replace(b'"seq":7', b'"seq":5'))
    else:
        Path(f"{path}.key").unlink()
    log.write(RECORDS)
    log.close()
    (problem,) = check(path).problems
    assert "the server found:" in problem


def test_an_older_head_proves_what_was_there_then(path: Path, log: AuditFile) -> None:
    log.write(RECORDS[:2])
    older = read_head(path)
    log.write(RECORDS[2:])
    assert verify([path], older).problems == []
    path.write_bytes(path.read_bytes().replace(b"echo 1", b"echo 9"))
    assert verify([path], older).problems


def test_what_is_no_file_of_ours_is_not_written(tmp_path: Path, log: AuditFile, path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    path.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        log.write(RECORDS)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="expected a regular file"):
        log.write(RECORDS)
    path.unlink()
    Path(f"{path}.key").write_text("k" * 64)
    Path(f"{path}.key").chmod(0o644)
    with pytest.raises(PermissionError, match="others may read the key"):
        log.write(RECORDS)
    assert elsewhere.read_text() == ""


def test_two_servers_do_not_share_a_log(log: AuditFile, path: Path) -> None:
    log.write(RECORDS)
    with pytest.raises(AuditFileInUseError, match="another server"):
        AuditFile(path).open("start")


@given(st.text())
def test_a_line_is_one_line_of_ascii(text: str) -> None:
    line = encode_line({"command": text, text: 1})
    assert line.endswith(b"\n")
    assert line[:-1].decode("ascii").isprintable()
