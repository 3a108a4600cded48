"""docs/server-configuration.md names each limit of the configuration, with the default that it has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from remsvc.execution.supervisor.protocol import OUTPUT_WAIT
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.config import SCHEMA, ServerConfig
from remsvc.server.jobs.config import JobConfig

_DOCS = Path(__file__).parents[2] / "docs"
_PAGE = (_DOCS / "server-configuration.md").read_text(encoding="utf-8")


def defaults_in(heading: str, column: int) -> dict[str, str]:
    """What the table under a heading says, by its keys."""
    section = _PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:]] for row in section.splitlines() if row[:3] == "| `"]
    return {row[0].removesuffix(" *").strip("`"): row[column].strip("`") for row in rows}


def milliseconds(seconds: float | None) -> str:
    return str(round((seconds or 0) * 1000))


@pytest.mark.parametrize("section", SCHEMA.sections)
def test_each_key_is_explained(section: str) -> None:
    """Whoever declares a key has to write down what it means."""
    explained = re.compile(r"`(?:\[\w+\] )?(\w+)")
    missing = set(SCHEMA.names_in(section)) - set(explained.findall(_PAGE))
    assert not missing


@pytest.mark.parametrize("page", ["server-configuration.md", "policy.md"])
def test_each_key_of_the_policy_has_its_row_on_both_pages(page: str) -> None:
    text = (_DOCS / page).read_text(encoding="utf-8")
    cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    explained = {name for cell in cells for name in re.findall(r"`(\w+)(?:\.NAME)?`", cell)}
    assert set(SCHEMA.names_in("group")) - explained == set()


def test_limits_of_callers() -> None:
    expected = {}
    for field in dataclasses.fields(LimitsConfig):
        value = getattr(LimitsConfig(), field.name)
        if isinstance(value, float):
            expected[f"{field.name}_ms"] = milliseconds(value)
        else:
            expected[field.name] = str(value)
    assert defaults_in("`[limits]`: of callers", 1) == expected


def test_jobs() -> None:
    jobs = JobConfig()
    assert defaults_in("`[jobs]`", 1) == {
        "enabled": "true",
        "max_running": str(jobs.limits.max_running),
        "max_queued": str(jobs.limits.max_queued),
        "max_text_bytes": str(jobs.limits.max_text_bytes),
        "time_limit_ms": milliseconds(jobs.time_limit),
        "kill_grace_ms": milliseconds(jobs.kill_grace),
        "output_limit_bytes": str(jobs.output_limit),
        "max_output_limit_bytes": str(jobs.max_output_limit),
        "retention_hours": str(round(jobs.limits.retention_seconds / 3600)),
        "retention_count": str(jobs.limits.retention_count),
        "retention_bytes": str(jobs.limits.retention_bytes),
        "output_wait_ms": milliseconds(OUTPUT_WAIT),
        "cgroup": "auto",
        "admins": "",
    }


def test_server() -> None:
    server = ServerConfig()
    told = defaults_in("`[server]`", 2)
    assert told["port"] == str(server.port)
    assert told["cmd_timeout_ms"] == milliseconds(server.cmd_timeout)
    assert told["max_output_bytes"] == str(server.max_output_bytes)
    assert told["shutdown_grace_ms"] == milliseconds(server.shutdown_grace)
