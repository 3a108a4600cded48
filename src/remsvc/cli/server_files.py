"""What ``remsvc init`` makes: the files of a protected server and of its clients."""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from remsvc.cli.extras import needs_extra
from remsvc.cli.new_files import NewFile, make_directory, write_files
from remsvc.client.target import Target, parse_target
from remsvc.errors import ConfigurationError, RemSvcError

if TYPE_CHECKING:
    from remsvc.cli.certificates import CertificateAuthority

IDENTITY = "airflow"
_ALWAYS_NAMED = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class FilePlan:
    """What ``remsvc init`` was asked to make.

    Attributes:
        directory: absolute.
        hosts: the names given, under which clients reach the server.
    """

    directory: Path
    hosts: tuple[str, ...]
    port: int
    days: int
    clients: tuple[str, ...]
    mutual_tls: bool

    def path(self, name: str) -> str:
        return str(self.directory / name)

    @property
    def target(self) -> Target:
        """The address at which clients reach the server."""
        host = self.hosts[0] if self.hosts else "localhost"
        # The name may mean ::1 as well, where this server does not listen and another user can.
        return Target("127.0.0.1" if host.lower() == "localhost" else host, self.port)

    @property
    def listen_on(self) -> str:
        if all(Target(host, self.port).is_loopback for host in self.hosts):
            return self.target.host
        return "::" if any(":" in host for host in self.hosts) else "0.0.0.0"  # noqa: S104


def create_all(plan: FilePlan, *, force: bool) -> dict[str, object]:
    """Make all files; ``force`` replaces those that exist. Returns what ``init --json`` prints.

    Raises:
        RemSvcError: files exist, or cannot be written.
    """
    with needs_extra("cli"):
        from remsvc.cli.certificates import CertificateAuthority

    authority = CertificateAuthority.create("RemSvc authority of " + (_own_names() or ["this machine"])[0])
    server = authority.issue_server(_server_names(plan.hosts), plan.days)
    token = secrets.token_urlsafe(32)
    files = {
        "ca.pem": NewFile(authority.pair.certificate, private=False),
        "ca.key": NewFile(authority.pair.key),
        "server.pem": NewFile(server.certificate, private=False),
        "server.key": NewFile(server.key),
        "token": NewFile(f"{token}\n".encode()),
        "server.ini": NewFile(_server_ini(plan, token).encode()),
        **_client_files(authority, plan),
    }
    make_directory(plan.directory)
    write_files(plan.directory, files, replace=force)
    extra: dict[str, object] = {"use_ssl": True, "ca_cert_path": plan.path("ca.pem"), "bearer_token": token}
    if plan.mutual_tls:
        extra["client_cert_path"] = plan.path(f"client-{plan.clients[0]}.pem")
        extra["client_key_path"] = plan.path(f"client-{plan.clients[0]}.key")
    return {
        "directory": str(plan.directory),
        "config": plan.path("server.ini"),
        "ca_cert": plan.path("ca.pem"),
        "server_cert": plan.path("server.pem"),
        "server_key": plan.path("server.key"),
        "token_file": plan.path("token"),
        "identity": IDENTITY,
        "server": str(plan.target),
        "clients": _client_paths(plan),
        "connection_id": "remsvc_default",
        "connection_uri": connection_uri(plan.target, extra),
    }


def add_clients(plan: FilePlan) -> dict[str, object]:
    """Make client certificates, signed by the directory's authority. Otherwise as :func:`create_all`."""
    with needs_extra("cli"):
        from remsvc.cli.certificates import CertificateAuthority, KeyPair

    try:
        pair = KeyPair((plan.directory / "ca.pem").read_bytes(), (plan.directory / "ca.key").read_bytes())
    except OSError as error:
        raise RemSvcError(f"{error.filename}: cannot be read: {error.strerror}") from error
    write_files(plan.directory, _client_files(CertificateAuthority.load(pair), plan), replace=False)
    return {
        "directory": str(plan.directory),
        "ca_cert": plan.path("ca.pem"),
        "clients": _client_paths(plan),
    }


def _client_files(authority: CertificateAuthority, plan: FilePlan) -> dict[str, NewFile]:
    files = {}
    for name in plan.clients:
        pair = authority.issue_client(name, plan.days)
        files[f"client-{name}.pem"] = NewFile(pair.certificate, private=False)
        files[f"client-{name}.key"] = NewFile(pair.key)
    return files


def _client_paths(plan: FilePlan) -> dict[str, dict[str, str]]:
    return {
        name: {"cert": plan.path(f"client-{name}.pem"), "key": plan.path(f"client-{name}.key")}
        for name in plan.clients
    }


def _server_ini(plan: FilePlan, token: str) -> str:
    ca = f"ca = {plan.path('ca.pem')}"
    return f"""\
; Made by "remsvc init". Start the server with
;   remsvc serve --config {shlex.quote(plan.path("server.ini"))}

[server]
host = {plan.listen_on}
port = {plan.port}
state_dir = {plan.path("state")}

[tls]
enabled = true
cert = {plan.path("server.pem")}
key = {plan.path("server.key")}
; Clients must present a certificate of this authority (mutual TLS):
{ca if plan.mutual_tls else "; " + ca}

[auth]
; identity = its token, or the token's hash as here (the token itself is in the file "token").
; More of them, with expiry and without a restart: "remsvc token --help".
{IDENTITY} = sha256:{hashlib.sha256(token.encode()).hexdigest()}
"""


def _server_names(hosts: Sequence[str]) -> list[str]:
    """The names in the server's certificate: those that were given, then those of this machine."""
    return list(dict.fromkeys([*hosts, *_ALWAYS_NAMED, *_own_names()]))


def _own_names() -> list[str]:
    try:
        return [parse_target(socket.gethostname()).host]
    except ConfigurationError:  # a name that no certificate can hold
        return []


def connection_uri(target: Target, extra: Mapping[str, object]) -> str:
    """The URI of the Airflow connection that reaches a server. It may hold a token: treat it as a secret.

    Args:
        target: the server.
        extra: the connection's extra, which stands in the URI as percent-encoded JSON.
    """
    return f"remsvc://{target}?extra={quote(json.dumps(extra, separators=(',', ':')), safe='')}"
