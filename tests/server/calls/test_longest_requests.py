"""docs/limits.md says of each request how long it may be, as the methods declare it."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import Mock

from remsvc.server.calls.health import HealthService
from remsvc.server.calls.methods import methods_of
from remsvc.server.calls.reflection import ReflectionService
from remsvc.server.commands.service import CommandService
from remsvc.server.jobs.service import JobService

PAGE = Path(__file__).parents[3] / "docs" / "limits.md"


def test_the_page_has_every_request() -> None:
    methods = methods_of(
        HealthService((), Mock()).methods(),
        ReflectionService(()).methods(),
        CommandService(Mock(), Mock(), stream_idle=1.0, transport="http2").methods(),
        JobService(Mock(), Mock(), Mock(), Mock(), Mock(), Mock()).methods(),
    )
    declared = {(method.request.DESCRIPTOR.name, method.longest_request) for method in methods.values()}
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {(kind, int(most.replace(",", ""))) for kind, most in rows} == declared
