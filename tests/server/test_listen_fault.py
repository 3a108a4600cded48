"""Why a server cannot listen is told as what it is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from remsvc.http2 import engine_is_installed

TRANSPORTS = ["grpc", *(["http2"] if engine_is_installed() else [])]


def told(state: Path, *arguments: str) -> str:
    """What a server says that does not start."""
    command = [sys.executable, "-m", "remsvc", "serve", "--state-dir", str(state), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 255, run.stderr
    assert "Traceback" not in run.stderr
    return run.stderr


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_port_that_is_in_use(tmp_path: Path, transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = told(tmp_path, "--transport", transport, "--port", port)
    assert f"cannot listen on 127.0.0.1:{port}: the port is in use (" in line


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", "cannot listen on 192.0.2.1:0: the address is not this host's ("),
        ("2001:db8::1", "cannot listen on [2001:db8::1]:0: "),
        (
            "no-such-host.invalid",
            "cannot listen on no-such-host.invalid:0: the host no-such-host.invalid cannot be",
        ),
    ],
)
def test_an_address_that_is_not_ours(tmp_path: Path, transport: str, host: str, expected: str) -> None:
    line = told(tmp_path, "--transport", transport, "--host", host, "--port", "0")
    assert expected in line
    assert "in use" not in line


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may listen on every port")
def test_a_port_that_takes_a_privilege(tmp_path: Path, transport: str) -> None:
    line = told(tmp_path, "--transport", transport, "--port", "1")
    assert "there is no permission; ports below 1024 take a privilege" in line
