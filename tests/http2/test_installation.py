"""What counts as an installation of the engine's package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from remsvc.http2 import engine_is_installed


def test_here_it_is_installed() -> None:
    assert engine_is_installed()


@pytest.mark.parametrize("folder", ["ngh2", "something_else"])
def test_a_folder_of_its_name_is_no_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    """Such as one in the working directory, which Python takes for a package without a module of its own."""
    (tmp_path / folder).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in [name for name in sys.modules if name.partition(".")[0] == "ngh2"]:
        monkeypatch.delitem(sys.modules, name)
    assert not engine_is_installed()
