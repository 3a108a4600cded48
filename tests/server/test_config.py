"""Settings from file and flags; the contract suite holds the messages to the contract."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remsvc.errors import ConfigurationError
from remsvc.execution.supervisor.cgroup import find_parent
from remsvc.server.config import ServerConfig, check_config, load_config
from remsvc.server.identity.tokens import digest_of


def load(tmp_path: Path, text: str, **overrides: object) -> ServerConfig:
    path = tmp_path / "server.ini"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def problems(tmp_path: Path, text: str, **overrides: object) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text, **overrides)
    return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def tokens(config: ServerConfig) -> dict[str, bytes]:
    return {credential.identity: credential.digest for credential in config.auth.credentials}


def test_defaults_are_safe() -> None:
    config = load_config(None)
    assert (config.host, config.port, config.tls, tokens(config)) == ("127.0.0.1", 50051, None, {})
    assert config.warnings == ()


def test_state_dir_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere/state")
    assert load_config(None).state_dir == Path("/somewhere/state/remsvc")
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/someone")
    assert load_config(None).state_dir == Path("/home/someone/.local/state/remsvc")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert load_config(None).state_dir == Path("/var/lib/remsvc")


def test_a_relative_state_dir_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None, {"state_dir": "state"}).state_dir == tmp_path / "state"


def test_flags_override_the_file(tmp_path: Path) -> None:
    text = "[server]\nport = 1\ncmd_timeout_ms = 5\n[denylist]\na = x\n[allowlist]\nb = y\n"
    config = load(tmp_path, text, port=2, cmd_timeout_ms=7, deny=("z",), log_level="DEBUG")
    assert (config.port, config.cmd_timeout, config.log_level) == (2, 0.007, 10)
    assert [rule.pattern for rule in config.policy.deny] == ["z"]
    assert [rule.pattern for rule in config.policy.allow] == ["y"]


def test_a_flag_is_named_as_a_flag() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config(None, {"port": 70000, "cert": "x.pem", "deny": ("(",)})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "--cert x.pem",
        "--port 70000",
        "--deny (",
    ]


def test_rules_are_tried_in_the_order_of_their_keys(tmp_path: Path) -> None:
    config = load(tmp_path, "[denylist]\n02 = b\n01 = a\n10 = c\n")
    assert [rule.name for rule in config.policy.deny] == ["01", "02", "10"]


def test_variables_expand_in_paths_and_tokens_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path))
    monkeypatch.setenv("SECRET", "from-the-environment")
    monkeypatch.delenv("UNKNOWN", raising=False)
    text = (
        "[server]\nstate_dir = ${PLACE}/state\n[log]\nfile = $PLACE/log\n"
        "[auth]\na = x-$SECRET\nb = $UNKNOWN-y\n[denylist]\nc = ^$PLACE\n"
    )
    config = load(tmp_path, text)
    assert config.state_dir == tmp_path / "state"
    assert config.log_file == tmp_path / "log"
    assert tokens(config) == {"a": digest_of("x-from-the-environment"), "b": digest_of("$UNKNOWN-y")}
    assert config.policy.deny[0].pattern == "^$PLACE"


def test_a_token_that_is_an_unset_variable_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNKNOWN", raising=False)
    config = load(tmp_path, "[auth]\na = ${UNKNOWN}\n")
    assert tokens(config) == {"a": digest_of("${UNKNOWN}")}
    assert any("[auth] a" in warning and "not set" in warning for warning in config.warnings)


def test_a_comment_behind_a_pattern_is_not_part_of_it_and_is_warned_of(tmp_path: Path) -> None:
    text = "a = rm\\s+-rf\\s+/   ; in the order of the keys\n"
    config = load(tmp_path, f"[denylist]\n{text}")
    assert config.policy.deny[0].pattern == r"rm\s+-rf\s+/"
    assert config.warnings == ()
    config = load(tmp_path, f"[allowlist]\n{text}")
    assert config.policy.allow[0].pattern == r"rm\s+-rf\s+/"
    assert any("[allowlist] a" in warning and "[;]" in warning for warning in config.warnings)


def test_doubled_backslashes_are_warned_of(tmp_path: Path) -> None:
    config = load(tmp_path, "[denylist]\na = rm\\\\s+\nb = C:\\\\temp\nc = \\d\n")
    (warning,) = config.warnings
    assert "[denylist] a" in warning


def test_tokens_never_show(tmp_path: Path) -> None:
    text = "[auth]\na = tökén-sicret\nb =\nc = sicret2\nd = sicret2\n[server]\nport = x\n"
    path = tmp_path / "server.ini"
    path.write_text(text, encoding="utf-8")
    found, warnings = check_config(path)
    assert len(found) == 2
    assert len(warnings) >= 2
    assert not [line for line in (*found, *warnings) if "sicret" in line]
    assert "sicret" not in repr(load(tmp_path, "[auth]\na = sicret-token\n"))


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=ahead)", "look-around"),
        ("(?<!behind)", "look-around"),
        (r"(a)\1", "back-references"),
        ("(", "missing )"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_explained(tmp_path: Path, pattern: str, reason: str) -> None:
    (problem,) = problems(tmp_path, f"[allowlist]\nmine = {pattern}\n")
    assert problem.startswith(
        f"server.ini:2: [allowlist] mine = {pattern}: expected an RE2 regular expression"
    )
    assert reason in problem


@pytest.mark.parametrize(
    ("text", "host", "warned"),
    [
        ("", "127.0.0.1", False),
        ("[server]\nhost = 0.0.0.0\n", "0.0.0.0", True),
        ("[server]\nhost = [::1]\n", "::1", False),
        ("[server]\nhost = localhost\n", "localhost", False),
        ("[auth]\na = b\n", "127.0.0.1", True),
        ("[server]\nhost = ::\nallow_plaintext_tokens = true\n[auth]\na = b\n", "::", True),
    ],
)
def test_where_it_listens(tmp_path: Path, text: str, host: str, warned: bool) -> None:
    config = load(tmp_path, text)
    assert (config.host, bool(config.warnings)) == (host, warned)


def test_what_is_empty_is_not_used_and_warned_of(tmp_path: Path) -> None:
    """The existing server skips empty patterns and tokens: its files are valid here."""
    config = load(tmp_path, "[auth]\na =\nb = token\n[allowlist]\n1 =\n[denylist]\n1 =\n2 = x\n[tls]\nca =\n")
    assert tokens(config) == {"b": digest_of("token")}
    assert config.policy.allow == ()
    assert [rule.name for rule in config.policy.deny] == ["2"]
    assert sum("empty" in warning for warning in config.warnings) == 3


def test_identities_without_any_token_do_not_open_the_server(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "[auth]\na =\n")
    assert problem == "server.ini:2: [auth] a: expected a token"


def test_tokens_in_the_clear_are_refused_elsewhere(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "[server]\nhost = 10.0.0.1\n[auth]\na = b\n")
    assert problem.startswith("server.ini:2: [server] host = 10.0.0.1: expected a loopback address")
    assert "allow_plaintext_tokens" in problem


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.ini: cannot be read: No such file or directory"):
        load_config(tmp_path / "nowhere.ini")
    (tmp_path / "latin1.ini").write_bytes(b"[auth]\na = \xe9\n")
    with pytest.raises(ConfigurationError, match="expected UTF-8 text"):
        load_config(tmp_path / "latin1.ini")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(max_size=300) | st.text("[]=;\n \\(aserverportlg0", max_size=300).map(str.encode))
def test_any_file_is_a_configuration_or_lists_its_problems(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.ini"
    path.write_bytes(content)
    found, _ = check_config(path)
    assert all(line.startswith((f"{path}:", "[")) for line in found)


def test_to_read_a_configuration_mounts_nothing() -> None:
    """What is found out about control groups by mounting their hierarchy is for a server that starts."""
    group = find_parent("")
    if group is None or group.path is not None:
        pytest.skip("needs root, and a hierarchy of control groups that is mounted nowhere")
    script = (
        "import os\n"
        "from remsvc.server.config import load_config\n"
        "before = os.listdir('/proc/self/fd')\n"
        "config = load_config(None)\n"
        "assert os.listdir('/proc/self/fd') == before\n"
        "assert config.trees.find_groups() is not None\n"
        "assert os.listdir('/proc/self/fd') != before\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
