"""No server listens with a gRPC that one packet ends. ``make matrix`` sends the packet to such a one."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from remsvc.server.transport_kinds import installed_version_fault
from tests.conftest import DEADLINE

# The command line in an environment that says of itself that it has another grpcio.
_PROGRAM = """
import importlib.metadata, sys
installed = importlib.metadata.version
claimed = sys.argv.pop(1)
importlib.metadata.version = lambda name: claimed if name == "grpcio" else installed(name)
from remsvc.__main__ import main
main()
"""


def remsvc(grpcio: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _PROGRAM, grpcio, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def test_this_environment_has_none() -> None:
    assert installed_version_fault() is None, version("grpcio")


def test_the_server_refuses_to_start(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ended = remsvc("1.84.0", "serve", "--transport", "grpc", "--port", "0", "--state-dir", state)
    assert (ended.returncode, ended.stdout) == (255, "")
    (line,) = ended.stderr.splitlines()
    assert "grpcio 1.84.0" in line
    assert "pip install 'airflow-provider-remsvc[server]'" in line
    assert not state.exists()


def test_check_config_says_it_besides_everything_else(tmp_path: Path) -> None:
    config = tmp_path / "server.ini"
    config.write_text("[server]\nport = no\ntransport = grpc\n")
    ended = remsvc("1.85.3", "check-config", "--json", config)
    assert ended.returncode == 2
    first, second = json.loads(ended.stdout)["problems"]
    assert "port = no" in first
    assert "grpcio 1.85.3" in second


@pytest.mark.parametrize(
    ("grpcio", "affected"),
    [
        ("1.67.0", False),
        ("1.83.2", False),
        ("1.84.0rc1", True),
        ("1.84.0", True),
        ("1.85.3", True),
        ("1.100.0", True),
        ("2.0.0", True),
    ],
)
def test_every_version_from_the_first_affected_one_on_counts(
    monkeypatch: pytest.MonkeyPatch, grpcio: str, affected: bool
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: grpcio)
    assert (installed_version_fault() is not None) is affected
