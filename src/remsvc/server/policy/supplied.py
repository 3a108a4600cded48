"""Decides on what a caller supplies beside the command: variables, the working directory, standard input.

Each of these can make a program do something else, and nobody can list all the ways in which it can. So
where the policy bounds what runs, by patterns or by programs, only what a section lists is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from remsvc.server.policy.decision import DEFAULT_RULE, CommandRequest, Step, shown
from remsvc.server.policy.directories import permits_directory
from remsvc.server.policy.section import PolicySection
from remsvc.server.policy.variables import is_barred, is_reserved, permits

_Value = TypeVar("_Value")


def supplied_steps(
    sections: Sequence[PolicySection],
    request: CommandRequest,
    *,
    has_allowlist: bool,
    allowlist_bounds: bool,
) -> Iterator[Step]:
    """The checks of what is supplied with a request.

    Args:
        sections: those that apply to its caller.
        has_allowlist: whether there is a global list of patterns of which one must match.
        allowlist_bounds: whether all of them are anchored. Where one is not, the list bounds nothing:
            whatever somebody wants to run, that pattern permits it together with what it matches.
    """
    if not (request.environment or request.directory or request.has_input):
        return
    bounding = next((section.name for section in sections if section.bounds_programs), "")
    if not bounding and allowlist_bounds:
        bounding = _ALLOWLIST
    checks = _Checks(sections, bounding)
    if request.environment:
        yield from _environment(checks, request, guarded=bool(bounding) or has_allowlist)
    if directory := request.directory:
        message = f"working directory {shown(directory)} may not be chosen"
        yield from checks.of(
            "directories",
            lambda section: section.directories,
            lambda listed: permits_directory(listed, directory),
            message,
        )
    if request.has_input:
        yield from checks.of("input", lambda section: section.input, bool, "standard input may not be given")


_ALLOWLIST = "[allowlist]"


@dataclass(frozen=True, slots=True)
class _Checks:
    """Checks by one key of the sections.

    Attributes:
        bounding: what bounds the programs that run, as the configuration writes it; empty for nothing.
    """

    sections: Sequence[PolicySection]
    bounding: str

    def of(
        self,
        key: str,
        value_in: Callable[[PolicySection], _Value | None],
        permitted: Callable[[_Value], bool],
        message: str,
    ) -> Iterator[Step]:
        """Every section that has the key must permit it; where programs are bounded, one must have it.

        Args:
            key: as the configuration writes it.
            value_in: the value that a section gives it; None where it has none.
            permitted: whether a value permits what the caller supplies.
            message: what is refused, for the caller.
        """
        has_key = False
        for section in self.sections:
            if (value := value_in(section)) is not None:
                has_key = True
                why = f"{message}: {section.name} {key} does not permit it"
                yield Step.of(permitted(value), f"{section.name} {key}", why)
        if has_key or not self.bounding:
            return
        if self.bounding == _ALLOWLIST:
            why = f"{message}: {_ALLOWLIST} bounds what runs, and no section of this caller has the key {key}"
            yield Step.of(False, _ALLOWLIST, why)
        else:
            why = f"{message}: {self.bounding} bounds what runs, and has no key {key}"
            yield Step.of(False, f"{self.bounding} {key}", why)


def _environment(checks: _Checks, request: CommandRequest, *, guarded: bool) -> Iterator[Step]:
    listed = any(section.programs is not None for section in checks.sections)
    for name in sorted(request.environment):
        message = f"environment variable {shown(name)} may not be set"
        if listed and is_barred(name):
            yield Step.of(False, "programs", f"{message}: it decides what a program runs")
            continue
        settable = partial(_settable, name, guarded)
        steps = list(checks.of("environment", lambda section: section.environment, settable, message))
        yield from steps
        if not steps and is_reserved(name, bounded=guarded):
            yield Step.of(False, f"{DEFAULT_RULE} environment", f"{message}: it decides what a program runs")


def _settable(name: str, bounded: bool, names: tuple[str, ...]) -> bool:
    return permits(names, name, bounded=bounded)
