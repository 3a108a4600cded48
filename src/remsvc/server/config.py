"""The server's configuration: an INI file, overridden by flags. All mistakes are reported at once.

Each section has its owner, who declares its keys and reads its values, in the module ``config`` of the
owner's folder. Here they are put together, and what concerns several of them is checked.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from remsvc.errors import ConfigurationError
from remsvc.execution.supervisor.protocol import NO_LIMITS, ProcessLimits
from remsvc.server.audit.config import AUDIT_SECTION, AuditConfig, read_audit
from remsvc.server.caller import ANONYMOUS
from remsvc.server.calls.config import CALLER_LIMITS_SECTION, LimitsConfig, read_limits
from remsvc.server.commands.config import COMMAND_SECTIONS, TreeConfig, read_command_limits, read_trees
from remsvc.server.identity.authentication import Required
from remsvc.server.identity.config import IDENTITY_SECTIONS, AuthConfig, read_auth
from remsvc.server.jobs.config import JOBS_SECTION, JobConfig, read_jobs
from remsvc.server.policy.config import POLICY_SECTIONS, PolicyConfig, read_policy
from remsvc.server.policy.warnings import policy_warnings
from remsvc.server.settings.files import Signature
from remsvc.server.settings.schema import Key, Kind, Schema, Section
from remsvc.server.settings.settings import Settings
from remsvc.server.tls.config import TLS_SECTION, TlsConfig, read_tls
from remsvc.server.transport_kinds import HTTP2, TRANSPORTS, default_transport, transport_fault

DEFAULT_PORT = 50051
_LOOPBACK = "127.0.0.1"
_EVERYWHERE = "0.0.0.0"  # noqa: S104  only with TLS and authentication, or where it is asked for
_MAX_OUTPUT_BYTES = 16 * 1024 * 1024
_MAX_INT32 = 2**31 - 1
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

_SERVER_SECTION = Section(
    "server",
    (
        Key("host", Kind.TEXT, flag="host", reloads=True),
        Key("port", flag="port", reloads=True),
        Key("transport", flag="transport"),
        Key("cmd_timeout_ms", flag="cmd_timeout_ms"),
        Key("max_output_bytes"),
        Key("shutdown_grace_ms"),
        Key("state_dir", Kind.TEXT, flag="state_dir"),
        Key("allow_plaintext_tokens", reloads=True),
    ),
)
_LOG_SECTION = Section(
    "log",
    (
        Key("file", Kind.TEXT, flag="log_file"),
        Key("level", flag="log_level"),
        Key("debug_level", reloads=True),  # the existing server's; without effect here
    ),
)
SCHEMA = Schema(
    _SERVER_SECTION,
    *IDENTITY_SECTIONS,
    TLS_SECTION,
    _LOG_SECTION,
    JOBS_SECTION,
    CALLER_LIMITS_SECTION,
    *COMMAND_SECTIONS,
    AUDIT_SECTION,
    *POLICY_SECTIONS,
)
"""All that a configuration may hold."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a configuration comes from.

    Attributes:
        path: the file; None: flags only.
        overrides: the flags, as :func:`load_config` takes them.
        files: all files that were read, with their signatures before they were.
        values: the text of each setting that was given, by section and key in lower case.
    """

    path: Path | None = None
    overrides: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[Path, Signature] = field(default_factory=dict)
    values: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A configuration that can be served.

    Attributes:
        host, port: where to listen; port 0 takes any free one.
        cmd_timeout: seconds for each version-1 command.
        max_output_bytes: bytes of text kept of each output of a version-1 command.
        shutdown_grace: seconds that running commands get after SIGTERM.
        transport: which library carries calls: ``http2`` or ``grpc``.
        state_dir: where durable state goes.
        tls: certificate, key and client authorities, or None for plaintext.
        auth: who may call.
        policy: what callers may run.
        jobs: durable jobs, or None where they are switched off.
        trees: how the processes of all commands are kept together.
        limits: on what callers may take of the server.
        command_limits: what the system holds each command to.
        audit: the audit log.
        state_dir_given: whether somebody chose ``state_dir``. A server can do without the default one.
        log_file, log_level: where the log goes besides standard error, and from which level on.
        warnings: what is permitted, but deserves a second look.
        source: where it was read, so that it can be read again.
    """

    host: str = _LOOPBACK
    port: int = DEFAULT_PORT
    cmd_timeout: float = 30.0
    max_output_bytes: int = 262_144
    shutdown_grace: float = 30.0
    transport: str = field(default_factory=default_transport)
    state_dir: Path = Path()
    tls: TlsConfig | None = None
    auth: AuthConfig = field(default_factory=AuthConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    log_file: Path | None = None
    log_level: int = logging.INFO
    jobs: JobConfig | None = field(default_factory=JobConfig)
    trees: TreeConfig = field(default_factory=TreeConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    command_limits: ProcessLimits = NO_LIMITS
    audit: AuditConfig = field(default_factory=AuditConfig)
    state_dir_given: bool = False
    warnings: tuple[str, ...] = ()
    source: Source = field(default_factory=Source)

    @property
    def mutual_tls(self) -> bool:
        """Whether clients' certificates are asked for."""
        return self.tls is not None and self.tls.ca is not None

    @property
    def authenticates(self) -> bool:
        """Whether callers must show who they are."""
        return self.auth.uses_tokens or self.mutual_tls

    @property
    def lets_anybody_in(self) -> bool:
        """Whether anybody who can connect may call."""
        return not self.authenticates and self.auth.peer_uids is None

    @property
    def known_identities(self) -> frozenset[str] | None:
        """The identities that callers can have; None where any certificate's name is one."""
        if not self.authenticates:
            return frozenset((ANONYMOUS,))
        by_certificate = self.mutual_tls and self.auth.required is not Required.TOKEN
        return None if by_certificate and self.auth.certificates is None else self.auth.identities

    @property
    def exposed(self) -> bool:
        """Whether it listens on more than the loopback interface."""
        if self.host.lower() == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True


def load_config(path: Path | None, overrides: Mapping[str, object] | None = None) -> ServerConfig:
    """The configuration of the file ``path`` (None: defaults only) with flags over it.

    Args:
        overrides: values by flag name with underscores, such as ``{"port": 0, "deny": ("rm",)}``;
            None means not given. ``deny`` and ``allow`` replace the file's list.

    Raises:
        ConfigurationError: with every problem found.
    """
    config, problems = read_config(path, overrides or {})
    if problems:
        raise ConfigurationError(problems)
    return config


def read_config(path: Path | None, overrides: Mapping[str, object]) -> tuple[ServerConfig, list[str]]:
    """Like :func:`load_config`, but return the problems.

    Where there are any, only ``source`` and ``warnings`` of the configuration mean something.
    """
    settings = Settings(path, overrides, SCHEMA)
    source = Source(path, overrides, settings.files, settings.texts)
    config = dataclasses.replace(_read(settings), source=source)
    return config, settings.problems


def check_config(path: Path) -> tuple[list[str], list[str]]:
    """What keeps a server from serving a configuration file, and warnings, one line each."""
    settings = Settings(path, {}, SCHEMA)
    config = _read(settings)
    fault = transport_fault(config.transport)
    return [*settings.problems, *([fault] if fault is not None else [])], list(config.warnings)


def _read(settings: Settings) -> ServerConfig:
    transport = _read_transport(settings)
    tls = read_tls(settings, transport)
    mutual = tls is not None and tls.ca is not None
    auth = read_auth(settings, asks_for_certificates=mutual)
    safe = tls is not None and (auth.uses_tokens or mutual)
    config = ServerConfig(
        host=_read_host(settings) or (_EVERYWHERE if safe else _LOOPBACK),
        port=settings.integer("server", "port", DEFAULT_PORT, 0, 65535, "0 for any free port"),
        cmd_timeout=settings.integer("server", "cmd_timeout_ms", 30_000, 1, _MAX_INT32) / 1000,
        max_output_bytes=settings.integer("server", "max_output_bytes", 262_144, 1, _MAX_OUTPUT_BYTES),
        shutdown_grace=settings.integer("server", "shutdown_grace_ms", 30_000, 0, _MAX_INT32) / 1000,
        transport=transport,
        state_dir=_read_state_dir(settings),
        tls=tls,
        auth=auth,
        policy=read_policy(settings),
        log_file=_read_log_file(settings),
        jobs=read_jobs(settings),
        trees=read_trees(settings),
        limits=read_limits(settings),
        command_limits=read_command_limits(settings),
        audit=read_audit(settings),
        state_dir_given=settings.given("server", "state_dir") is not None,
        log_level=_LEVELS[settings.choice("log", "level", "info", _LEVELS)],
    )
    settings.integer("log", "debug_level", -1, -1, 9)
    allow_plaintext = settings.boolean("server", "allow_plaintext_tokens", default=False)
    _check_exposure(settings, config, allow_plaintext)
    if not settings.problems:  # of rules that are not even valid, enough is said
        settings.warnings.extend(
            policy_warnings(config.policy.allow, config.policy.sections, config.known_identities)
        )
    return dataclasses.replace(config, warnings=tuple(settings.warnings))


def _read_host(settings: Settings) -> str | None:
    value = settings.given("server", "host")
    if value is None:
        return None
    host = value.text[1:-1] if value.text.startswith("[") and value.text.endswith("]") else value.text
    if not host or any(character.isspace() or character in "/[]@,;" for character in host):
        settings.report_value(value, "expected a host name or an IP address")
        return None
    return host


def _read_transport(settings: Settings) -> str:
    default = default_transport()
    transport = settings.choice("server", "transport", default, TRANSPORTS)
    if transport == HTTP2 and default != HTTP2:
        settings.report(
            "server",
            "transport",
            "expected grpc, or the package ngh2 (pip install 'airflow-provider-remsvc[server]')",
        )
    return transport


def _read_state_dir(settings: Settings) -> Path:
    path = settings.path("server", "state_dir")
    if path is None:
        return _default_state_dir()
    if path.exists() and not path.is_dir():
        settings.report("server", "state_dir", "expected a directory")
    return path.absolute()  # the supervisor's working directory is another one


def _default_state_dir() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), "remsvc")
    if os.geteuid() == 0:
        return Path("/var/lib/remsvc")
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path(os.path.expanduser("~"), ".local", "state")  # noqa: PTH111
    return base / "remsvc"


def _read_log_file(settings: Settings) -> Path | None:
    path = settings.path("log", "file")
    if path is not None and not path.parent.is_dir():
        settings.report("log", "file", f"expected a file in a directory that exists: {path}")
    return path


def _check_exposure(settings: Settings, config: ServerConfig, allow_plaintext: bool) -> None:
    if config.auth.uses_tokens and config.tls is None:
        if not config.exposed:
            settings.warnings.append("[auth] without TLS: tokens travel in the clear, on loopback only")
        elif allow_plaintext:
            settings.warnings.append("[auth] without TLS: tokens travel in the clear over the network")
        else:
            settings.report(
                "server",
                "host",
                "expected a loopback address, or [tls] enabled = true, or [server] "
                "allow_plaintext_tokens = true: [auth] without TLS sends tokens in the clear",
            )
    if config.auth.peer_uids is not None and (config.exposed or config.transport != HTTP2):
        settings.report(
            "server",
            "peer_uid",
            f"expected [server] transport = {HTTP2} and a host that is a loopback address with it: who is at "
            "the other end can be told within this host alone",
        )
    if config.exposed and not config.authenticates:
        settings.warnings.append(
            f"[server] host = {config.host}: anyone who can connect may run commands: "
            "there is neither [auth] nor mutual TLS ([tls] ca)"
        )
