"""SECURITY.md names a test for each of its claims: each of them is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
_TABLE = (
    (TESTS.parent / "SECURITY.md")
    .read_text(encoding="utf-8")
    .partition("## What is claimed")[2]
    .partition("\n## ")[0]
)
_CLAIMS = [line.split(" | ") for line in _TABLE.splitlines() if line.startswith("| …")]


def test_there_are_claims() -> None:
    assert len(_CLAIMS) > 20
    assert all(len(claim) == 2 for claim in _CLAIMS)


@pytest.mark.parametrize(("claim", "shown_by"), _CLAIMS, ids=[claim[0][4:60] for claim in _CLAIMS])
def test_a_claim_is_shown_by_tests_that_exist(claim: str, shown_by: str) -> None:
    folder = TESTS
    named = re.findall(r"`([^`]+)`", shown_by)
    assert named, claim
    for name in named:
        path, _, function = name.partition("::")
        where = TESTS / path if "/" in path or (TESTS / path).exists() else folder / path
        folder = where.parent
        assert where.exists(), f"{claim}: {name}"
        if function:
            assert f"def {function}(" in where.read_text(encoding="utf-8"), f"{claim}: {name}"
