"""Start a real Redis in a throw-away directory, and stop it again."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from local_airflow.ports import free_port
from local_airflow.process import BackgroundProcess, BackgroundServer, StartupError

STARTUP_TIMEOUT = 30.0
"""Seconds for accepting connections."""


class RedisServer(BackgroundServer):
    """Redis on a free port, the broker of a CeleryExecutor. A context manager.

    Attributes:
        url: the broker as Celery takes it. It holds the password.
    """

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        """Nothing is started yet.

        Args:
            directory: an empty or missing directory, for its configuration and its log.
            host: the address to listen on.
        """
        self._directory = directory
        self._address = (host, free_port(host))
        self._password = secrets.token_urlsafe(12)
        self.url = f"redis://:{self._password}@{host}:{self._address[1]}/0"

    @staticmethod
    def program() -> str | None:
        """The path of ``redis-server``, or None where it is not installed."""
        return shutil.which("redis-server")

    def _start(self) -> BackgroundProcess:
        program = self.program()
        if program is None:
            raise StartupError("Redis is missing: make test-faults installs it")
        self._directory.mkdir(parents=True, exist_ok=True)
        host, port = self._address
        configuration = self._directory / "redis.conf"
        configuration.touch(mode=0o600)  # other users of the machine see arguments, so they are in a file
        # What it holds is lost with it: nothing is written to the disk.
        lines = (f"bind {host}", f"port {port}", f"requirepass {self._password}", 'save ""', "appendonly no")
        configuration.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return BackgroundProcess(
            "redis-server",
            [program, configuration],
            env=os.environ,
            cwd=self._directory,
            log_path=self._directory / "redis.log",
        )

    def _wait_until_ready(self, process: BackgroundProcess) -> None:
        process.wait_for_text("Ready to accept connections", STARTUP_TIMEOUT)
