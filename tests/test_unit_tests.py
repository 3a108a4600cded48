"""``make unit`` forgets no test of a module alone: whatever starts nothing is in it."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIRRORS_OF_ROOMS = ("client", "execution", "http2", "server")
"""The other folders of tests are of real servers, real Airflows, attacks, faults: none of a module alone."""

STARTING_FIXTURES = frozenset(
    ["serve", "serve_module", "server", "start", "liar", "engine", "shell", "host", "host_with", "jobs"]
)
STARTING_IMPORTS = frozenset(
    ["subprocess", "ScriptedServer", "ServerProcess", "JobHost", "Journal", "create_engine", "dying_engine"]
)


def listed() -> set[Path]:
    """The test files that ``make unit`` runs."""
    command = ["make", "--no-print-directory", "--dry-run", "--always-make", "unit"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    (run,) = (line for line in said.splitlines() if " -m pytest " in line)
    patterns = [word for word in run.split() if word.startswith("tests/")]
    found = [path for pattern in patterns for path in ROOT.glob(pattern)]
    assert found
    return {file for path in found for file in ([path] if path.is_file() else path.rglob("test_*.py"))}


def starts_something(path: Path) -> bool:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    asked_for = {node.arg for node in nodes if isinstance(node, ast.arg)}
    imported = {node.name for node in nodes if isinstance(node, ast.alias)}
    return bool(asked_for & STARTING_FIXTURES or imported & STARTING_IMPORTS)


def test_make_unit_runs_each_file_that_starts_nothing() -> None:
    files = {path for room in MIRRORS_OF_ROOMS for path in (ROOT / "tests" / room).rglob("test_*.py")}
    left_out = [path for path in files - listed() if not starts_something(path)]
    assert sorted(str(path.relative_to(ROOT)) for path in left_out) == []
