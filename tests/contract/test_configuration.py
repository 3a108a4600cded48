"""What a configuration file may say."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import grpc
import pytest

from .certificates import Authority
from .client import bearer, refused
from .waiting import wait_until

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
