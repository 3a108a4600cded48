"""``[limits]``: what the system holds each command to."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass

from remsvc.execution.supervisor.cgroup import GroupParent, find_parent
from remsvc.execution.supervisor.protocol import NO_LIMITS, OUTPUT_WAIT, ProcessLimits
from remsvc.server.settings.schema import Key, Kind, Section
from remsvc.server.settings.settings import Settings

_AUTO, _OFF = "auto", "off"

COMMAND_SECTIONS = (
    Section("jobs", (Key("cgroup", Kind.TEXT), Key("output_wait_ms"))),
    Section(
        "limits",
        (
            Key("nofile"),
            Key("nproc"),
            Key("memory_bytes"),
            Key("cpu_seconds"),
            Key("umask"),
            Key("no_new_privs"),
        ),
    ),
)
"""The keys that say how the system keeps and holds the processes of every command."""


@dataclass(frozen=True, slots=True)
class TreeConfig:
    """Processes of commands, whether these are durable jobs or not.

    Attributes:
        cgroup: ``auto``, ``off``, or the control group below which commands get theirs.
        output_wait: seconds that output which others pass on is waited for, when its command has ended.
    """

    cgroup: str = _AUTO
    output_wait: float = OUTPUT_WAIT

    def find_groups(self) -> GroupParent | None:
        """Where control groups can be had; None for nowhere. This may mount their hierarchy."""
        return None if self.cgroup == _OFF else find_parent("" if self.cgroup == _AUTO else self.cgroup)


def read_trees(settings: Settings) -> TreeConfig:
    """Those keys. Problems go to ``settings``."""
    cgroup = settings.text("jobs", "cgroup") or _AUTO
    # What is named is only looked at. To find out what else can be had is for a server that starts.
    if cgroup not in (_AUTO, _OFF) and find_parent(cgroup) is None:
        settings.report(
            "jobs", "cgroup", "expected auto, off, or a version-2 control group that the server may write to"
        )
    output_wait = settings.integer("jobs", "output_wait_ms", round(OUTPUT_WAIT * 1000), 0, 600_000)
    return TreeConfig(cgroup, output_wait / 1000)


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
        settings.report_value(value, "expected an octal number from 000 to 777")
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
