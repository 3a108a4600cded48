"""A RemSvc server that is protected as one in production is: TLS, and a token that callers need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse
from pathlib import Path

from local_airflow import BackgroundProcess, BackgroundServer, StartupError, free_port

TIMEOUT = 60.0
"""Seconds for the server to get ready."""


class SecuredServer(BackgroundServer):
    """``remsvc init`` and ``remsvc serve`` on a free port of 127.0.0.1. A context manager.

    Attributes:
        connection: the Airflow connection that ``remsvc init`` printed, as a URI. It holds the token.
        token: the token.
        ca_cert: path of the authority's certificate, which clients trust.
        directory: where all files are; ``server.log`` is the server's log.
        target: ``host:port``.
    """

    def __init__(self, directory: Path) -> None:
        """Make certificates, token and configuration in a directory; nothing is started yet.

        Raises:
            StartupError: ``remsvc init`` failed.
        """
        self.directory = directory
        arguments = ["--host", "127.0.0.1", "--port", str(free_port()), "--json"]
        result = subprocess.run(
            [sys.executable, "-m", "remsvc", "init", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if result.returncode != 0:
            raise StartupError(f"remsvc init ended with code {result.returncode}\n{result.stderr}")
        report = json.loads(result.stdout)
        self.connection: str = report["connection_uri"]
        self.target: str = report["server"]
        self.ca_cert: str = report["ca_cert"]
        self.token = Path(report["token_file"]).read_text(encoding="utf-8").strip()
        self._config: str = report["config"]

    @property
    def masked_connection(self) -> str:
        """The connection for a person's eyes: decoded, and without the token."""
        return urllib.parse.unquote(self.connection).replace(self.token, "***")

    def _start(self) -> BackgroundProcess:
        return BackgroundProcess(
            "remsvc serve",
            [sys.executable, "-m", "remsvc", "serve", "--config", self._config],
            env=os.environ,
            cwd=self.directory,
            log_path=self.directory / "server.log",
        )

    def _wait_until_ready(self, process: BackgroundProcess) -> None:
        process.wait_for_line("listening on ", TIMEOUT)
