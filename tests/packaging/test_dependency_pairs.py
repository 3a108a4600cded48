"""The wheel on the oldest and on the newest grpcio and protobuf. ``make matrix`` tries all pairs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # each test installs

OLDEST = ["grpcio==1.67.0", "protobuf==5.28.0"]
# What the base install brings: clients may have a newer grpcio than servers, which constraints.txt pins.
NEWEST = ["grpcio==1.85.3", "protobuf==7.36.2"]


def run(*command: str | Path) -> str:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.parametrize("pair", [OLDEST, NEWEST], ids=["oldest", "newest"])
def test_the_wheel_does_a_round_trip_without_warnings(wheel: Path, tmp_path: Path, pair: list[str]) -> None:
    if pair is OLDEST and sys.version_info >= (3, 14):
        pytest.skip("grpcio 1.67 has no wheels for this Python")
    environment = tmp_path / "venv"
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", wheel, *pair)

    output = run(python, "-W", "error", Path(__file__).with_name("round_trip.py"), sys.executable)

    # Before it stands what the server logs, which inherits where this is written.
    assert output.splitlines()[-1].startswith("round trip with wheel"), output
