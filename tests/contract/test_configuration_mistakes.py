"""A configuration that cannot be used: every mistake is told, exactly."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from .certificates import Authority

MISTAKES = """\
[server]
host = not a host
port = 70000
cmd_timeout_ms = 0
max_output_bytes = -1
shutdown_grace_ms = soon
allow_plaintext_tokens = perhaps
colour = blue
[tls]
enabled = maybe
[auth]
empty-token =
[denylist]
01_unclosed = (unclosed
02_look = a(?!b)
03_back = (a)\\1
[allowlist]
04_range = [z-a]
[log]
level = loud
[surprise]
key = value
"""


class Mistake(NamedTuple):
    section: str
    key: str
    value: str
    expected: str  # a regular expression for what the problem says was expected


EXPECTED_PROBLEMS = [
    Mistake("server", "host", "not a host", r"address|host ?name"),
    Mistake("server", "port", "70000", r"65535"),
    Mistake("server", "cmd_timeout_ms", "0", r"milliseconds|> 0|greater|positive|at least 1|\b1\b"),
    Mistake("server", "max_output_bytes", "-1", r"bytes|number|integer|\b[01]\b"),
    Mistake("server", "shutdown_grace_ms", "soon", r"milliseconds|number|integer"),
    Mistake("server", "allow_plaintext_tokens", "perhaps", r"true.*false"),
    Mistake("server", "colour", "blue", r"port.*cmd_timeout_ms|cmd_timeout_ms.*port"),
    Mistake("tls", "enabled", "maybe", r"true.*false"),
    Mistake("auth", "empty-token", "", r"token"),
    Mistake("denylist", "01_unclosed", "(unclosed", r"regular expression|pattern"),
    Mistake("denylist", "02_look", "a(?!b)", r"look|linear"),
    Mistake("denylist", "03_back", r"(a)\1", r"back.?reference|linear"),
    Mistake("allowlist", "04_range", "[z-a]", r"regular expression|pattern"),
    Mistake("log", "level", "loud", r"debug.*info.*warn.*error"),
    Mistake("surprise", "", "", r"tls"),
]


@pytest.fixture(scope="module")
def mistakes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mistakes") / "mistakes.ini"
    path.write_text(MISTAKES)
    return path


@pytest.fixture(
    scope="module", params=[["check-config"], ["serve", "--config"]], ids=["check-config", "serve"]
)
def told(request: pytest.FixtureRequest, remsvc, mistakes_file: Path) -> subprocess.CompletedProcess[str]:
    """What a verb says of the file with all the mistakes."""
    return remsvc(*request.param, str(mistakes_file))


def test_a_file_with_mistakes_is_exit_code_2(told: subprocess.CompletedProcess[str]) -> None:
    """Anything malformed, unknown or out of range: the server does not start ... and exits 2."""
    assert told.returncode == 2
    assert "listening" not in told.stdout


@pytest.mark.parametrize("mistake", EXPECTED_PROBLEMS, ids=lambda mistake: f"{mistake.section}-{mistake.key}")
def test_a_mistake_is_told_exactly(
    told: subprocess.CompletedProcess[str], mistakes_file: Path, mistake: Mistake
) -> None:
    """says file, section, key, value and what was expected: all of them at once, each on a line of its own"""
    output = told.stdout + told.stderr
    lines = [line for line in output.splitlines() if f"[{mistake.section}] {mistake.key}".strip() in line]
    lines = [line for line in lines if f"{mistake.key}_" not in line.partition(" = ")[0] or not mistake.key]
    assert len(lines) == 1, f"{mistake} in:\n{output}"
    assert str(mistakes_file) in lines[0]
    assert mistake.value in lines[0]
    assert re.search(mistake.expected, lines[0], re.IGNORECASE), lines[0]


@pytest.mark.parametrize("value", ["0x50", "5.5", "-1", "65536", "", "50051 50052", "fifty"])
def test_a_port_is_a_number_up_to_65535(check, value: str) -> None:
    """port: 1-65535; 0 = any free one"""
    code, output = check(f"[server]\nport = {value}\n")
    assert code == 2
    assert "[server]" in output
    assert "port" in output
    assert "65535" in output


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("port = 1\n", ["port", "[section]"]),
        ("[server]\nport = 1\nport = 2\n", ["server", "port"]),
        ("[server\nport = 1\n", ["[server"]),
        ("[server]\nnonsense\n", ["nonsense"]),
        ("[server]\nport = 0\n\0\n", []),
    ],
    ids=["no section", "key twice", "unclosed section", "no value", "NUL"],
)
def test_what_is_not_ini_is_told(check, tmp_path: Path, text: str, told: list[str]) -> None:
    """Anything malformed, unknown or out of range: the server does not start, says file ..."""
    code, output = check(text)
    assert code == 2
    assert str(tmp_path / "checked.ini") in output
    assert all(part in output for part in told)
    assert "Traceback" not in output


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path, remsvc) -> None:
    """Anything malformed: the server does not start, says file ..."""
    config = tmp_path / "latin1.ini"
    config.write_bytes("[auth]\nmüller = geheim\n".encode("latin-1"))
    for verb in (["check-config", str(config)], ["serve", "--config", str(config)]):
        result = remsvc(*verb)
        assert result.returncode == 2
        assert str(config) in result.stdout + result.stderr
        assert "UTF-8" in result.stdout + result.stderr


@pytest.mark.parametrize("verb", [["check-config"], ["serve", "--config"]])
def test_a_missing_file_is_told(tmp_path: Path, remsvc, verb: list[str]) -> None:
    """the server does not start, says file ..., and exits 2"""
    missing = tmp_path / "missing.ini"
    result = remsvc(*verb, str(missing))
    assert result.returncode == 2
    assert "missing.ini" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_every_missing_tls_file_is_told_at_once(check, tmp_path: Path) -> None:
    """[tls]: says file, section, key, value and what was expected"""
    paths = {key: tmp_path / f"missing-{key}.pem" for key in ("cert", "key", "ca")}
    code, output = check(
        "[tls]\nenabled = true\n" + "".join(f"{key} = {path}\n" for key, path in paths.items())
    )
    assert code == 2
    for key, path in paths.items():
        (line,) = [line for line in output.splitlines() if str(path) in line]
        assert "[tls]" in line
        assert re.search(rf"\b{key}\b", line)


def test_tls_needs_certificate_and_key(check) -> None:
    """[tls] enabled = true needs cert and key"""
    code, output = check("[tls]\nenabled = true\n")
    assert code == 2
    assert re.search(r"\[tls\].*\bcert\b", output)
    assert re.search(r"\[tls\].*\bkey\b", output)


def test_what_is_no_certificate_or_key_is_told(check, tmp_path: Path) -> None:
    """Anything malformed: the content of the files counts too"""
    for name in ("cert", "key", "ca"):
        (tmp_path / f"garbage-{name}").write_text("not PEM\n")
    keys = "".join(f"{name} = {tmp_path}/garbage-{name}\n" for name in ("cert", "key", "ca"))
    code, output = check(f"[tls]\nenabled = true\n{keys}")
    assert code == 2
    for name in ("cert", "key", "ca"):
        assert f"garbage-{name}" in output


def test_a_key_of_another_certificate_is_told(check, authority: Authority) -> None:
    """Anything malformed: a key must fit its certificate"""
    one, other = authority.issue("one"), authority.issue("other")
    code, output = check(f"[tls]\nenabled = true\ncert = {one.certificate}\nkey = {other.key}\n")
    assert code == 2
    assert str(one.certificate) in output
    assert re.search("mismatch|match|own private key", output)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_key_file_is_told(check, authority: Authority) -> None:
    """An unreadable key file: a clear error"""
    identity = authority.issue("unreadable")
    identity.key.chmod(0)
    code, output = check(f"[tls]\nenabled = true\ncert = {identity.certificate}\nkey = {identity.key}\n")
    assert code == 2
    assert str(identity.key) in output


def test_a_directory_as_key_file_is_told(check, authority: Authority, tmp_path: Path) -> None:
    """An unreadable key file: a clear error"""
    certificate = authority.issue("with-directory").certificate
    code, output = check(f"[tls]\nenabled = true\ncert = {certificate}\nkey = {tmp_path}\n")
    assert code == 2
    assert re.search(rf"\[tls\].*key.*{tmp_path}", output)
    assert "Traceback" not in output
