"""Servers in the Windows Python, and whole suites that run beside the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .windows_python import FOLDER, PYTHON, WindowsServer, environment

Serve = Callable[..., WindowsServer]


@pytest.fixture(scope="session", autouse=True)
def _session() -> Iterator[None]:
    """One process that lives all the time, so that Wine need not boot for each other one."""
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        ["wine", PYTHON, "-c", code],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # pytest's is a regular file, which Python refuses under Wine
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"up"
        yield  # leaving closes its standard input, and it ends


@pytest.fixture
def windows_serve() -> Iterator[Serve]:
    """``windows_serve("--flag", ..., VARIABLE="value")`` starts ``remsvc serve``; it ends after the test."""
    servers: list[WindowsServer] = []

    def start(*flags: str, **environ: str) -> WindowsServer:
        servers.append(WindowsServer.start("--port", "0", *flags, **environ))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def windows_server() -> Iterator[WindowsServer]:
    """The server for all tests that need no configuration of their own."""
    server = WindowsServer.start("--port", "0", HIDDEN="hidden")
    yield server
    server.stop()


class Suites:
    """Other pytest runs, each writing its report to a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str], env: dict[str, str]) -> None:
        with (self._folder / name).open("wb") as report:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=FOLDER.parent,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=report,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def result(self, name: str) -> tuple[str, int]:
        exit_code = self._processes[name].wait()
        return (self._folder / name).read_text(encoding="utf-8", errors="replace"), exit_code

    def stop(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="session")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suites]:
    suites = Suites(tmp_path_factory.mktemp("suites"))
    server = WindowsServer.start("--port", "0")
    target = {"REMSVC_CONTRACT_TARGET": server.target, "REMSVC_CONTRACT_PLATFORM": "windows"}
    pytest_quietly = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    suites.start(
        "contract", [sys.executable, *pytest_quietly, "tests/contract"], env={**os.environ, **target}
    )
    suites.start(
        "native", [str(FOLDER / "python"), *pytest_quietly, "tests/windows/native"], env=environment()
    )
    yield suites
    suites.stop()
    server.stop()


@pytest.fixture(scope="session", autouse=True)
def _start_suites_first(request: pytest.FixtureRequest, _session: None) -> None:
    if any("suites" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("suites")
