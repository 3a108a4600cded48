"""The command line in a Windows Python, as a client and as what prepares a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .conftest import Serve
from .windows_python import DEADLINE, WindowsServer, remsvc, windows_path

if TYPE_CHECKING:
    from conftest import Serve as LinuxServe


def linux_remsvc(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "remsvc", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_a_client_on_windows_and_a_server_on_linux(serve: LinuxServe) -> None:
    target = serve().target
    assert remsvc("ping", "-s", target, "--count", "1").returncode == 0
    assert "state=OK" in remsvc("status", "-s", target).stdout
    done = remsvc("run", "-s", target, "--", "echo out; echo '\u00fc \u4e2d' >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "\u00fc \u4e2d\n")


def test_a_client_on_linux_and_a_server_on_windows(windows_server: WindowsServer) -> None:
    done = linux_remsvc("run", "-s", windows_server.target, "--", "echo out& >&2 echo err& exit 7")
    assert (done.returncode, done.stdout.split(), done.stderr.split()) == (7, ["out"], ["err"])


def test_client_and_server_on_windows(windows_server: WindowsServer) -> None:
    done = remsvc("run", "-s", windows_server.target, "--json", "--", "echo caf\u00e9")
    assert json.loads(done.stdout)["out"] == "caf\u00e9\r\n"


def test_no_server(windows_server: WindowsServer) -> None:
    done = remsvc("ping", "-s", "127.0.0.1:1", "--count", "1")
    assert done.returncode == 255
    assert len(done.stderr.splitlines()) == 1


def test_what_init_makes_serves_clients_on_both_systems(windows_serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "made by init"
    made = remsvc("init", windows_path(folder))
    assert made.returncode == 0, made.stderr
    config = windows_path(folder / "server.ini")
    assert remsvc("check-config", config).returncode == 0
    target = windows_serve("--config", config).target.replace("127.0.0.1", "localhost")
    options = ["-s", target, "--ca-cert", str(folder / "ca.pem"), "--token-file", str(folder / "token")]
    on_windows = [windows_path(Path(option)) if option.startswith("/") else option for option in options]
    for done in (
        linux_remsvc("run", *options, "--", "echo hello"),
        remsvc("run", *on_windows, "--", "echo hello"),
    ):
        assert (done.returncode, done.stdout.strip()) == (0, "hello"), done.stderr
    refused = linux_remsvc("run", *options[:4], "--", "echo hello")
    assert refused.returncode == 255
    assert "missing Authorization header" in refused.stderr


def test_every_mistake_of_a_configuration_is_reported(tmp_path: Path) -> None:
    config = tmp_path / "wrong.ini"
    config.write_text("[server]\nport = 99999\n[tls]\nenabled = true\ncert = C:\\no\\such.pem\n")
    done = remsvc("check-config", windows_path(config))
    assert done.returncode == 2
    report = done.stdout + done.stderr
    for part in (windows_path(config), "port = 99999", "cert = C:\\no\\such.pem", "[tls] key"):
        assert part in report
