"""Whole suites: the contract's Windows part against a server on Windows, and ``native`` in Wine.

They take their time and run beside the other tests; here they are waited for.
"""

from __future__ import annotations

import pytest

from .conftest import Suites


@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", ["contract", "native"])
def test_a_whole_suite(suites: Suites, suite: str) -> None:
    report, exit_code = suites.result(suite)
    print(report)
    assert exit_code == 0
