"""Deny and allow patterns."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from .client import Client, bearer, command, refused

DENIED = "command denied by denylist"
NOT_PERMITTED = "command not permitted by allowlist"


@pytest.fixture(scope="module")
def deny_only(serve_module) -> str:
    return serve_module("[denylist]\n01_root = rm\\s+-rf\\s+/\n02 = forbidden\n[allowlist]\n").target


@pytest.fixture(scope="module")
def deny_and_allow(serve_module) -> str:
    return serve_module("[denylist]\n1 = forbidden\n[allowlist]\n1 = ^echo\n2 = dat[ae]\n").target


@pytest.mark.parametrize(
    "text", ["rm -rf /nowhere", "echo x; rm \t -rf  /", "echo forbidden", "echo unforbiddenly"]
)
def test_a_deny_pattern_matches_anywhere_in_the_text(deny_only: str, connect, text: str) -> None:
    """a pattern matches anywhere in the command text. Refused: PERMISSION_DENIED, text starting ..."""
    with refused(grpc.StatusCode.PERMISSION_DENIED, starts=DENIED):
        connect(deny_only).run(text)


def test_a_deny_pattern_matches_behind_a_line_end(deny_only: str, connect) -> None:
    """a pattern matches anywhere in the command text"""
    with refused(grpc.StatusCode.PERMISSION_DENIED, starts=DENIED):
        connect(deny_only).run("echo ok\necho forbidden")


@pytest.mark.parametrize("text", ["echo fine", "echo FORBIDDEN", "echo rm -r /nowhere"])
def test_without_allow_patterns_all_that_is_not_denied_runs(deny_only: str, connect, text: str) -> None:
    """empty allow list = everything not denied"""
    assert connect(deny_only).run(text).rc == 0


@pytest.mark.parametrize("text", ["echo fine", "true; : date", ": data"])
def test_one_allow_pattern_that_matches_anywhere_suffices(deny_and_allow: str, connect, text: str) -> None:
    """then allow patterns; a pattern matches anywhere in the command text"""
    assert connect(deny_and_allow).run(text).rc == 0


@pytest.mark.parametrize("text", ["true", " echo x", "id"])
def test_what_no_allow_pattern_matches_is_refused(deny_and_allow: str, connect, text: str) -> None:
    """Refused: PERMISSION_DENIED, text starting command not permitted by allowlist"""
    with refused(grpc.StatusCode.PERMISSION_DENIED, starts=NOT_PERMITTED):
        connect(deny_and_allow).run(text)


@pytest.mark.parametrize("text", ["echo forbidden", "forbidden"])
def test_deny_patterns_come_first(deny_and_allow: str, connect, text: str) -> None:
    """Policy: deny patterns first, then allow patterns"""
    with refused(grpc.StatusCode.PERMISSION_DENIED, starts=DENIED):
        connect(deny_and_allow).run(text)


def test_a_refused_command_ends_its_stream_and_nothing_after_it_runs(
    deny_only: str, connect, tmp_path: Path
) -> None:
    """In a stream a refused command or a mismatch ends the stream with that status; nothing after it runs."""
    client = connect(deny_only)
    call = client.stream([command("echo 1", tid=1), command("forbidden"), command(f": >{tmp_path}/ran")])
    assert next(call).tid == 1
    with refused(grpc.StatusCode.PERMISSION_DENIED, starts=DENIED):
        next(call)
    client.run("sleep 0.1")
    assert not (tmp_path / "ran").exists()


MALFORMED = ["(unclosed", "[a-", "*", "a{2,1}", "(?P<n>a"]
NOT_LINEAR = ["a(?!b)", "(?<=a)b", r"(a)\1"]


@pytest.fixture(scope="module")
def refusals(remsvc, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a server says of a configuration whose patterns are all bad: the lines of standard error."""
    config = tmp_path_factory.mktemp("patterns") / "server.ini"
    patterns = "".join(f"key_{number} = {pattern}\n" for number, pattern in enumerate(MALFORMED + NOT_LINEAR))
    config.write_text(f"[server]\nport = 0\n[denylist]\n{patterns}[allowlist]\n{patterns}")
    result = remsvc("serve", "--config", str(config))
    assert result.returncode == 2
    assert "listening" not in result.stdout
    return result.stderr.splitlines()


def refusal(refusals: list[str], section: str, pattern: str) -> str:
    key = f"key_{(MALFORMED + NOT_LINEAR).index(pattern)}"
    (line,) = [line for line in refusals if f"[{section}]" in line and key in line]
    assert pattern in line
    return line


@pytest.mark.parametrize("section", ["denylist", "allowlist"])
@pytest.mark.parametrize("pattern", MALFORMED)
def test_a_malformed_pattern_keeps_the_server_from_starting(
    refusals: list[str], section: str, pattern: str
) -> None:
    """the server refuses to start with it, naming the key and the pattern"""
    assert refusal(refusals, section, pattern)


@pytest.mark.parametrize("section", ["denylist", "allowlist"])
@pytest.mark.parametrize("pattern", NOT_LINEAR)
def test_a_pattern_beyond_linear_time_is_refused_with_an_explanation(
    refusals: list[str], section: str, pattern: str
) -> None:
    """only a pattern that cannot be matched in linear time ... is refused with an explanation"""
    assert "linear time" in refusal(refusals, section, pattern)


def test_one_malformed_pattern_suffices(remsvc, tmp_path: Path) -> None:
    """A malformed pattern must never widen access: the server refuses to start with it"""
    config = tmp_path / "server.ini"
    config.write_text("[server]\nport = 0\n[denylist]\n1 = good\n2 = (bad\n")
    assert remsvc("serve", "--config", str(config)).returncode == 2


def test_a_costly_pattern_is_matched_in_linear_time(serve, connect) -> None:
    """Patterns are matched in linear time: no command text can keep the server busy."""
    client = connect(serve("[denylist]\n1 = (a+)+$\n").target)
    assert client.run(": " + "a" * 50_000 + "!").rc == 0


# --- order of checks ---


@pytest.fixture(scope="module")
def all_checks(serve_module) -> str:
    return serve_module("[auth]\nprod = right-token\n[denylist]\n1 = forbidden\n").target


def test_authentication_comes_before_policy_and_hash(all_checks: str, connect) -> None:
    """Order of checks: authentication (before the handler runs), then policy, then hsh."""
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        connect(all_checks).run("forbidden", hsh="00000000")


def test_authentication_comes_before_the_first_message_of_a_stream(all_checks: str, connect) -> None:
    """authentication (before the handler runs)"""
    stream = connect(all_checks).open_stream()  # nothing is sent
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        next(stream)
    stream.cancel()


def test_policy_comes_before_the_hash(all_checks: str, connect) -> None:
    """then policy, then hsh"""
    client: Client = connect(all_checks, bearer("right-token"))
    with refused(grpc.StatusCode.PERMISSION_DENIED, starts=DENIED):
        client.run("forbidden", hsh="00000000")
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        client.run("echo x", hsh="00000000")
