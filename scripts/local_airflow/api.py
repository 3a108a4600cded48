"""The part of Airflow's REST API that the demo and the end-to-end tests need, on urllib alone."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

POLL_INTERVAL = 0.25
"""Seconds between two looks at a state that is awaited."""

_PAGE = 100
"""Airflow gives no longer lists at once."""


class ApiError(Exception):
    """The REST API refused a request, or could not be reached."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """A client of one Airflow, logged in as one user.

    Attributes:
        url: the API server's address; the web UI is there too.
    """

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = url
        self._login = {"username": username, "password": password}
        self._token: str | None = None

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send one request below ``/api/v2`` and return the parsed answer.

        Raises:
            ApiError: with the HTTP status where there was an answer.
        """
        return self._send(method, f"/api/v2{path}", body, {"Authorization": f"Bearer {self.token()}"})

    def token(self) -> str:
        """What says to Airflow who calls; its web UI takes it as the cookie ``_token``.

        Raises:
            ApiError: the login is refused.
        """
        if self._token is None:
            self._token = self._send("POST", "/auth/token", self._login, {})["access_token"]
        return self._token

    def health(self) -> dict[str, str | None]:
        """Each component's name and its status (``"healthy"``), as the scheduler's database has it."""
        answer = self._send("GET", "/api/v2/monitor/health", None, {})
        return {name: component["status"] for name, component in answer.items() if component}

    def triggerer_jobs(self) -> set[int]:
        """The ids of all triggerers that were ever started."""
        answer = self.request("GET", "/jobs?job_type=TriggererJob&limit=100")
        return {job["id"] for job in answer["jobs"]}

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> DagRun:
        """Start a run of a DAG, for the logical date of this moment."""
        now = datetime.now(timezone.utc).isoformat()
        answer = self.request("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": now, "conf": conf or {}})
        run = DagRun(self, dag_id, answer["dag_run_id"])
        # Airflow 3.1 answers first, and commits to its database then.
        deadline = time.monotonic() + 30
        while not self._exists(run.path):
            if time.monotonic() > deadline:
                raise ApiError(f"the run {run.run_id} of {dag_id} was created, and does not exist")
            time.sleep(0.05)
        return run

    def import_errors(self) -> list[str]:
        """What went wrong where DAG files could not be read."""
        errors = self.request("GET", "/importErrors")["import_errors"]
        return [f"{error['filename']}: {error['stack_trace']}" for error in errors]

    def has_dag(self, dag_id: str) -> bool:
        """Whether the DAG was read from its file already."""
        return self._exists(f"/dags/{dag_id}")

    def _exists(self, path: str) -> bool:
        try:
            self.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json", **headers},
        )
        try:
            with _OPENER.open(request, timeout=30) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise ApiError(f"{method} {path}: HTTP {error.code}: {text}", error.code) from error
        except OSError as error:  # refused, reset, timed out
            raise ApiError(f"{method} {path}: {error}") from error
        return json.loads(answer) if answer else None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Never through a proxy: everything is on 127.0.0.1."""


@dataclass(frozen=True)
class DagRun:
    """One run of a DAG."""

    api: AirflowApi
    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        """The run's place in the REST API."""
        return f"/dags/{self.dag_id}/dagRuns/{urllib.parse.quote(self.run_id, safe='')}"

    @property
    def url(self) -> str:
        """The run's page in the web UI."""
        return f"{self.api.url}/dags/{self.dag_id}/runs/{urllib.parse.quote(self.run_id, safe='')}"

    def state(self) -> str:
        """``queued``, ``running``, ``success`` or ``failed``."""
        return str(self.api.request("GET", self.path)["state"])

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Every task instance by its task's id; of a mapped task's, one."""
        found: list[dict[str, Any]] = []
        while True:
            path = f"{self.path}/taskInstances?order_by=id&limit={_PAGE}&offset={len(found)}"
            page = self.api.request("GET", path)["task_instances"]
            found += page
            if len(page) < _PAGE:
                return {instance["task_id"]: instance for instance in found}

    def task(self, task_id: str) -> dict[str, Any]:
        """One task instance: ``state``, ``try_number``, ``rendered_fields`` and so on."""
        instance: dict[str, Any] = self.api.request("GET", f"{self.path}/taskInstances/{task_id}")
        return instance

    def watch(self, timeout: float) -> Iterator[dict[str, str]]:
        """The states of the run (key ``""``) and its tasks, each time one changes, until the run ended.

        Raises:
            TimeoutError: the run did not end within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        before: dict[str, str] = {}
        while True:
            run_state = self.state()
            now = {task_id: task["state"] or "none" for task_id, task in self.tasks().items()}
            now = {"": run_state, **now}
            if now != before:
                yield now
                before = now
            if run_state in ("success", "failed"):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.dag_id} did not end within {timeout:.0f} s: {now}")
            time.sleep(POLL_INTERVAL)

    def wait(self, timeout: float) -> str:
        """Wait for the run's end and return its state."""
        last: dict[str, str] = {}
        for states in self.watch(timeout):
            last = states
        return last[""]

    def wait_for_task(
        self, task_id: str, condition: Callable[[dict[str, Any]], bool], timeout: float
    ) -> dict[str, Any]:
        """Wait until the task instance fulfils ``condition`` and return it.

        Raises:
            TimeoutError: it did not within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition(instance := self.task(task_id)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.dag_id}.{task_id}, after {timeout:.0f} s: {instance}")
            time.sleep(POLL_INTERVAL)
        return instance

    def xcom(self, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """What the task, or one of a mapped task's, pushed, as the object that it was."""
        path = f"{self.path}/taskInstances/{task_id}/xcomEntries/{key}?map_index={map_index}"
        return self.api.request("GET", path)["value"]

    def log(self, task_id: str, try_number: int = 1) -> str:
        """The log of one try: each event with its level, and the type and text of an exception."""
        answer = self.api.request("GET", f"{self.path}/taskInstances/{task_id}/logs/{try_number}")
        return "\n".join(_log_line(event) for event in answer["content"])

    def set_task_state(self, task_id: str, state: str) -> None:
        """Mark the task ``success`` or ``failed``, as a user does."""
        self.api.request("PATCH", f"{self.path}/taskInstances/{task_id}", {"new_state": state})

    def clear_task(self, task_id: str) -> None:
        """Clear the task, so that it runs again, as a user does."""
        body = {"dag_run_id": self.run_id, "task_ids": [task_id], "dry_run": False, "only_failed": False}
        self.api.request("POST", f"/dags/{self.dag_id}/clearTaskInstances", body)


def _log_line(event: str | dict[str, Any]) -> str:
    if isinstance(event, str):
        return event
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in event.get("error_detail") or ()]
    return " ".join([event.get("level", ""), str(event["event"]), *errors]).strip()
