"""Start a real Airflow in a throw-away home, and stop it again."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from local_airflow.api import AirflowApi, ApiError
from local_airflow.cluster import CeleryCluster, Settings
from local_airflow.machines import Machine
from local_airflow.ports import free_port
from local_airflow.process import BackgroundProcess, StartupError, stop_all

if TYPE_CHECKING:
    from typing_extensions import Self

STARTUP_TIMEOUT = 120.0
"""Seconds for all components to report that they are healthy."""

_SKIP_SERVE_LOGS = "--skip-serve-logs"
"""No log server: those are for other machines, and here all share files."""

_COMPONENTS = {
    "api-server": ["api-server", "--workers", "1"],
    "scheduler": ["scheduler", _SKIP_SERVE_LOGS],
    "dag-processor": ["dag-processor"],
}


@dataclass(frozen=True)
class Triggerer:
    """One of an Airflow's triggerers.

    Attributes:
        process: its process, in whose session another one runs the triggers.
        job_id: by which Airflow names it, as in a deferred task instance's ``triggerer_job``.
    """

    process: BackgroundProcess
    job_id: int


class LocalAirflow:
    """Scheduler, DAG processor, triggerers and API server, listening on 127.0.0.1 only.

    A context manager: started on entry, every process gone on exit. The Airflow is the one
    installed beside this Python. Its workers are children of the scheduler (LocalExecutor), or those of a
    :class:`CeleryCluster`.

    Attributes:
        home: ``AIRFLOW_HOME``: task logs, each component's log in ``components/``, SQLite's file, and in
            ``machines/`` the homes of a cluster's workers and triggerers.
        environment: of every component, and for commands such as ``airflow dags list``.
        url: where the UI and the REST API are.
        username, password: the login for both.
        api: the REST API.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        environment: Mapping[str, str] | None = None,
        *,
        database: str | None = None,
        triggerers: int = 1,
        scheduler: bool = True,
        cluster: CeleryCluster | None = None,
    ) -> None:
        """Prepare an Airflow; nothing is started yet.

        Args:
            home: an empty or missing directory.
            dags: the directory of DAG files.
            environment: additional environment variables, such as ``AIRFLOW_CONN_...``.
            database: an empty metadata database, as a URL of SQLAlchemy's; left out: SQLite.
            triggerers: how many to start.
            scheduler: False leaves it out: no task is started then.
            cluster: what puts workers and triggerers on machines of their own. Its database has to be one
                that they can reach.
        """
        self.home = home
        self.username = "admin"
        self.password = secrets.token_urlsafe(12)
        self._host = cluster.network.address if cluster else "127.0.0.1"
        self._port = free_port(self._host)
        self.url = f"http://{self._host}:{self._port}"
        self.api = AirflowApi(self.url, self.username, self.password)
        self._database = database or f"sqlite:///{home / 'airflow.db'}"
        self._cluster = cluster
        self._dags = dags
        self.environment = self._make_environment(environment or {})
        self._processes: dict[str, BackgroundProcess] = {}
        self._components = {
            name: arguments for name, arguments in _COMPONENTS.items() if scheduler or name != "scheduler"
        }
        self._wanted_triggerers = triggerers
        self._triggerers: list[Triggerer] = []
        self._workers: list[BackgroundProcess] = []

    @property
    def logs(self) -> Path:
        """The directory of task logs. A cluster's machines have others."""
        return self.home / "logs"

    @property
    def workers(self) -> list[BackgroundProcess]:
        """The cluster's workers that were started and have not ended."""
        return [worker for worker in self._workers if worker.running]

    @property
    def triggerers(self) -> list[Triggerer]:
        """The triggerers that were started and have not ended."""
        return [triggerer for triggerer in self._triggerers if triggerer.process.running]

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
            for name, arguments in self._components.items():
                self._launch(name, arguments)
            if self._wanted_triggerers:
                self._launch_apart("triggerer-1", ["triggerer"])
            self._wait_until_healthy()
            if self._wanted_triggerers:
                first = self._wait_until_registered(self._processes["triggerer-1"], set())
                self._triggerers.append(first)
            while len(self._triggerers) < self._wanted_triggerers:
                self.start_triggerer()
            if self._cluster is not None:
                self._start_workers(self._cluster.workers)
        except BaseException:
            self.stop()
            raise

    def start_triggerer(self) -> Triggerer:
        """Start one more triggerer, and wait until Airflow knows it.

        Raises:
            StartupError: it ended, or was not ready in time; with the end of its log.
        """
        # One at a time, so that it is clear which process is which job.
        known = self.api.triggerer_jobs()
        process = self._launch_apart(f"triggerer-{len(self._triggerers) + 1}", ["triggerer"])
        triggerer = self._wait_until_registered(process, known)
        self._triggerers.append(triggerer)
        return triggerer

    def start_worker(self) -> BackgroundProcess:
        """Start one more worker of the cluster, and wait until it takes tasks.

        Raises:
            StartupError: it ended, or was not ready in time; with the end of its log.
        """
        return self._start_workers(1)[0]

    def stop_scheduler(self) -> None:
        """End the scheduler and its workers: no further task is started then."""
        self._processes.pop("scheduler").stop()

    def stop(self) -> None:
        """End every process. Idempotent."""
        for process in self._processes.values():
            process.send_signal_to_all(signal.SIGCONT)  # a stopped one could not follow TERM
        stop_all(self._processes.values())
        self._processes.clear()
        self._triggerers.clear()
        self._workers.clear()

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

    def _start_workers(self, number: int) -> list[BackgroundProcess]:
        # Side by side: each takes seconds to import what it needs.
        first = len(self._workers) + 1
        names = [f"worker-{index}" for index in range(first, first + number)]
        workers = [self._launch_apart(name, ["celery", "worker"]) for name in names]
        for worker in workers:
            worker.wait_for_text(" ready.", STARTUP_TIMEOUT)
        self._workers += workers
        return workers

    def _launch_apart(self, name: str, arguments: list[str]) -> BackgroundProcess:
        """Start what has a machine of its own where there is a cluster."""
        if self._cluster is None:
            return self._launch(name, [*arguments, _SKIP_SERVE_LOGS])
        home = self.home / "machines" / name
        shutil.copytree(self._dags, home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        environment = {"AIRFLOW_HOME": str(home), **_variables(self._cluster.machine_settings(home))}
        return self._launch(name, arguments, self._cluster.network.add(name), environment)

    def _launch(
        self,
        name: str,
        arguments: list[str],
        machine: Machine | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> BackgroundProcess:
        command = [sys.executable, "-m", "airflow", *arguments]
        process = self._processes[name] = BackgroundProcess(
            f"airflow {name}",
            machine.command(command) if machine else command,
            env={**self.environment, **(environment or {})},
            cwd=self.home,
            log_path=self.home / "components" / f"{name}.log",
        )
        return process

    def _create_database(self) -> None:
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        try:
            result = subprocess.run(
                command,
                env=self.environment,
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
        # By the name of the process; the API server answers for itself.
        names = {"scheduler": "scheduler", "triggerer-1": "triggerer", "dag-processor": "dag_processor"}
        wanted = {"metadatabase"} | {name for process, name in names.items() if process in self._processes}
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

    def _wait_until_registered(self, process: BackgroundProcess, known: set[int]) -> Triggerer:
        deadline = time.monotonic() + STARTUP_TIMEOUT
        while not (new := self.api.triggerer_jobs() - known):
            process.check()
            if time.monotonic() > deadline:
                raise StartupError(f"{process.name} was not ready after {STARTUP_TIMEOUT:.0f} s")
            time.sleep(0.1)
        (job_id,) = new
        return Triggerer(process, job_id)

    def _make_environment(self, additional: Mapping[str, str]) -> dict[str, str]:
        # Settings of another Airflow that the user may have must not leak into this one.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        bin_directory = str(Path(sys.executable).parent)
        settings = {
            "core": {
                "dags_folder": str(self._dags),
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
            "database": {"sql_alchemy_conn": self._database},
            "logging": {"base_log_folder": str(self.logs)},
            "api": {
                "host": self._host,
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
            "NO_PROXY": "*",
            "no_proxy": "*",
            **_variables(settings),
            **(_variables(self._cluster.settings(self._database)) if self._cluster else {}),
            **additional,
        }


def _variables(settings: Settings) -> dict[str, str]:
    """Settings as environment variables, which Airflow takes in place of airflow.cfg."""
    return {
        f"AIRFLOW__{section.upper()}__{key.upper()}": value
        for section, options in settings.items()
        for key, value in options.items()
    }
