"""How much is tried: little with ``make test``, for long with ``make fuzz``. And the corpus.

``REMSVC_FUZZ_EXAMPLES`` is the number of examples for each property. The corpus holds what once was, or
might be, a problem: every run tries all of it, and what ``make fuzz`` finds is added there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("REMSVC_FUZZ_EXAMPLES", "60"))
CORPUS = Path(__file__).parent / "corpus"

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
"""Decorates a property."""


def corpus(kind: str) -> dict[str, Any]:
    """The corpus of one kind of input, for ``parametrize``."""
    files = sorted((CORPUS / kind).iterdir())
    assert files, kind
    return {"argvalues": [file.read_bytes() for file in files], "ids": [file.name for file in files]}
