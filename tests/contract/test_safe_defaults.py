"""What a server without much configuration permits, and what it warns of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .waiting import wait_until


def test_the_default_host_is_loopback(shared_server) -> None:
    """with neither [auth] nor mutual TLS, the default host is 127.0.0.1"""
    assert shared_server.host == "127.0.0.1"


def test_listening_elsewhere_without_authentication_is_warned_of(check) -> None:
    """listening elsewhere takes an explicit host and logs a warning"""
    code, output = check("[server]\nhost = 0.0.0.0\n")
    assert code == 0
    assert "0.0.0.0" in output
    assert "warning" in output.lower()


def test_serve_logs_the_warning(remsvc, tmp_path: Path) -> None:
    """listening elsewhere ... logs a warning: here at an address that is not ours, so that nothing listens"""
    result = remsvc("serve", "--state-dir", str(tmp_path), "--host", "192.0.2.1", "--port", "0")
    assert result.returncode == 255
    assert re.search(r"warning.*192\.0\.2\.1", result.stderr, re.IGNORECASE)


def test_loopback_without_authentication_is_not_warned_of(shared_server) -> None:
    """the default host is 127.0.0.1: nothing to warn of"""
    assert " WARNING " not in shared_server.log.partition("listening")[0]


def test_tokens_in_plain_text_on_loopback_are_warned_of(serve) -> None:
    """[auth] without TLS: accepted on loopback with a warning"""
    server = serve("[auth]\nprod = a-token\n")
    wait_until(lambda: "warning" in server.log.lower(), "a warning")
    assert "tls" in server.log.lower()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_tokens_in_plain_text_elsewhere_are_refused(check, host: str) -> None:
    """elsewhere only with [server] allow_plaintext_tokens = true"""
    code, output = check(f"[server]\nhost = {host}\n[auth]\nprod = a-token\n")
    assert code == 2
    assert "allow_plaintext_tokens" in output
    assert host in output
    assert "a-token" not in output


def test_tokens_in_plain_text_elsewhere_may_be_allowed(check) -> None:
    """only with [server] allow_plaintext_tokens = true"""
    config = "[server]\nhost = 0.0.0.0\nallow_plaintext_tokens = {}\n[auth]\nprod = a-token\n"
    code, output = check(config.format("true"))
    assert code == 0, output
    assert check(config.format("false"))[0] == 2


@pytest.mark.parametrize("flag", ["--host"])
def test_flags_do_not_get_round_that(remsvc, tmp_path: Path, flag: str) -> None:
    """elsewhere only with [server] allow_plaintext_tokens = true: also where the host is a flag"""
    config = tmp_path / "tokens.ini"
    config.write_text("[auth]\nprod = a-token\n")
    result = remsvc("serve", "--config", str(config), "--state-dir", str(tmp_path), flag, "192.0.2.1")
    assert result.returncode == 2
    assert "allow_plaintext_tokens" in result.stderr
