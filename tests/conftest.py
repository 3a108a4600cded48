"""Fixtures that every part of the suite shares: a real server process."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

try:
    from hypothesis import HealthCheck, settings
except ImportError:
    pass  # an environment in which a part of the suite runs that does without
else:
    # How long an example takes says how busy the machine is: nothing about the code.
    settings.register_profile("remsvc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("remsvc")

DEADLINE = 30.0
"""Seconds after which a test gives up waiting for something that must happen."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--transport", help="what carries calls to the servers under test: http2 or grpc")


def pytest_configure(config: pytest.Config) -> None:
    """Whoever runs the tests in the background, or under nohup, has the signals ignored that tests send."""
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    if transport := config.getoption("--transport"):
        _TRANSPORT[:] = ["--transport", transport]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--transport") == "grpc":
        for item in items:
            if item.get_closest_marker("own_http2"):
                item.add_marker(pytest.mark.skip(reason="gRPC's C core overlooks this"))


_TRANSPORT: list[str] = []


@dataclass
class ServerProcess:
    """A running ``remsvc serve``."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    stderr_path: Path
    _lines: queue.Queue[str | None] = field(repr=False, default_factory=queue.Queue)

    @property
    def target(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> str:
        """Everything it has written to standard error so far."""
        return self.stderr_path.read_text(encoding="utf-8", errors="replace")

    def terminate(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.terminate()
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait(DEADLINE)


Serve = Callable[..., ServerProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start real servers: ``serve(config_text, "--flag", ..., env={...}, cwd=..., wrapper=(...))``.

    The configuration text may be empty. Without ``port`` in it, ``--port 0`` is added. ``wrapper``
    is put before the command line, such as ``("setpriv", ...)``. Every server is ended after the test.
    """
    with _servers(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Like :func:`serve`, for servers that the tests of one module share."""
    with _servers(tmp_path_factory.mktemp("module")) as start:
        yield start


@pytest.fixture(scope="session")
def serve_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Like :func:`serve`, for servers that the whole session shares."""
    with _servers(tmp_path_factory.mktemp("session")) as start:
        yield start


@contextmanager
def _servers(directory: Path) -> Iterator[Serve]:
    started: list[ServerProcess] = []

    def start(
        config: str = "",
        *flags: str,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> ServerProcess:
        number = len(started)
        arguments = [*wrapper, sys.executable, "-m", "remsvc", "serve"]
        arguments += ["--state-dir", str(directory / f"state{number}")]
        if config:
            path = directory / f"server{number}.ini"
            path.write_text(config, encoding="utf-8")
            arguments += ["--config", str(path)]
        if "port" not in config and "--port" not in flags:
            arguments += ["--port", "0"]
        stderr_path = directory / f"server{number}.stderr"
        with stderr_path.open("wb") as stderr:
            process = subprocess.Popen(
                [*arguments, *_TRANSPORT, *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        server = ServerProcess(process, "", 0, stderr_path)
        started.append(server)
        reader = threading.Thread(target=_read_lines, args=(process, server._lines), daemon=True)
        reader.start()
        try:
            line = server._lines.get(timeout=DEADLINE)
        except queue.Empty:
            line = None
        if line is None or not line.startswith("listening on "):
            pytest.fail(f"the server did not start: {line!r}\n{server.log}")
        server.host, _, port = line.removeprefix("listening on ").strip().rpartition(":")
        server.port = int(port)
        return server

    try:
        yield start
    finally:
        for server in started:
            if server.process.poll() is None:
                server.process.terminate()
                try:
                    server.process.wait(DEADLINE)
                except subprocess.TimeoutExpired:
                    os.killpg(server.process.pid, signal.SIGKILL)
                    server.process.wait()
            if server.process.stdout is not None:
                server.process.stdout.close()
        end_supervisors(directory)


def end_supervisors(directory: Path) -> None:
    """End the supervisors of the servers that had their state below ``directory``, and all their jobs.

    Durable jobs outlive their server, but not the tests.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            arguments = process.cmdline()
            if "-I" in arguments and any(argument.startswith(f"{directory}/") for argument in arguments):
                process.suspend()
                for descendant in process.children(recursive=True):
                    descendant.kill()
                process.kill()


def _read_lines(process: subprocess.Popen[bytes], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.put(line.decode())
    except ValueError:  # closed while reading: the test is over
        pass
    lines.put(None)
