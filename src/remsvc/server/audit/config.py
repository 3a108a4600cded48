"""The ``[audit]`` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from remsvc.server.audit.syslog import DEFAULT_SOCKET
from remsvc.server.policy.patterns import Rule
from remsvc.server.settings.settings import Settings


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
            settings.report(
                settings.given("audit", key), "", f"expected a file in a directory that exists: {path}"
            )
    syslog = _syslog(settings)
    if file is None and (syslog is not None or key_file is not None):
        value = settings.given("audit", "syslog") or settings.given("audit", "key_file")
        settings.report(value, "", "expected [audit] file as well: the chain of lines is kept there")
    return AuditConfig(
        file=file.absolute() if file else None,
        key_file=key_file.absolute() if key_file else None,
        syslog=syslog,
        redact=settings.patterns("audit", "redact"),
        refuse=settings.choice("audit", "on_failure", "refuse", {"refuse": 1, "continue": 1}) == "refuse",
    )


def _syslog(settings: Settings) -> Path | None:
    text = settings.text("audit", "syslog")
    if text is not None and text.startswith("/"):
        return settings.path("audit", "syslog")
    on = settings.boolean("audit", "syslog", default=False, otherwise=", or the path of a socket")
    return DEFAULT_SOCKET if on else None
