"""The flags of ``remsvc serve`` override the configuration file."""

from __future__ import annotations

import socket
from pathlib import Path

import grpc
import pytest

from .certificates import Authority
from .client import refused
from .waiting import wait_until


@pytest.fixture(scope="module")
def overridden(serve_module, authority: Authority, tmp_path_factory: pytest.TempPathFactory):
    """A server whose every setting in the file is overridden by a flag."""
    directory = tmp_path_factory.mktemp("overridden")
    wrong, right = (
        authority.issue("wrong", host="elsewhere.example"),
        authority.issue("right", host="127.0.0.3"),
    )
    stranger = Authority(directory, "stranger")
    with socket.socket() as taken:
        taken.bind(("127.0.0.3", 0))
        taken.listen()
        config = f"""
[server]
host = 127.0.0.2
port = {taken.getsockname()[1]}
cmd_timeout_ms = 600000
[tls]
enabled = false
cert = {wrong.certificate}
key = {wrong.key}
ca = {stranger.certificate}
[denylist]
1 = file-denies
[allowlist]
1 = file-allows
[log]
file = {directory}/file.log
level = error
"""
        flags = ["--host", "127.0.0.3", "--port", "0", "--cmd-timeout-ms", "1000", "--tls"]
        flags += [
            "--cert",
            str(right.certificate),
            "--key",
            str(right.key),
            "--ca-cert",
            str(authority.certificate),
        ]
        flags += [
            "--deny",
            "flag-denies",
            "--deny",
            "also-denied",
            "--allow",
            "flag-allows",
            "--allow",
            "denie[sd]",
        ]
        flags += ["--log-level", "info", "--log-file", f"{directory}/flag.log"]
        server = serve_module(config, *flags)
    key, certificate = right.pem
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)
    return server, credentials, directory


@pytest.fixture
def overridden_client(overridden, connect):
    server, credentials, _ = overridden
    return connect(server.target, credentials=credentials)


def test_host_and_port_flags_override_the_file(overridden) -> None:
    """Flags override the file: --port --host"""
    assert overridden[0].host == "127.0.0.3"


def test_tls_flags_override_the_file(overridden, overridden_client, connect) -> None:
    """Flags override the file: --tls --cert --key --ca-cert"""
    assert overridden_client.ping(seq=3).seq == 3
    with refused(grpc.StatusCode.UNAVAILABLE):
        connect(overridden[0].target).ping()


def test_the_time_limit_flag_overrides_the_file(overridden_client) -> None:
    """Flags override the file: --cmd-timeout-ms"""
    assert overridden_client.run(": flag-allows; sleep 300").err == "process timed out"


@pytest.mark.parametrize("text", [": flag-denies", ": also-denied", ": flag-allows flag-denies"])
def test_deny_flags_override_the_file(overridden_client, text: str) -> None:
    """Flags override the file: --deny"""
    with refused(grpc.StatusCode.PERMISSION_DENIED, starts="command denied by denylist"):
        overridden_client.run(text)
    assert overridden_client.run(": flag-allows file-denies").rc == 0


def test_allow_flags_override_the_file(overridden_client) -> None:
    """Flags override the file: --allow"""
    assert overridden_client.run(": flag-allows").rc == 0
    with refused(grpc.StatusCode.PERMISSION_DENIED, starts="command not permitted by allowlist"):
        overridden_client.run(": file-allows")


def test_log_flags_override_the_file(overridden, overridden_client) -> None:
    """Flags override the file: --log-level --log-file"""
    directory = overridden[2]
    overridden_client.run(": flag-allows", src="logged-by-flag")
    wait_until(lambda: "logged-by-flag" in (directory / "flag.log").read_text(), "the log entry")
    assert not (directory / "file.log").exists()


def test_the_state_directory_flag_overrides_the_file(serve, connect, tmp_path: Path) -> None:
    """Flags override the file: --state-dir (which `serve` always gives)"""
    (tmp_path / "a-file").touch()
    server = serve(f"[server]\nport = 0\nstate_dir = {tmp_path}/a-file/below\n")
    assert connect(server.target).run("true").rc == 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--deny", "(unclosed"], ["deny", "(unclosed"]),
        (["--allow", "[z-a]"], ["allow", "[z-a]"]),
        (["--port", "70000"], ["port", "70000"]),
        (["--cmd-timeout-ms", "0"], ["cmd-timeout-ms", "0"]),
        (["--log-level", "loud"], ["log-level", "loud"]),
        (["--tls", "--cert", "/no/such/cert"], ["/no/such/cert"]),
        (["--no-such-flag"], ["--no-such-flag"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_mistakes_in_flags_are_told(remsvc, tmp_path: Path, flags: list[str], told: list[str]) -> None:
    """Anything malformed, unknown or out of range: the server does not start ... and exits 2."""
    result = remsvc("serve", "--state-dir", str(tmp_path), *flags)
    assert result.returncode == 2
    assert all(part in result.stderr.replace("_", "-") for part in told), result.stderr
    assert "Traceback" not in result.stderr
