"""The audit log: who asked for what, what was decided, and what became of it.

A line for each decision about a command or a job, each transition of a job, and each call that was
not authenticated. A command that is permitted starts only once its line is on disk. How lines are
chained is in :mod:`remsvc.server.audit_chain`.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections.abc import Iterable

from remsvc.execution.job import Job, JobSpec
from remsvc.server.audit_config import AuditConfig
from remsvc.server.audit_file import AuditFile
from remsvc.server.audit_syslog import Syslog
from remsvc.server.audit_writer import AuditError, AuditWriter
from remsvc.server.call import Call
from remsvc.server.decision import NO_SHELL, POWERSHELL, SHELL
from remsvc.server.patterns import Rule, compile_pattern

_logger = logging.getLogger("remsvc.audit")

_SHOWN_REFUSED = 4096
_AT_ONCE = 100
_A_SECOND = 20.0
_REPLACEMENT = "***"
_EXHAUSTED = "RESOURCE_EXHAUSTED"


class Redaction:
    """Replaces what must not be written anywhere.

    Raises:
        PatternError: on construction, for a pattern that cannot be used.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._patterns = [compile_pattern(rule.pattern) for rule in rules]

    def __call__(self, text: str) -> str:
        """The text with ``***`` for each match."""
        for pattern in self._patterns:
            text = pattern.sub(_REPLACEMENT, text)
        return text


class _Flood:
    """Lets through some records of a kind that callers can make at will, and counts the others."""

    def __init__(self) -> None:
        self._room = float(_AT_ONCE)
        self._since = time.monotonic()
        self._suppressed = 0

    def admit(self) -> dict[str, object] | None:
        """What a record says of those before it that were not written; None: this one is not either."""
        now = time.monotonic()
        self._room = min(self._room + (now - self._since) * _A_SECOND, _AT_ONCE)
        self._since = now
        if self._room < 1:
            self._suppressed += 1
            return None
        self._room -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return {"suppressed": suppressed} if suppressed else {}


class Audit:
    """The audit log of a server; where none is configured, nothing is written and nothing refused."""

    def __init__(self, config: AuditConfig) -> None:
        self.redact = Redaction(config.redact)
        self._refuse = config.refuse
        self._writer: AuditWriter | None = None
        if config.file is not None:
            syslog = Syslog(config.syslog) if config.syslog is not None else None
            self._writer = AuditWriter(AuditFile(config.file, config.key_file), syslog)
        self._unauthenticated = _Flood()
        self._exhausted = _Flood()

    async def open(self) -> None:
        """Open the log. Raises :class:`~remsvc.server.audit_file.AuditFileInUseError`."""
        if self._writer is not None:
            await self._writer.open()
            self.note_server("started", version=_version(), pid=os.getpid())

    async def close(self) -> None:
        """Write what waits, and that the log ends here."""
        self.note_server("stopped", pid=os.getpid())
        if self._writer is not None:
            await self._writer.close()

    def reopen(self) -> None:
        """Go on in a new file, if the log was moved away. Any thread may call this."""
        if self._writer is not None:
            self._writer.reopen()

    async def permit(
        self,
        call: Call,
        method: str,
        spec: JobSpec,
        *,
        rule: str = "",
        request_id: str = "",
        job: str = "",
    ) -> None:
        """Write that a command may start; it must not before this returns.

        Raises:
            AuditError: it must not start, because the log cannot be written.
        """
        if self._writer is None:
            return
        record = {
            **_decision(call, method, "allowed", rule=rule, request_id=request_id, job=job),
            **self._command(spec),
        }
        try:
            await self._writer.write(record, keep=not self._refuse)
        except AuditError as error:
            if self._refuse:
                _logger.error("a command is refused: the audit log cannot be written: %s", error)
                raise AuditError("the audit log cannot be written: commands are refused") from error

    def refuse(
        self,
        call: Call,
        method: str,
        spec: JobSpec | None,
        *,
        code: str,
        reason: str,
        rule: str = "",
        request_id: str = "",
        job: str = "",
    ) -> None:
        """Write that something was refused; ``code`` and ``reason`` are those of the call's status.

        Of very many in a short time that were too much they are only counted.
        """
        if self._writer is None:
            return
        about = self._exhausted.admit() if code == _EXHAUSTED else {}
        if about is None:
            return
        record: dict[str, object] = {
            **_decision(call, method, "refused", rule=rule, request_id=request_id, job=job),
            "code": code,
            "reason": self.redact(reason),
            **about,
        }
        if spec is not None:
            record |= self._command(spec, _SHOWN_REFUSED)
        self._note(record)

    def permit_access(self, call: Call, method: str, job: Job, reason: str = "") -> None:
        """Write that somebody watches or ends a job."""
        if self._writer is None:
            return
        record = _decision(call, method, "allowed", request_id=job.request_id, job=job.id)
        self._note({**record, "reason": self.redact(reason)})

    def unauthenticated(self, method: str, peer: str, reason: str) -> None:
        """Write that a call was not authenticated. Of very many in a short time they are only counted."""
        about = self._unauthenticated.admit()
        if about is None:
            return
        record: dict[str, object] = {"event": "authentication", "outcome": "refused"}
        self._note({**record, "peer": peer, "method": method, "reason": reason, **about})

    def note_server(self, action: str, **details: object) -> None:
        """Write what the server itself did, such as ``reloaded``."""
        self._note({"event": "server", "action": action, **details})

    # As a JobObserver

    def on_state(self, job: Job) -> None:
        """Write a job's new state."""
        if self._writer is not None:
            self._note(self._transition(job))

    async def before_end(self, job: Job) -> None:
        """Write a job's end; it is on disk when this returns, where that is possible."""
        if self._writer is None:
            return
        try:
            await self._writer.write(self._transition(job), keep=True)
        except AuditError as error:
            _logger.error("that job %s ended is not in the audit log yet: %s", job.id, error)

    def _transition(self, job: Job) -> dict[str, object]:
        record: dict[str, object] = {
            "event": "transition",
            "outcome": job.state.value,
            "identity": job.identity,
            "request_id": job.request_id,
            "job": job.id,
            **self._command(job.spec),
            "reason": self.redact(job.reason),
        }
        if job.state.ended:
            record |= {
                "exit_code": job.exit_code,
                "signal": job.signal,
                "stdout_bytes": job.stdout.total,
                "stderr_bytes": job.stderr.total,
            }
        return record

    def _note(self, record: dict[str, object]) -> None:
        if self._writer is not None:
            self._writer.note(record)

    def _command(self, spec: JobSpec, limit: int | None = None) -> dict[str, object]:
        """What runs, as whom; arguments are quoted as for a shell. Never a variable's value, nor input."""
        shell = POWERSHELL if spec.powershell else SHELL
        text = spec.shell_command if spec.shell_command is not None else shlex.join(spec.argv)
        text = self.redact(text)
        about: dict[str, object] = {"command": text[:limit]}
        if limit is not None and len(text) > limit:
            about["command_length"] = len(text)
        about |= {
            "shell": shell if spec.shell_command is not None else NO_SHELL,
            "user": spec.user or _OWN_USER,
            "working_directory": spec.cwd,
            "environment": sorted(spec.env),
            "source": spec.source,
        }
        return about


def _decision(
    call: Call, method: str, outcome: str, *, rule: str = "", request_id: str = "", job: str = ""
) -> dict[str, object]:
    caller = call.caller
    assert caller is not None
    return {
        "event": "decision",
        "outcome": outcome,
        "identity": caller.identity,
        "token": caller.token_id,
        "certificate": caller.fingerprint,
        "peer": call.peer,
        "method": method,
        "request_id": request_id,
        "job": job,
        "rule": rule,
    }


def _own_user() -> str:
    if sys.platform == "win32":
        return os.environ.get("USERNAME", "")
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


_OWN_USER = _own_user()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to load

    try:
        return version("airflow-provider-remsvc")
    except PackageNotFoundError:
        return "unknown"
