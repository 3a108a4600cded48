"""How commands' processes are kept together: the keys of ``[jobs]`` that version-1 commands need as well."""

from __future__ import annotations

from dataclasses import dataclass

from remsvc.execution.engine import OUTPUT_WAIT
from remsvc.execution.supervisor.cgroup import GroupParent, find_parent
from remsvc.server.settings.settings import Settings

_AUTO, _OFF = "auto", "off"


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
        value = settings.given("jobs", "cgroup")
        settings.report(
            value, "", "expected auto, off, or a version-2 control group that the server may write to"
        )
    output_wait = settings.integer("jobs", "output_wait_ms", round(OUTPUT_WAIT * 1000), 0, 600_000)
    return TreeConfig(cgroup, output_wait / 1000)
