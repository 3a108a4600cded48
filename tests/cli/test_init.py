"""``remsvc init``: what it makes works with the real server, and stays secret."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from .conftest import PROGRAM, Remsvc, clean_environment

if TYPE_CHECKING:
    from tests.conftest import Serve, ServerProcess

FILES = {"ca.pem", "ca.key", "server.pem", "server.key", "token", "server.ini"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "made by init"


@pytest.fixture
def made(remsvc: Remsvc, directory: Path) -> dict[str, str]:
    """What ``init --json`` says."""
    return initialise(remsvc, directory)


def initialise(remsvc: Remsvc, directory: Path, *options: str) -> dict[str, str]:
    run = remsvc("init", directory, "--json", *options)
    assert (run.returncode, run.stderr) == (0, "")
    result: dict[str, str] = json.loads(run.stdout)
    return result


def start(serve: Serve, config: str) -> ServerProcess:
    return serve("", "--config", config, "--port", "0")


def extension(path: Path | str, kind: type[x509.ExtensionType]) -> x509.Extension[x509.ExtensionType]:
    certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
    return certificate.extensions.get_extension_for_class(kind)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX file modes")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_secrets_are_readable_by_their_owner_only(directory: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        subprocess.run(
            [*PROGRAM, "init", directory, "--client", "bob"],
            env=clean_environment(),
            check=True,
            capture_output=True,
            timeout=50,
        )
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert set(modes) == FILES | {"client-bob.pem", "client-bob.key"}
    public = 0o644 & ~umask
    assert modes == {name: public if name.endswith(".pem") else 0o600 for name in modes}


def test_a_server_with_it_serves_every_name_of_this_host(
    remsvc: Remsvc, serve: Serve, made: dict[str, str]
) -> None:
    assert remsvc("check-config", made["config"]).returncode == 0
    server = start(serve, made["config"])
    assert server.host == "127.0.0.1"
    secure = ("--ca-cert", made["ca_cert"], "--token-file", made["token_file"])
    for host in ("localhost", "127.0.0.1"):
        run = remsvc("run", "-s", f"{host}:{server.port}", *secure, "--", "echo served")
        assert (run.returncode, run.stdout, run.stderr) == (0, "served\n", "")
    refused = remsvc("status", "-s", server.target, "--ca-cert", made["ca_cert"])
    assert refused.returncode == 255
    assert "missing Authorization header" in refused.stderr
    assert remsvc("status", "-s", server.target).returncode == 255, "no plaintext"


def test_the_configuration_holds_no_token(made: dict[str, str]) -> None:
    assert Path(made["token_file"]).read_text().strip() not in Path(made["config"]).read_text()


def test_the_environment_alone_reaches_it(remsvc: Remsvc, serve: Serve, made: dict[str, str]) -> None:
    server = start(serve, made["config"])
    environment = {
        "REMSVC_SERVER": server.target,
        "REMSVC_CA_CERT": made["ca_cert"],
        "REMSVC_TOKEN": Path(made["token_file"]).read_text().strip(),
    }
    assert remsvc("status", env=environment).returncode == 0
    refused = remsvc("status", "--no-tls", env=environment)
    assert refused.returncode == 255
    assert "does it expect TLS?" in refused.stderr


def test_mutual_tls(remsvc: Remsvc, serve: Serve, directory: Path) -> None:
    made = initialise(remsvc, directory, "--mutual-tls", "--client", "bob")
    server = start(serve, made["config"])
    secure = ("-s", server.target, "--ca-cert", made["ca_cert"], "--token-file", made["token_file"])
    stranger = remsvc("status", *secure)
    assert stranger.returncode == 255
    assert "does it expect a client certificate" in stranger.stderr
    bob = made["clients"]["bob"]  # type: ignore[index]
    assert remsvc("status", *secure, "--cert", bob["cert"], "--key", bob["key"]).returncode == 0  # type: ignore[index]
    # One more, later.
    carol = initialise(remsvc, directory, "--client", "carol")["clients"]["carol"]  # type: ignore[index]
    assert remsvc("status", *secure, "--cert", carol["cert"], "--key", carol["key"]).returncode == 0  # type: ignore[index]
    assert remsvc("status", *secure, "--cert", carol["cert"], "--key", bob["key"]).returncode == 2  # type: ignore[index]


def test_mutual_tls_makes_a_client_certificate_for_airflow(remsvc: Remsvc, directory: Path) -> None:
    made = initialise(remsvc, directory, "--mutual-tls")
    extra = json.loads(parse_qs(urlsplit(made["connection_uri"]).query)["extra"][0])
    assert extra["client_cert_path"] == str(directory / "client-airflow.pem")
    assert extra["client_key_path"] == str(directory / "client-airflow.key")
    assert Path(extra["client_key_path"]).exists()


def test_the_printed_connection_is_the_contracts(remsvc: Remsvc, directory: Path) -> None:
    run = remsvc("init", directory, "--host", "build7.example.com", "--host", "10.1.2.3", "--port", "50999")
    assert (run.returncode, run.stderr) == (0, "")
    uri = next(line.strip() for line in run.stdout.splitlines() if line.startswith("  remsvc://"))
    parts = urlsplit(uri)
    assert (parts.scheme, parts.hostname, parts.port) == ("remsvc", "build7.example.com", 50999)
    assert json.loads(parse_qs(parts.query)["extra"][0]) == {
        "use_ssl": True,
        "ca_cert_path": str(directory / "ca.pem"),
        "bearer_token": (directory / "token").read_text().strip(),
    }
    assert not set(parts.query) & set(' "{}&#'), "percent-encoded"
    export = next(line.strip() for line in run.stdout.splitlines() if line.startswith("  export "))
    assert shlex.split(export) == ["export", f"AIRFLOW_CONN_REMSVC_DEFAULT={uri}"]
    serve_line = next(line for line in run.stdout.splitlines() if line.startswith("  remsvc serve"))
    assert shlex.split(serve_line) == ["remsvc", "serve", "--config", str(directory / "server.ini")]


def test_hosts_decide_where_the_server_listens(remsvc: Remsvc, directory: Path) -> None:
    """And as what clients are told to reach it: by an address, where that is this machine. The name localhost
    may mean ::1 as well, where another user can listen."""
    for options, host, target in (
        ([], "127.0.0.1", "127.0.0.1:50051"),
        (["--host", "localhost"], "127.0.0.1", "127.0.0.1:50051"),
        (["--host", "LocalHost.", "--host", "::1"], "127.0.0.1", "127.0.0.1:50051"),
        (["--host", "::1"], "::1", "[::1]:50051"),
        (["--host", "127.0.0.2"], "127.0.0.2", "127.0.0.2:50051"),
        (["--host", "build7"], "0.0.0.0", "build7:50051"),
        (["--host", "[2001:db8::1]"], "::", "[2001:db8::1]:50051"),
    ):
        made = initialise(remsvc, directory, "--force", *options)
        assert f"\nhost = {host}\n" in (directory / "server.ini").read_text()
        assert made["server"] == target
        assert str(made["connection_uri"]).startswith(f"remsvc://{target}?")
        assert remsvc("check-config", directory / "server.ini").returncode == 0


def test_certificates_are_well_formed(remsvc: Remsvc, directory: Path) -> None:
    initialise(remsvc, directory, "--host", "build7.example.com", "--host", "2001:db8::1", "--client", "bob")
    paths = {name: directory / f"{name}.pem" for name in ("ca", "server", "client-bob")}
    loaded = {name: x509.load_pem_x509_certificate(path.read_bytes()) for name, path in paths.items()}
    now = datetime.now(timezone.utc)
    for certificate in loaded.values():
        assert isinstance(key := certificate.public_key(), ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"
        certificate.verify_directly_issued_by(loaded["ca"])
        assert certificate.not_valid_before_utc < now
    assert loaded["ca"].not_valid_after_utc - now > timedelta(days=3649)
    for name in ("server", "client-bob"):
        assert timedelta(days=824) < loaded[name].not_valid_after_utc - now < timedelta(days=826)
        basic = extension(paths[name], x509.BasicConstraints)
        assert (basic.critical, basic.value.ca) == (True, False)  # type: ignore[attr-defined]
        issuer = extension(paths[name], x509.AuthorityKeyIdentifier).value.key_identifier  # type: ignore[attr-defined]
        assert issuer == extension(paths["ca"], x509.SubjectKeyIdentifier).value.digest  # type: ignore[attr-defined]
    basic = extension(paths["ca"], x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)  # type: ignore[attr-defined]
    usage = extension(paths["ca"], x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign  # type: ignore[attr-defined]
    assert list(extension(paths["server"], x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]  # type: ignore[call-overload]
    assert list(extension(paths["client-bob"], x509.ExtendedKeyUsage).value) == [  # type: ignore[call-overload]
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    names = extension(paths["server"], x509.SubjectAlternativeName).value
    assert {str(name) for name in names.get_values_for_type(x509.IPAddress)} == {  # type: ignore[attr-defined]
        "127.0.0.1",
        "::1",
        "2001:db8::1",
    }
    assert {"build7.example.com", "localhost"} <= set(names.get_values_for_type(x509.DNSName))  # type: ignore[attr-defined]


def test_days(remsvc: Remsvc, directory: Path) -> None:
    initialise(remsvc, directory, "--days", "7")
    certificate = x509.load_pem_x509_certificate((directory / "server.pem").read_bytes())
    left = certificate.not_valid_after_utc - datetime.now(timezone.utc)
    assert timedelta(days=6) < left <= timedelta(days=7)


def test_nothing_is_overwritten_without_force(remsvc: Remsvc, directory: Path, made: dict[str, str]) -> None:
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    run = remsvc("init", directory)
    assert (run.returncode, run.stdout) == (255, "")
    assert len(run.stderr.splitlines()) == 1
    assert "nothing written (--force replaces them)" in run.stderr
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_one_existing_file_is_enough_to_write_none(remsvc: Remsvc, directory: Path) -> None:
    directory.mkdir()
    (directory / "token").symlink_to("nowhere")
    run = remsvc("init", directory)
    assert run.returncode == 255
    assert "already holds token:" in run.stderr
    assert [path.name for path in directory.iterdir()] == ["token"]


def test_force_replaces_everything_and_keeps_it_secret(
    remsvc: Remsvc, directory: Path, made: dict[str, str]
) -> None:
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    (directory / "token").chmod(0o666)
    (directory / "server.key").unlink()
    (directory / "server.key").symlink_to(directory / "elsewhere")
    initialise(remsvc, directory, "--force")
    assert {path.name for path in directory.iterdir()} == FILES
    for path in directory.iterdir():
        assert path.read_bytes() != before[path.name] or path.name == "server.ini"
    if sys.platform != "win32":
        assert stat.S_IMODE((directory / "token").stat().st_mode) == 0o600
    assert not (directory / "server.key").is_symlink()
    assert not (directory / "elsewhere").exists()


def test_a_client_cannot_be_issued_twice(remsvc: Remsvc, directory: Path, made: dict[str, str]) -> None:
    initialise(remsvc, directory, "--client", "bob")
    run = remsvc("init", directory, "--client", "bob")
    assert run.returncode == 255
    assert "already holds client-bob.pem, client-bob.key" in run.stderr


def test_a_broken_authority_issues_nothing(remsvc: Remsvc, directory: Path, made: dict[str, str]) -> None:
    (directory / "ca.key").write_bytes((directory / "server.key").read_bytes())
    run = remsvc("init", directory, "--client", "bob")
    assert run.returncode == 255
    assert "the authority's key does not belong to its certificate" in run.stderr
    (directory / "ca.key").write_bytes(b"garbage")
    run = remsvc("init", directory, "--client", "bob")
    assert run.returncode == 255
    assert "cannot be read" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a$b"], "server.ini cannot hold"),
        (["a;b"], "server.ini cannot hold"),
        (["a\nb"], "server.ini cannot hold"),
        (["d", "--host", "build7:50051"], "expected a name or an address, without a port"),
        (["d", "--host", "my host"], "is not a host name"),
        (["d", "--client", "../bob"], "letters, digits"),
        (["d", "--client", ""], "letters, digits"),
        (["d", "--days", "0"], "--days"),
        (["d", "--port", "65536"], "--port"),
        ([], "Missing argument 'DIR'"),
    ],
)
def test_wrong_usage_exits_2_and_writes_nothing(
    remsvc: Remsvc, tmp_path: Path, arguments: list[str], message: str
) -> None:
    run = remsvc("init", *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert message in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told(remsvc: Remsvc, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in ("file", "file/below"):
        run = remsvc("init", place)
        assert run.returncode == 255
        assert len(run.stderr.splitlines()) == 1
        assert "cannot be made" in run.stderr
