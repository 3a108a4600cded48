"""Clients that are none of ours, against our server: ``make foreign``. What is missing is installed into a
folder of the system's temporary one, or skipped with the reason where that cannot be done."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from remsvc_proto import RemSvc_pb2
from tests.attacks.abuses import COMMAND_PATH, PING_PATH
from tests.attacks.conftest import AUTH, TOKEN
from tests.attacks.raw_http2 import message
from tests.conftest import Serve, ServerProcess

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "foreign_clients"
CACHE = Path(tempfile.gettempdir()) / "remsvc-foreign-clients"
_INSTALL_SECONDS, _SECONDS = 300, 120

ENDS: dict[str, tuple[int, str, int | None]] = {
    "a command": (0, "müsli\n", None),
    "a large answer": (0, "xxx", 200_000),
    "a stream": (0, "1\n2\n3\n4\n", None),
    "no token": (16, "missing Authorization header", None),
    "no token on a stream": (16, "missing Authorization header", None),
    "a denied command": (7, "01_rm", None),
    "an unknown method": (12, "Method not found!", None),
    "a message that is too large": (8, "larger than max", None),
    "a deadline": (4, "", None),
}
"""How each call of the scripts ends: the status's number, what its text has in it, the text's length."""


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module(f"{AUTH}[denylist]\n01_rm = ^rm\n[limits]\nmax_message_bytes = 100000\n")


def test_grpc_js(server: ServerProcess) -> None:
    folder = CACHE / "npm"
    if not (folder / "node_modules" / "@grpc" / "grpc-js").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _install(
            [_program("npm"), "install", "--no-audit", "--no-fund", "@grpc/grpc-js", "@grpc/proto-loader"],
            folder,
        )
    script = folder / "statuses.js"
    shutil.copy(SCRIPTS / script.name, script)
    proto = str(ROOT / "proto" / "RemSvc.proto")
    _check(_run([_program("node"), str(script), proto, server.target, TOKEN]))


@pytest.mark.parametrize("version", ["1.67.1", "newest"])
def test_grpcio(server: ServerProcess, version: str) -> None:
    """The oldest that our clients take, and the newest, whichever is beside the server."""
    folder = CACHE / f"grpcio-{version}"
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        _install([sys.executable, "-m", "venv", "--clear", str(folder)], CACHE)
        package = "grpcio" if version == "newest" else f"grpcio=={version}"
        _install([str(python), "-m", "pip", "install", "--quiet", package], CACHE)
        (folder / "installed").touch()
    _check(_run([str(python), str(SCRIPTS / "statuses.py"), server.target, TOKEN]))


def test_curl(server: ServerProcess, tmp_path: Path) -> None:
    command = RemSvc_pb2.RemCmdMsg(cmd="echo hello").SerializeToString()
    (tmp_path / "request").write_bytes(message(command))
    seen = {
        token: _run(
            [
                *(_program("curl"), "--silent", "--http2-prior-knowledge", "--max-time", "30"),
                *("--request", "POST", "--data-binary", f"@{tmp_path}/request", "--dump-header", "-"),
                *("--header", "content-type: application/grpc", "--header", "te: trailers"),
                *("--header", f"authorization: Bearer {token}", f"http://{server.target}{COMMAND_PATH}"),
            ]
        )
        for token in (TOKEN, "wrong")
    }
    assert "HTTP/2 200" in seen[TOKEN]
    assert "hello" in seen[TOKEN]
    assert "grpc-status: 0" in seen[TOKEN]
    assert "grpc-status: 16" in seen["wrong"]


def test_nghttp(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "request").write_bytes(message())
    command = [_program("nghttp"), "--verbose", "--data", f"{tmp_path}/request"]
    for header in _HEADERS:
        command += ["--header", header]
    seen = _run([*command, f"http://{server.target}{PING_PATH}"])
    assert "grpc-status: 0" in seen


def test_h2load(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "request").write_bytes(message())
    command = [_program("h2load"), "--requests", "2000", "--clients", "8", "--max-concurrent-streams", "16"]
    for header in _HEADERS:
        command += ["--header", header]
    seen = _run([*command, "--data", f"{tmp_path}/request", f"http://{server.target}{PING_PATH}"])
    assert "2000 succeeded, 0 failed, 0 errored" in seen
    assert "2000 2xx" in seen


_HEADERS = (
    "content-type: application/grpc",
    "te: trailers",
    f"authorization: Bearer {TOKEN}",
    ":method: POST",
)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here")
    return found


def _install(command: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"cannot be installed: {command[-1]}: it takes too long")
    if done.returncode:
        pytest.skip(f"cannot be installed: {command[-1]}: {done.stderr.strip()[-200:]}")


def _run(command: list[str]) -> str:
    """What a program prints, which must succeed."""
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="replace")


def _check(printed: str) -> None:
    seen: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    assert seen.keys() == ENDS.keys()
    for name, (code, text, length) in ENDS.items():
        assert seen[name][0] == code, (name, seen[name])
        assert text in seen[name][1], (name, seen[name])
        assert length is None or seen[name][2] == length, (name, seen[name])
