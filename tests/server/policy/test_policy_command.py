"""``remsvc policy test``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
[auth]
etl = secret-token
[denylist]
01_root = rm\\s+-rf
[group g]
members = etl
users = etl
[identity etl]
shells = none, sh
deny.x = forbidden
time_limit_ms = 1500
rate = 5/m
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "server.ini"
    path.write_text(CONFIG)
    return path


def policy_test(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "remsvc", "policy", "test", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_what_is_permitted(config: Path) -> None:
    result = policy_test("--config", config, "--identity", "etl", "--user", "etl", "--", "echo", "a b")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].startswith("permitted by ")
    assert "patterns see: echo a b" in result.stdout
    assert "[identity etl], [group g]" in result.stdout
    assert "time_limit_ms = 1500" in result.stdout
    assert "rate = 5/m" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("--user", "etl", "--", "rm -rf /"), "[denylist] 01_root"),
        (("--user", "etl", "--", "forbidden"), "[identity etl] deny.x"),
        (("--user", "etl", "--shell", "pwsh", "--", "Get-Date"), "[identity etl] shells"),
        (("--user", "root", "--", "id"), "[group g] users"),
        (("--", "id"), "[group g] users"),
        (("--user", "etl", "--env", "LD_PRELOAD=/x.so", "--", "id"), "default environment"),
    ],
)
def test_what_is_refused_and_by_which_rule(config: Path, arguments: tuple[str, ...], rule: str) -> None:
    result = policy_test("--config", config, "--identity", "etl", *arguments)
    assert result.returncode == 1
    assert result.stdout.splitlines()[0] == f"refused by {rule}"
    as_json = policy_test("--json", "--config", config, "--identity", "etl", *arguments)
    answer = json.loads(as_json.stdout)
    assert (answer["allowed"], answer["rule"], answer["sections"]) == (
        False,
        rule,
        ["[identity etl]", "[group g]"],
    )
    assert answer["message"] in result.stdout


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("--env", "TZ=UTC"), "[identity etl] environment"),
        (("--cwd", "/srv/other"), "[identity etl] directories"),
        (("--cwd", "/srv/etl/../other"), "[identity etl] directories"),
        (("--input",), "[identity etl] input"),
        (("--cwd", "/srv/etl/in"), ""),
    ],
)
def test_what_is_supplied(config: Path, arguments: tuple[str, ...], rule: str) -> None:
    config.write_text("[auth]\netl = t\n[identity etl]\nallow.1 = ^make$\ndirectories = /srv/etl/\n")
    result = policy_test("--config", config, "--identity", "etl", *arguments, "--", "make")
    assert result.returncode == (1 if rule else 0), result.stderr
    if rule:
        assert result.stdout.splitlines()[0] == f"refused by {rule}"


def test_a_directory_that_is_none(config: Path) -> None:
    result = policy_test("--config", config, "--cwd", "srv", "--", "id")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--cwd 'srv': expected an absolute path" in result.stderr


def test_arguments_are_shown_as_patterns_see_them(config: Path) -> None:
    result = policy_test(
        "--config", config, "--identity", "etl", "--shell", "none", "--", "/bin/echo", "a b", "\x1b[1m"
    )
    assert "patterns see: /bin/echo 'a b' '\\x1b[1m'" in result.stdout


def test_an_identity_that_nobody_has_is_warned_of(config: Path) -> None:
    result = policy_test("--config", config, "--identity", "ghost", "--", "id")
    assert result.returncode == 0
    assert "no caller has the identity ghost" in result.stderr


def test_a_configuration_with_mistakes(config: Path) -> None:
    config.write_text("[identity x]\nshells = bash\n")
    result = policy_test("--config", config, "--", "id")
    assert (result.returncode, result.stdout) == (2, "")
    assert "expected one of none, sh, pwsh" in result.stderr


@pytest.mark.parametrize("arguments", [("--",), ("--shell", "none", "--", ""), ("--", " ")])
def test_a_command_that_is_none(config: Path, arguments: tuple[str, ...]) -> None:
    result = policy_test("--config", config, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
