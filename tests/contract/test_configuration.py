"""The configuration file, and the flags that override it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from .certificates import Authority
from .client import bearer, refused
from .waiting import wait_until


@pytest.fixture
def check(tmp_path: Path, remsvc):
    """``check(text)``: exit code and output of ``remsvc check-config``."""

    def run(text: str, **options) -> tuple[int, str]:
        config = tmp_path / "checked.ini"
        config.write_text(text, encoding="utf-8")
        result = remsvc("check-config", str(config), **options)
        return result.returncode, result.stdout + result.stderr

    return run


# --- mistakes ---

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


# --- TLS files ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


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


# --- what is valid ---

SAMPLE = """\
[server]
host = 127.0.0.1          ; see below
port = 50051              ; 1-65535; 0 = any free one, printed
cmd_timeout_ms = 30000    ; > 0
state_dir = /var/lib/remsvc   ; journal and output; default for an ordinary user: $XDG_STATE_HOME/remsvc
[tls]
enabled = true
cert = ${REMSVC_HOME}/server.pem
key = ...
ca = ...                  ; given: clients must present a certificate it signed (mutual TLS)
[auth]
airflow-prod = secret-prod-token      ; identity = token
[denylist]
01_root = rm\\s+-rf\\s+/                ; in the order of the keys
[allowlist]
[log]
file = /var/log/remsvc/server.log     ; rotated: 10 files of 10 MB
level = info
"""


def test_the_sample_configuration_works(serve, connect, remsvc, authority: Authority, tmp_path: Path) -> None:
    """Server configuration (INI): the sample, with its comments, where its files exist"""
    identity = authority.issue("sample")
    shutil.copy(identity.certificate, tmp_path / "server.pem")
    text = SAMPLE.replace("key = ...", f"key = {identity.key}").replace(
        "ca = ...", f"ca = {authority.certificate}"
    )
    text = text.replace("/var/", f"{tmp_path}/var/")
    (tmp_path / "var/log/remsvc").mkdir(parents=True)
    (tmp_path / "var/lib").mkdir(parents=True)
    config = tmp_path / "sample.ini"
    config.write_text(text)
    result = remsvc("check-config", str(config), env={"REMSVC_HOME": str(tmp_path)})
    assert result.returncode == 0, result.stderr

    server = serve(text, "--port", "0", env={"REMSVC_HOME": str(tmp_path)})
    key, certificate = identity.pem
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)
    client = connect(server.target, bearer("secret-prod-token"), credentials)
    assert client.run("echo works").out == "works\n"
    with refused(grpc.StatusCode.PERMISSION_DENIED):
        client.run("rm -rf /nowhere/at/all")
    log = tmp_path / "var/log/remsvc/server.log"
    wait_until(lambda: "airflow-prod" in log.read_text(), "the log entries")


CPP_SERVER = """\
# comments with a number sign
; and with a semicolon
[server]
port = 50051
cmd_timeout_ms = 30000
[tls]
enabled = false
[auth]
[allowlist]
[denylist]
1 = .*[&|`].*
2 = .*rm\\s+(-[rRf]+\\s+)?/.*
[log]
level = {level}
debug_level = {debug_level}
"""


@pytest.mark.parametrize(
    ("level", "debug_level"), [("trace", "9"), ("debug", "0"), ("info", "-1"), ("warn", "1"), ("error", "5")]
)
def test_a_configuration_of_the_cpp_server_is_valid(check, level: str, debug_level: str) -> None:
    """A configuration that was valid for the existing C++ server is valid here"""
    code, output = check(CPP_SERVER.format(level=level, debug_level=debug_level))
    assert code == 0, output


def test_an_empty_pattern_of_the_cpp_server_is_no_pattern(serve, connect) -> None:
    """A configuration that was valid for the existing C++ server is valid here: it skips empty patterns"""
    client = connect(serve("[denylist]\n1 =\n2 = forbidden\n[allowlist]\n1 =\n2 = ^echo\n").target)
    assert client.run("echo allowed").rc == 0
    for text in ("echo forbidden", "true"):
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            client.run(text)


def test_an_empty_file_is_valid(check) -> None:
    """Every key has a default."""
    assert check("")[0] == 0


@pytest.mark.parametrize("port", ["0", "1", "65535"])
def test_ports_from_0_to_65535_are_valid(check, port: str) -> None:
    """port: 1-65535; 0 = any free one"""
    assert check(f"[server]\nport = {port}\n")[0] == 0


def test_port_0_is_any_free_one_and_is_printed(serve) -> None:
    """0 = any free one, printed"""
    servers = [serve("[server]\nport = 0\n") for _ in range(2)]
    assert len({server.port for server in servers} - {0}) == 2
    for server in servers:
        socket.create_connection((server.host, server.port), timeout=10).close()


def test_the_default_port_is_50051(remsvc, tmp_path: Path) -> None:
    """port = 50051: taken here, so that the server says which port it wanted"""
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 50051))
            taken.listen()
        except OSError:
            pass  # taken by somebody else: as well
        result = remsvc("serve", "--state-dir", str(tmp_path))
    assert result.returncode == 255
    assert "50051" in result.stderr


# --- expansion ---

ENVIRONMENT = {"TEST_WHOLE": "whole-secret", "TEST_PART": "part"}

TOKENS = {
    "whole": ("$TEST_WHOLE", "whole-secret"),
    "braces": ("${TEST_WHOLE}", "whole-secret"),
    "inside": ("a${TEST_PART}b-$TEST_PART-c", "apartb-part-c"),
    "unknown": ("x$NO_SUCH_VARIABLE-${NO_SUCH_VARIABLE}", "x$NO_SUCH_VARIABLE-${NO_SUCH_VARIABLE}"),
    "dollar": ("cost$", "cost$"),
    "marks": ("a;b#c%d%(e)s=f:g", "a;b#c%d%(e)s=f:g"),
}


@pytest.fixture(scope="module")
def expanding(serve_module, tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("expansion")
    auth = "".join(f"{identity} = {written}\n" for identity, (written, _) in TOKENS.items())
    environment = {**ENVIRONMENT, "TEST_LOGS": str(directory)}
    server = serve_module(f"[auth]\n{auth}[log]\nfile = ${{TEST_LOGS}}/$TEST_PART.log\n", env=environment)
    return server, directory


@pytest.mark.parametrize("identity", TOKENS)
def test_variables_expand_in_tokens(expanding, connect, identity: str) -> None:
    """$VAR/${VAR} expand in paths and tokens; an unknown one stays as written."""
    server, _ = expanding
    assert connect(server.target, bearer(TOKENS[identity][1])).run("true").rc == 0


def test_variables_expand_in_paths(expanding) -> None:
    """$VAR/${VAR} expand in paths and tokens"""
    _, directory = expanding
    assert (directory / "part.log").exists()


# --- flags ---


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


# --- safe by default ---


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


# --- the log ---


def test_the_log_file_is_rotated(serve, connect, tmp_path: Path) -> None:
    """rotated: 10 files of 10 MB"""
    log = tmp_path / "logs" / "server.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(10 * 1024 * 1024)
    for number in range(1, 10):
        (log.parent / f"server.log.{number}").write_text(f"old {number}")
    client = connect(serve(f"[log]\nfile = {log}\n").target)
    client.run("true", src="after-rotation")
    wait_until(lambda: log.exists() and "after-rotation" in log.read_text(), "the new log file")
    files = sorted(log.parent.iterdir())
    assert len(files) == 10
    assert (log.parent / "server.log.1").stat().st_size == 10 * 1024 * 1024
    assert (log.parent / "server.log.9").read_text() == "old 8"


@pytest.mark.parametrize(
    ("level", "logged"), [("debug", True), ("info", True), ("warning", False), ("error", False)]
)
def test_the_level_decides_what_is_logged(serve, connect, tmp_path: Path, level: str, logged: bool) -> None:
    """[log] level"""
    server = serve(f"[log]\nlevel = {level}\nfile = {tmp_path}/level.log\n")
    client = connect(server.target)
    client.run("true", src="a-command")
    server.terminate()  # all is written once it has ended
    assert ("a-command" in (tmp_path / "level.log").read_text()) is logged


@pytest.mark.parametrize("path", ["/proc/no/such/directory/server.log", "/dev/null/server.log"])
def test_a_log_file_that_cannot_be_written_is_told(remsvc, tmp_path: Path, path: str) -> None:
    """Anything malformed ...: the server does not start, says ..."""
    result = remsvc("serve", "--port", "0", "--state-dir", str(tmp_path), "--log-file", path)
    assert result.returncode in (2, 255)
    assert path in result.stderr
    assert "Traceback" not in result.stderr
