"""The question to the policy and its answer: a command as somebody asks for it, and a decision."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar, overload

from remsvc.command import Command, CommandType
from remsvc.execution.jobs.model import JobContent
from remsvc.server.bounds.rate_limit import Rate

_Number = TypeVar("_Number", int, float)

DEFAULT_RULE = "default"
"""The rule that a decision names where no rule of the configuration has decided."""
_SHOWN_CHARACTERS = 100

NO_SHELL, SHELL, POWERSHELL = "none", "sh", "pwsh"
SHELLS = (NO_SHELL, SHELL, POWERSHELL)
"""How a command may be started: a program with its arguments, or a text for one of two shells."""


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """A command as somebody asks for it: of version 1, or a durable job.

    Attributes:
        shell: one of :data:`SHELLS`.
        text: for the shell; empty without one.
        argv: program and arguments; empty with a shell.
        user: the user to run as; empty for the server's own.
        environment: the variables that the caller sets.
        directory: where it is to start; empty where the caller leaves that to the server.
        has_input: whether the caller gives it standard input.
    """

    shell: str
    text: str = ""
    argv: tuple[str, ...] = ()
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""
    has_input: bool = False

    @classmethod
    def of_command(cls, command: Command) -> CommandRequest:
        """The request of a version-1 command."""
        shell = POWERSHELL if command.cmdtyp == CommandType.POWERSHELL else SHELL
        return cls(shell, command.cmd, user=_effective(command.cmdusr))

    @classmethod
    def of_job(cls, content: JobContent, *, has_input: bool) -> CommandRequest:
        """The request of a durable job."""
        shell = NO_SHELL
        if content.shell_command is not None:
            shell = POWERSHELL if content.powershell else SHELL
        return cls(
            shell,
            content.shell_command or "",
            content.argv if shell == NO_SHELL else (),
            _effective(content.user),
            content.env,
            content.cwd,
            has_input,
        )

    @property
    def size(self) -> int:
        """How many characters patterns have to look at, at most."""
        return len(self.text) + sum(map(len, self.argv))

    @property
    def matched(self) -> str:
        """What patterns are matched against: the shell's text, or the arguments quoted as a shell
        would need them, so that none can pass for two.
        """
        return self.text if self.shell != NO_SHELL else shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class IdentityLimits:
    """How much one identity may take; None where nothing limits it.

    Attributes:
        time_limit: seconds for a command.
        output_limit: bytes kept of each output of a command.
        max_running, max_queued: commands at one time.
        rate: commands asked for in a while; with several, the one that takes longest for each.
    """

    time_limit: float | None = None
    output_limit: int | None = None
    max_running: int | None = None
    max_queued: int | None = None
    rate: Rate | None = None

    def within(self, other: IdentityLimits) -> IdentityLimits:
        """The limits that keep to both: of each, the lower one."""
        return IdentityLimits(
            _lower(self.time_limit, other.time_limit),
            _lower(self.output_limit, other.output_limit),
            _lower(self.max_running, other.max_running),
            _lower(self.max_queued, other.max_queued),
            min((rate for rate in (self.rate, other.rate) if rate), default=None, key=Rate.in_a_second),
        )

    def shown(self) -> dict[str, object]:
        """The limits that are set, as the configuration writes them."""
        limits = {
            "time_limit_ms": None if self.time_limit is None else round(self.time_limit * 1000),
            "output_limit_bytes": self.output_limit,
            "max_running": self.max_running,
            "max_queued": self.max_queued,
            "rate": self.rate and str(self.rate),
        }
        return {name: limit for name, limit in limits.items() if limit is not None}

    def of_job(self, content: JobContent) -> JobContent:
        """A job that keeps to the limits, of one into which the server's defaults are filled already.

        A time limit also bounds the wait between TERM and KILL.
        """
        if self.time_limit is None and self.output_limit is None:
            return content
        return replace(
            content,
            time_limit=_lower(content.time_limit, self.time_limit),
            kill_grace=_lower(content.kill_grace, self.time_limit),
            output_limit=_lower(content.output_limit, self.output_limit),
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a command may run, and why.

    Attributes:
        allowed: whether it may.
        rule: what decided, as the configuration writes it: ``[identity etl] users``; ``default``
            where no rule speaks of it. For the audit log and whoever administers the server.
        message: for the caller, where it is refused.
        program: where a list of programs decided: the path to start in place of the first argument.
        limits: for the command, where it is allowed.
    """

    allowed: bool
    rule: str
    message: str = ""
    program: str = ""
    limits: IdentityLimits = field(default_factory=IdentityLimits)


@dataclass(frozen=True, slots=True)
class Step:
    """One check of a decision.

    Attributes:
        allowed: False where it refuses the command.
        rule: what was checked, as the configuration writes it.
        message: what was found; where it refuses, for the caller.
        program: see :class:`Decision`.
    """

    allowed: bool
    rule: str
    message: str = ""
    program: str = ""

    @classmethod
    def of(cls, allowed: bool, rule: str, message: str) -> Step:
        """The step of a check: ``message`` and the rule's name are for the caller where it refuses."""
        return cls(allowed, rule, "permits it" if allowed else f"{message} (rule {rule})")


def shown(text: str) -> str:
    """What a caller has sent, quoted and cut, so that it is safe to show."""
    return json.dumps(text[:_SHOWN_CHARACTERS])


@overload
def _lower(one: _Number, other: _Number | None) -> _Number: ...
@overload
def _lower(one: _Number | None, other: _Number | None) -> _Number | None: ...
def _lower(one: _Number | None, other: _Number | None) -> _Number | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


def _effective(user: str) -> str:
    # On Windows a command runs as the server's own user, whatever it asks for.
    return "" if sys.platform == "win32" else user
