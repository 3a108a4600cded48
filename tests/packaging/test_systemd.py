"""The systemd unit and its drop-ins, as far as systemd itself judges them without running them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "packaging" / "systemd"

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@pytest.mark.parametrize(
    ("drop_in", "exposure"), [("least-privilege.conf", 20), ("other-users.conf", 35), (None, 90)]
)
def test_exposure(tmp_path: Path, drop_in: str | None, exposure: int) -> None:
    """``systemd-analyze security`` counts from 0 to 10; the threshold is ten times that."""
    folder = tmp_path / "etc" / "systemd" / "system"
    folder.mkdir(parents=True)
    shutil.copy(UNITS / "remsvc.service", folder)
    if drop_in is not None:
        (folder / "remsvc.service.d").mkdir()
        shutil.copy(UNITS / drop_in, folder / "remsvc.service.d")
    command = ["systemd-analyze", "security", "--offline=true", f"--root={tmp_path}"]
    result = subprocess.run(
        [*command, f"--threshold={exposure}", "--no-pager", "remsvc.service"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unrecognized option" in result.stderr:
        pytest.skip("this systemd-analyze judges no unit offline")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "ignoring" not in result.stderr.lower(), "a key or value that systemd does not know"
