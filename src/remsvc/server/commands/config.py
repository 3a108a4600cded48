"""``[limits]``: what the system holds each command to."""

from __future__ import annotations

import os
import re
import sys

from remsvc.execution.supervisor.process_limits import NO_LIMITS, ProcessLimits
from remsvc.server.settings.settings import Settings

_MAX = 2**31 - 1
_MAX_BYTES = 2**50
_LEAST_MEMORY = 16 * 1024**2


def read_command_limits(settings: Settings) -> ProcessLimits:
    """The part of the section that is about commands. Problems go to ``settings``."""

    def number(key: str, low: int, high: int) -> int | None:
        return settings.integer("limits", key, low, low, high) if settings.given("limits", key) else None

    limits = ProcessLimits(
        nofile=number("nofile", 16, _MAX),
        nproc=number("nproc", 1, _MAX),
        memory_bytes=number("memory_bytes", _LEAST_MEMORY, _MAX_BYTES),
        cpu_seconds=number("cpu_seconds", 1, _MAX),
        umask=_umask(settings),
        no_new_privs=settings.boolean("limits", "no_new_privs", default=False),
    )
    if sys.platform == "win32":
        if limits != NO_LIMITS:
            settings.warnings.append("[limits] for commands: not used on Windows")
        return NO_LIMITS
    _warn(settings, limits)
    return limits


def _umask(settings: Settings) -> int | None:
    value = settings.given("limits", "umask")
    if value is None:
        return None
    if not re.fullmatch(r"0?[0-7]{1,3}", value.text):
        settings.report(value, "", "expected an octal number from 000 to 777")
        return None
    return int(value.text, 8)


def _warn(settings: Settings, limits: ProcessLimits) -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limits.nofile is not None and limits.nofile > hard != resource.RLIM_INFINITY:
        settings.warnings.append(
            f"[limits] nofile = {limits.nofile}: commands get {hard}, the highest that this process may have"
        )
    if limits.nproc is not None and os.geteuid() == 0:
        settings.warnings.append("[limits] nproc: the system does not hold root to it, only other users")
