"""Start a real Airflow in a throw-away home, and stop it again."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from local_airflow.api import AirflowApi, ApiError
from local_airflow.process import BackgroundProcess, StartupError, stop_all

if TYPE_CHECKING:
    from typing_extensions import Self

STARTUP_TIMEOUT = 120.0
"""Seconds for all components to report that they are healthy."""

_COMPONENTS = {
    # The scheduler's and the triggerer's log servers are for other machines: here all share files.
    "api-server": ["api-server", "--workers", "1"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}


class LocalAirflow:
    """Scheduler, DAG processor, triggerer and API server on SQLite, listening on 127.0.0.1 only.

    A context manager: started on entry, every process gone on exit. The Airflow is the one
    installed beside this Python.

    Attributes:
        home: ``AIRFLOW_HOME``: database, task logs, and each component's log in ``components/``.
        url: where the UI and the REST API are.
        username, password: the login for both.
        api: the REST API.
    """

    def __init__(self, home: Path, dags: Path, environment: Mapping[str, str] | None = None) -> None:
        """Prepare an Airflow; nothing is started yet.

        Args:
            home: an empty or missing directory.
            dags: the directory of DAG files.
            environment: additional environment variables, such as ``AIRFLOW_CONN_...``.
        """
        self.home = home
        self.username = "admin"
        self.password = secrets.token_urlsafe(12)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.api = AirflowApi(self.url, self.username, self.password)
        self._environment = self._make_environment(dags, environment or {})
        self._processes: dict[str, BackgroundProcess] = {}

    @property
    def database(self) -> Path:
        """The metadata database's file."""
        return self.home / "airflow.db"

    @property
    def logs(self) -> Path:
        """The directory of task logs."""
        return self.home / "logs"

    def component(self, name: str) -> BackgroundProcess:
        """A running component: ``api-server``, ``scheduler``, ``dag-processor`` or ``triggerer``."""
        return self._processes[name]

    def start(self) -> None:
        """Create the database, start all components and wait until they are healthy.

        Raises:
            StartupError: one ended, or they were not healthy in time; with the end of its log.
        """
        (self.home / "components").mkdir(parents=True, exist_ok=True)
        passwords = self.home / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({self.username: self.password}) + "\n", encoding="utf-8")
        try:
            self._create_database()
            for name, arguments in _COMPONENTS.items():
                self._processes[name] = BackgroundProcess(
                    f"airflow {name}",
                    [sys.executable, "-m", "airflow", *arguments],
                    env=self._environment,
                    cwd=self.home,
                    log_path=self.home / "components" / f"{name}.log",
                )
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process. Idempotent."""
        stop_all(self._processes.values())
        self._processes.clear()

    def wait_for_dag(self, dag_id: str, timeout: float = 60.0) -> None:
        """Wait until the DAG processor has read the DAG.

        Raises:
            StartupError: a DAG file could not be imported, or ``timeout`` seconds were not enough.
        """
        deadline = time.monotonic() + timeout
        while not self.api.has_dag(dag_id):
            if errors := self.api.import_errors():
                raise StartupError("a DAG file could not be imported\n" + "\n".join(errors))
            if time.monotonic() > deadline:
                raise StartupError(f"the DAG {dag_id} did not appear within {timeout:.0f} s")
            time.sleep(0.25)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _create_database(self) -> None:
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        try:
            result = subprocess.run(
                command,
                env=self._environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=STARTUP_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StartupError(f"airflow db migrate did not end within {STARTUP_TIMEOUT:.0f} s") from error
        if result.returncode != 0:
            text = result.stdout.decode(errors="replace")
            raise StartupError(f"airflow db migrate ended with code {result.returncode}\n{text}")

    def _wait_until_healthy(self) -> None:
        wanted = {"metadatabase", "scheduler", "triggerer", "dag_processor"}
        deadline = time.monotonic() + STARTUP_TIMEOUT
        health: dict[str, str | None] = {}
        while True:
            for process in self._processes.values():
                process.check()
            with suppress(ApiError):  # the API server does not listen yet
                health = self.api.health()
            if all(health.get(name) == "healthy" for name in wanted):
                return
            if time.monotonic() > deadline:
                raise StartupError(f"Airflow was not healthy after {STARTUP_TIMEOUT:.0f} s: {health}")
            time.sleep(0.1)

    def _make_environment(self, dags: Path, additional: Mapping[str, str]) -> dict[str, str]:
        # Settings of another Airflow that the user may have must not leak into this one.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        bin_directory = str(Path(sys.executable).parent)
        settings = {
            "core": {
                "dags_folder": str(dags),
                "load_examples": "False",
                "dags_are_paused_at_creation": "False",
                "executor": "LocalExecutor",
                "parallelism": "4",
                # Connections are encrypted in the database, as they are in production.
                "fernet_key": base64.urlsafe_b64encode(os.urandom(32)).decode(),
                "simple_auth_manager_users": f"{self.username}:admin",
                "simple_auth_manager_passwords_file": str(self.home / "passwords.json"),
                "execution_api_server_url": f"{self.url}/execution/",
            },
            "database": {"sql_alchemy_conn": f"sqlite:///{self.database}"},
            "logging": {"base_log_folder": str(self.logs)},
            "api": {
                "host": "127.0.0.1",
                "port": str(self._port),
                "base_url": self.url,
                "secret_key": secrets.token_urlsafe(32),
            },
            "api_auth": {"jwt_secret": secrets.token_urlsafe(32)},
            "scheduler": {
                "scheduler_heartbeat_sec": "1",
                "scheduler_idle_sleep_time": "0.2",
                "enable_health_check": "False",
            },
            "triggerer": {"job_heartbeat_sec": "1"},
            # A worker notices only this often that its task's process has ended. Where that comes after the
            # task was resumed from a trigger, the scheduler takes it for the resumed task's end: failed.
            "workers": {"min_heartbeat_interval": "1"},
            "dag_processor": {
                "dag_bundle_storage_path": str(self.home / "bundles"),
                "refresh_interval": "5",
                "bundle_refresh_check_interval": "1",
                "min_file_process_interval": "10",
            },
            "usage_data_collection": {"enabled": "False"},
        }
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            # Airflow starts some of its helpers by name.
            "PATH": f"{bin_directory}{os.pathsep}{inherited.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **{
                f"AIRFLOW__{section.upper()}__{key.upper()}": value
                for section, options in settings.items()
                for key, value in options.items()
            },
            **additional,
        }


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
