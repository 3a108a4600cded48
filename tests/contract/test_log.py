"""The log file."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest

from .client import bearer, refused
from .waiting import wait_until


def test_the_log_file_is_rotated(serve, connect, tmp_path: Path) -> None:
    """rotated: 10 files of 10 MB"""
    log = tmp_path / "logs" / "server.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(10 * 1024 * 1024)
    for number in range(1, 10):
        (log.parent / f"server.log.{number}").write_text(f"old {number}")
    client = connect(serve(f"[log]\nfile = {log}\n").target)
    client.run("true", src="after-rotation")
    wait_until(lambda: log.exists() and "after-rotation" in log.read_text(), "the new log file")
    files = sorted(log.parent.iterdir())
    assert len(files) == 10
    assert (log.parent / "server.log.1").stat().st_size == 10 * 1024 * 1024
    assert (log.parent / "server.log.9").read_text() == "old 8"


@pytest.mark.parametrize(
    ("level", "logged"), [("debug", True), ("info", True), ("warning", False), ("error", False)]
)
def test_the_level_decides_what_is_logged(serve, connect, tmp_path: Path, level: str, logged: bool) -> None:
    """[log] level"""
    server = serve(f"[log]\nlevel = {level}\nfile = {tmp_path}/level.log\n")
    client = connect(server.target)
    client.run("true", src="a-command")
    server.terminate()  # all is written once it has ended
    assert ("a-command" in (tmp_path / "level.log").read_text()) is logged


@pytest.mark.parametrize("path", ["/proc/no/such/directory/server.log", "/dev/null/server.log"])
def test_a_log_file_that_cannot_be_written_is_told(remsvc, tmp_path: Path, path: str) -> None:
    """Anything malformed ...: the server does not start, says ..."""
    result = remsvc("serve", "--port", "0", "--state-dir", str(tmp_path), "--log-file", path)
    assert result.returncode in (2, 255)
    assert path in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_log_holds_no_token_and_is_not_for_everybody(serve, connect, tmp_path: Path) -> None:
    """No handler ever sees the raw token; neither does whoever reads the log, however much is logged."""
    log = tmp_path / "server.log"
    right, wrong = "kJ3_x9-QzTq7LmN2-right", "kJ3_x9-QzTq7LmN2-wrong"
    server = serve(
        f"[server]\nport = 0\n[auth]\netl = {right}\nweb = $WEB\n[log]\nlevel = trace\nfile = {log}\n",
        env={"WEB": f"{right}-of-web"},
    )
    client = connect(server.target, bearer(right))
    client.run("true")
    client.ping()
    for value in (wrong, f"Bearer {wrong}", f"{right} {wrong}", f" {wrong}"):
        with refused(grpc.StatusCode.UNAUTHENTICATED):
            client.with_metadata(bearer(value)).ping()
    for metadata in ((("authorization", f"Basic {wrong}"),), (("x-token", wrong),), bearer(right + wrong)):
        with refused(grpc.StatusCode.UNAUTHENTICATED):
            client.with_metadata(metadata).ping()
    server.terminate()
    logged = log.read_text() + server.log
    assert "unauthenticated" in logged
    assert "kJ3_x9" not in logged
    assert log.stat().st_mode & 0o7777 & ~0o640 == 0
