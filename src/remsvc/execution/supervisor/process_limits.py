"""What the system holds each command to, beside time and output. POSIX only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Limits of each process of a command; None leaves one as the server has it.

    They are hard limits: a command cannot raise them, and whatever it starts inherits them.

    Attributes:
        nofile: open descriptors.
        nproc: processes and threads of the command's user, all of them together; not for root.
        memory_bytes: address space of one process.
        cpu_seconds: processor time of one process; then it gets SIGXCPU, and a second later SIGKILL.
        umask: permissions that new files do not get.
        no_new_privs: nothing that it runs gains privileges: no set-user-id program works.
    """

    nofile: int | None = None
    nproc: int | None = None
    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    umask: int | None = None
    no_new_privs: bool = False

    def to_message(self) -> dict[str, Any]:
        """What is not at its default, as JSON can carry it."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> ProcessLimits:
        """What :meth:`to_message` made, here or in another version."""
        if not message:
            return NO_LIMITS
        return cls(**{name: value for name, value in message.items() if name in _NAMES})


_NAMES = {field.name for field in fields(ProcessLimits)}
NO_LIMITS = ProcessLimits()
