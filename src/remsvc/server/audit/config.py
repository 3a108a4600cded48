"""The ``[audit]`` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from remsvc.server.audit.syslog import DEFAULT_SOCKET
from remsvc.server.policy.patterns import Rule, pattern_problem
from remsvc.server.settings.schema import Key, Kind, Section
from remsvc.server.settings.settings import Settings

AUDIT_SECTION = Section(
    "audit",
    (
        Key("file", Kind.TEXT),
        Key("key_file", Kind.TEXT),
        Key("syslog", Kind.TEXT),
        Key("redact", Kind.TEXT, repeatable=True),
        Key("on_failure"),
    ),
)


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """The audit log.

    Attributes:
        file: where it is written to; None for none.
        key_file: the key of its head; None for the one beside it.
        syslog: the socket of the system's log; None not to send there.
        redact: what in a command is replaced, in the audit log and in the server's log.
        refuse: refuse commands while the log cannot be written.
    """

    file: Path | None = None
    key_file: Path | None = None
    syslog: Path | None = None
    redact: tuple[Rule, ...] = ()
    refuse: bool = True


def read_audit(settings: Settings) -> AuditConfig:
    """The section. Problems go to ``settings``."""
    file, key_file = settings.path("audit", "file"), settings.path("audit", "key_file")
    for key, path in (("file", file), ("key_file", key_file)):
        if path is not None and (not path.parent.is_dir() or path.is_dir()):
            settings.report("audit", key, f"expected a file in a directory that exists: {path}")
    syslog = _syslog(settings)
    if file is None and (syslog is not None or key_file is not None):
        key = "syslog" if settings.given("audit", "syslog") else "key_file"
        settings.report("audit", key, "expected [audit] file as well: the chain of lines is kept there")
    return AuditConfig(
        file=file.absolute() if file else None,
        key_file=key_file.absolute() if key_file else None,
        syslog=syslog,
        redact=_read_redact(settings),
        refuse=settings.choice("audit", "on_failure", "refuse", ("refuse", "continue")) == "refuse",
    )


def _read_redact(settings: Settings) -> tuple[Rule, ...]:
    rules = []
    for name, value in settings.repeated("audit", "redact"):
        if not value.text:
            settings.warnings.append(f"{value.where}: not used, because it is empty")
            continue
        if problem := pattern_problem(value.text):
            settings.report_value(value, problem)
        rules.append(Rule(name, value.text))
    return tuple(rules)


def _syslog(settings: Settings) -> Path | None:
    text = settings.text("audit", "syslog")
    if text is not None and text.startswith("/"):
        return settings.path("audit", "syslog")
    on = settings.boolean("audit", "syslog", default=False, otherwise=", or the path of a socket")
    return DEFAULT_SOCKET if on else None
