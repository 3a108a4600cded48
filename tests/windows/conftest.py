"""Leaves out what cannot run here, and says what would run it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_REASON = "runs with: make test-windows"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Wine takes its time: its tests run only when they are asked for."""
    for item in items:
        if item.path.is_relative_to(_HERE / "wine"):
            item.add_marker(pytest.mark.windows)
            if sys.platform == "win32" or "windows" not in config.option.markexpr:
                item.add_marker(pytest.mark.skip(reason=_REASON))
