"""The audit log: who asked for what, what was decided, and what became of it.

It has a line for each decision about a command or a job, each change of a job's state, and each call that
was not authenticated. A permitted command starts only once its line is on disk. The lines form a chain,
which shows when somebody changes them: :mod:`remsvc.server.audit.chain`.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterable, Sequence

from remsvc.execution.jobs.model import JobContent, JobRecord
from remsvc.server.audit.config import AuditConfig
from remsvc.server.audit.file import AuditFile
from remsvc.server.audit.record import whole
from remsvc.server.audit.syslog import Syslog
from remsvc.server.audit.writer import AuditError, AuditWriter
from remsvc.server.bounds.floods import Bursts
from remsvc.server.caller import CallContext
from remsvc.server.logs import fields
from remsvc.server.own_user import own_user_name
from remsvc.server.peers import network_of_peer
from remsvc.server.policy.decision import NO_SHELL, POWERSHELL, SHELL
from remsvc.server.policy.patterns import Rule, compile_pattern

_logger = logging.getLogger("remsvc.audit")

_SHOWN_REFUSED = 4096
_REPLACEMENT = "***"


class Redaction:
    """Replaces in texts what the configuration says must not be written anywhere (``[audit] redact``).

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


class Audit:
    """The audit log of a server. Where none is configured, it writes nothing and refuses nothing.

    It is also the :class:`~remsvc.execution.jobs.observer.JobObserver` of the server's jobs.

    Attributes:
        redact: applied to each text that the audit log or the server's log shows of a command.
    """

    def __init__(self, config: AuditConfig) -> None:
        self.redact = Redaction(config.redact)
        self._refuse = config.refuse
        self._own_user = own_user_name()
        self._writer: AuditWriter | None = None
        if config.file is not None:
            syslog = Syslog(config.syslog) if config.syslog is not None else None
            self._writer = AuditWriter(AuditFile(config.file, config.key_file), syslog)
        self._unauthenticated = Bursts(self._more_unauthenticated)
        self._refused = Bursts(self._more_refused)

    async def open(self) -> None:
        """Open the log. Raises :class:`~remsvc.server.audit.file.AuditFileInUseError`."""
        if self._writer is not None:
            await self._writer.open()
            self.note_server("started", version=_version(), pid=os.getpid())

    async def close(self) -> None:
        """Write what still waits, then that the log ends here, and close it."""
        self._unauthenticated.say()
        self._refused.say()
        self.note_server("stopped", pid=os.getpid())
        if self._writer is not None:
            await self._writer.close()

    def reopen(self) -> None:
        """Go on in a new file, if the log was moved away. Any thread may call this."""
        if self._writer is not None:
            self._writer.reopen()

    async def permit(
        self,
        call: CallContext,
        method: str,
        content: JobContent,
        *,
        rule: str = "",
        request_id: str = "",
        job: str = "",
    ) -> None:
        """Write that a command may start. It must not start before this returns.

        Raises:
            AuditError: the log cannot be written, and so the command must not start.
        """
        if self._writer is None:
            return
        record = {
            **_decision(call, method, "allowed", rule=rule, request_id=request_id, job=job),
            **self._command(content),
        }
        try:
            await self._writer.write(record, keep=not self._refuse)
        except AuditError as error:
            if self._refuse:
                _logger.error("a command is refused: the audit log cannot be written: %s", error)
                raise AuditError("the audit log cannot be written: commands are refused") from error

    def refuse(
        self,
        call: CallContext,
        method: str,
        content: JobContent | None,
        *,
        code: str,
        reason: str,
        rule: str = "",
        request_id: str = "",
        job: str = "",
    ) -> bool:
        """Write that something was refused. ``code`` and ``reason`` are those of the call's status.

        Returns:
            Whether the server's log is to have a line of its own for it, too. Of very many refusals of one
            identity in a short time, only the first ones have; the others are counted, and told of together
            in both logs.
        """
        if not self._refused.admit(call.identity, code):
            return False
        if self._writer is None:
            return True
        record: dict[str, object] = {
            **_decision(call, method, "refused", rule=rule, request_id=request_id, job=job),
            "code": code,
            "reason": self.redact(reason),
        }
        if content is not None:
            record |= self._command(content, _SHOWN_REFUSED)
        self._note(record, refusal=True)
        return True

    def permit_access(self, call: CallContext, method: str, job: JobRecord, reason: str = "") -> None:
        """Write that somebody watches or ends a job."""
        if self._writer is None:
            return
        record = _decision(call, method, "allowed", request_id=job.request_id, job=job.id)
        self._note({**record, "reason": self.redact(reason)})

    def permit_list(self, call: CallContext, method: str, jobs: Sequence[str]) -> None:
        """Write that somebody was shown jobs of others; ``jobs``: their ids."""
        if self._writer is not None:
            self._note({**_decision(call, method, "allowed"), "jobs": list(jobs)})

    def unauthenticated(self, method: str, peer: str, reason: str) -> bool:
        """Write that a call was not authenticated.

        Returns:
            Whether the server's log is to have a line of its own for it, too. Of very many from one address
            (IPv6: one /64) in a short time, only the first ones have; the others are counted, and told of
            together in both logs.
        """
        if not self._unauthenticated.admit(network_of_peer(peer)):
            return False
        self._note({**_UNAUTHENTICATED, "peer": peer, "method": method, "reason": reason}, refusal=True)
        return True

    def _more_unauthenticated(self, network: str, count: int, _: str, seconds: float) -> None:
        self._more(_UNAUTHENTICATED, {"peer": network}, count, seconds)

    def _more_refused(self, identity: str, count: int, code: str, seconds: float) -> None:
        about: dict[str, object] = {"event": "decision", "outcome": "refused"}
        self._more(about, {"identity": identity, "code": code}, count, seconds)

    def _more(self, about: dict[str, object], whose: dict[str, str], count: int, seconds: float) -> None:
        """Write, in both logs, how many more there were that have no line of their own."""
        reason = f"{count} more refused in {max(seconds, 1):.0f} s"
        _logger.warning("%s %s", reason, fields(**whose))
        self._note({**about, **whose, "suppressed": count, "reason": reason}, refusal=True)

    def note_server(self, action: str, **details: object) -> None:
        """Write what the server itself did, such as ``reloaded``."""
        self._note({"event": "server", "action": action, **details})

    # As a JobObserver

    def on_state(self, job: JobRecord) -> None:
        """Write a job's new state."""
        if self._writer is not None:
            self._note(self._transition(job))

    async def before_end(self, job: JobRecord) -> None:
        """Write a job's end. It is on disk when this returns; where it cannot be written, it is later."""
        if self._writer is None:
            return
        try:
            await self._writer.write(self._transition(job), keep=True)
        except AuditError as error:
            _logger.error("that job %s ended is not in the audit log yet: %s", job.id, error)

    def _transition(self, job: JobRecord) -> dict[str, object]:
        record: dict[str, object] = {
            "event": "transition",
            "outcome": job.state.value,
            "identity": job.identity,
            "request_id": job.request_id,
            "job": job.id,
            **self._command(job.content),
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

    def _note(self, record: dict[str, object], *, refusal: bool = False) -> None:
        if self._writer is not None:
            self._writer.note(record, refusal=refusal)

    def _command(self, content: JobContent, limit: int | None = None) -> dict[str, object]:
        """What runs and as whom, for a record. Arguments are quoted as for a shell.

        A record never has the value of a variable, nor standard input, because they may be secrets.
        """
        shell = POWERSHELL if content.powershell else SHELL
        text = content.shell_command if content.shell_command is not None else shlex.join(content.argv)
        text = self.redact(text)
        about: dict[str, object] = {"command": text[:limit]}
        if limit is not None and len(text) > limit:
            about |= whole("command", len(text), text)
        about |= {
            "shell": shell if content.shell_command is not None else NO_SHELL,
            "user": content.user or self._own_user,
            "working_directory": content.cwd,
            "environment": sorted(content.env),
            "source": content.source,
        }
        return about


_UNAUTHENTICATED: dict[str, object] = {"event": "authentication", "outcome": "refused"}


def _decision(
    call: CallContext, method: str, outcome: str, *, rule: str = "", request_id: str = "", job: str = ""
) -> dict[str, object]:
    caller = call.verified
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


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to load

    try:
        return version("airflow-provider-remsvc")
    except PackageNotFoundError:
        return "unknown"
