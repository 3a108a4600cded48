"""The server as a Windows service, managed as an administrator would."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc

from .windows_python import DEADLINE, processes, remsvc, wait_until, windows_path, wine

_numbers = itertools.count()


@pytest.fixture
def name() -> Iterator[str]:
    """A service name that is removed after the test."""
    name = f"remsvc-test-{os.getpid()}-{next(_numbers)}"
    yield name
    remsvc("service", "remove", "--name", name)


def state(name: str) -> str:
    """Such as ``RUNNING``; empty where there is no such service."""
    lines = wine("sc", "query", name).stdout.splitlines()
    return "".join(line.split()[-1] for line in lines if line.strip().startswith("STATE"))


def start(name: str) -> None:
    """Start a service; again where Wine has lost patience, after 10 s on a machine that is busy."""
    wait_until(lambda: wine("sc", "start", name).returncode == 0 or state(name) == "RUNNING")


def configure(folder: Path, text: str) -> tuple[str, Path]:
    log = folder / "server.log"
    config = folder / "server.ini"
    config.write_text(f"{text}\n[log]\nfile = {windows_path(log)}\n", encoding="utf-8")
    return windows_path(config), log


def address(log: Path) -> str:
    line = next(line for line in log.read_text().splitlines() if "listening address=" in line)
    return line.partition("address=")[2].split()[0]


def test_from_installation_to_removal(name: str, tmp_path: Path) -> None:
    config, log = configure(tmp_path, "[server]\nport = 0")
    installed = remsvc("service", "install", "--name", name, "--config", config)
    assert installed.returncode == 0, installed.stderr
    assert state(name) == "STOPPED"
    start(name)
    wait_until(lambda: state(name) == "RUNNING")
    with grpc.insecure_channel(address(log)) as channel:
        stub = RemSvc_pb2_grpc.RemSvcStub(channel)
        assert stub.RemCmd(RemSvc_pb2.RemCmdMsg(cmd="echo hello"), timeout=DEADLINE).out == "hello\r\n"
        mark = "ping -n 4 127.0.0.1"
        call = stub.RemCmd.future(RemSvc_pb2.RemCmdMsg(cmd=f"{mark} >NUL& echo finished"), timeout=DEADLINE)
        wait_until(lambda: processes(mark))
        wine("sc", "stop", name)
        assert call.result().out == "finished\r\n"
    wait_until(lambda: state(name) == "STOPPED")
    assert "stopped" in log.read_text()
    assert remsvc("service", "remove", "--name", name).returncode == 0
    assert state(name) == ""


def test_removing_a_running_service_stops_it(name: str, tmp_path: Path) -> None:
    config, _ = configure(tmp_path, "[server]\nport = 0")
    remsvc("service", "install", "--name", name, "--config", config)
    start(name)
    wait_until(lambda: state(name) == "RUNNING")
    assert remsvc("service", "remove", "--name", name).returncode == 0
    wait_until(lambda: not processes(f"--name {name}"))


def test_a_wrong_configuration_is_refused_at_once(name: str, tmp_path: Path) -> None:
    config, _ = configure(tmp_path, "[server]\nport = no")
    done = remsvc("service", "install", "--name", name, "--config", config)
    assert done.returncode == 2
    assert "port = no" in done.stderr
    assert state(name) == ""


def test_a_service_that_cannot_run_says_so_by_its_exit_code(name: str, tmp_path: Path) -> None:
    config, _ = configure(tmp_path, "[server]\nport = 0")
    remsvc("service", "install", "--name", name, "--config", config)
    (tmp_path / "server.ini").write_text("[server]\nport = no\n")
    start(name)
    wait_until(lambda: state(name) == "STOPPED")
    query = wine("sc", "query", name).stdout.split()
    assert query[query.index("SERVICE_EXIT_CODE") + 2] == "2"


def test_removing_what_is_not_there(name: str) -> None:
    done = remsvc("service", "remove", "--name", name)
    assert done.returncode == 255
    assert f"sc delete {name} failed" in done.stderr


def test_only_the_service_manager_starts_a_service_process(tmp_path: Path) -> None:
    config, _ = configure(tmp_path, "[server]\nport = 0")
    done = remsvc("service", "run", "--config", config)
    assert done.returncode == 255
    assert "only the service control manager can start this" in done.stderr
