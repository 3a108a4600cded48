"""A real server on one state directory and one port, killed and started again at will."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from remsvc.client import Client, ConnectionOptions
from tests.execution.processes import supervisors_of

DEADLINE = 60.0
"""Seconds after which a test gives up waiting for something that must happen."""


class ServerHost:
    """``remsvc serve``, time and again.

    Args:
        folder: for its configuration, its log and, unless ``state_dir`` says otherwise, its state.

    Attributes:
        source: a folder with the package ``remsvc`` of another version, which the next server runs; None for
            the version under test.
    """

    def __init__(self, folder: Path, config: str = "", state_dir: Path | None = None) -> None:
        self.state_dir = state_dir or folder / "state"
        self._config = folder / "server.ini"
        self._config.write_text(config, encoding="utf-8")
        self._log = folder / "server.log"
        self._process: subprocess.Popen[str] | None = None
        self.source: Path | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What all of them have written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def client(self) -> Client:
        """A client for jobs; the caller closes it."""
        return Client(ConnectionOptions(self.target).for_jobs())

    def launch(self) -> None:
        """Start one, without waiting until it is ready."""
        assert self._process is None
        command = [sys.executable, "-m", "remsvc", "serve", "--config", str(self._config)]
        command += ["--port", str(self.port), "--state-dir", str(self.state_dir)]
        env = {**os.environ, "PYTHONPATH": str(self.source)} if self.source else None
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=env
            )

    def start(self) -> None:
        """Start one, and wait until it accepts calls."""
        self.launch()
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("listening on "), f"{line!r}\n{self.log[-3000:]}"

    def exit_code(self) -> int | None:
        """Its exit code, once it has ended by itself."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """``kill -9``, at whatever it is doing."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait(DEADLINE)
        assert process.stdout is not None
        process.stdout.close()

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        process, self._process = self._process, None
        assert process is not None
        process.terminate()
        code = process.wait(DEADLINE)
        assert process.stdout is not None
        process.stdout.close()
        return code

    def supervisors(self) -> set[int]:
        """Pids of the supervisors of the state directory."""
        return supervisors_of(self.state_dir)

    def kill_supervisor(self) -> None:
        for pid in self.supervisors():
            os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Leave nothing behind."""
        if self._process is not None:
            self.kill()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def wait_until(condition: object, what: str, deadline: float = DEADLINE) -> None:
    end = time.monotonic() + deadline
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)
