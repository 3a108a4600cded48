"""Rules that are valid but do not do what they seem to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from remsvc.server.decision import NO_SHELL
from remsvc.server.pattern_shape import is_anchored, lets_operators_pass
from remsvc.server.patterns import Rule
from remsvc.server.policy_section import ANY, PolicySection, PolicySections
from remsvc.server.programs import Program
from remsvc.server.trusted_file import UntrustedFileError, check_trusted
from remsvc.server.variables import is_reserved

_STARTERS = frozenset(
    (
        *("ash", "awk", "bash", "busybox", "chroot", "csh", "dash", "doas", "docker", "ed", "emacs", "env"),
        *("ex", "expect", "find", "fish", "flock", "gawk", "gdb", "git", "ionice", "ksh", "less", "lua"),
        *("make", "man", "mawk", "more", "nano", "nice", "node", "nohup", "npm", "parallel", "perl", "php"),
        *(
            "podman",
            "pwsh",
            "rsync",
            "ruby",
            "runuser",
            "script",
            "sed",
            "setsid",
            "sh",
            "socat",
            "ssh",
            "stdbuf",
        ),
        *("strace", "su", "sudo", "systemd-run", "tar", "tclsh", "tcsh", "time", "timeout", "unshare", "vi"),
        *("vim", "watch", "xargs", "zsh"),
    )
)
"""Programs that start others at their arguments' bidding, as far as they are well known."""


def policy_warnings(
    allow: Sequence[Rule], sections: PolicySections, known: Iterable[str] | None
) -> Iterator[str]:
    """A line for each rule that deserves a second look.

    Args:
        known: the identities that a caller can have; None where they are not known.
    """
    everyone = [sections.groups[name] for name, members in sections.members.items() if ANY in members]
    yield from _of_patterns("[allowlist]", allow, _shell_is_permitted(everyone))
    groups = [(name, section) for name, section in sorted(sections.groups.items())]
    every = [*sections.identities.values(), *(section for _, section in groups)]
    for section in every:
        yield from _of_section(section, has_global=bool(allow))
    if known is not None:
        yield from _of_names(sections, frozenset(known))
    for identity in sections.identities:
        yield from _of_combination(identity, sections.applying(identity))


def _of_patterns(where: str, allow: Sequence[Rule], shell: bool) -> Iterator[str]:
    for rule in allow:
        place = f"{rule.section or where} {rule.name}"
        if not is_anchored(rule.pattern):
            yield (
                f"{place} = {rule.pattern}: permits every command that merely contains it; "
                "write ^ before and $ behind what is to be all of it"
            )
        elif shell and lets_operators_pass(rule.pattern):
            yield (
                f"{place} = {rule.pattern}: matches ; & | and the like, so that a shell runs any command "
                "behind a permitted one; use [identity] shells = none and programs, or exclude them"
            )


def _of_section(section: PolicySection, has_global: bool) -> Iterator[str]:
    shell = _shell_is_permitted([section])
    yield from _of_patterns(section.name, section.allow, shell)
    if section.allow and has_global:
        yield f"{section.name} allow: adds nothing to [allowlist]; a command has to match both"
    if section.shells is not None and not shell and section.programs is None and not section.allow:
        yield f"{section.name} shells: a shell can still be started as a program; list the programs, too"
    if section.programs is not None:
        if shell:
            yield f"{section.name} programs: a permitted shell starts any other program; write shells = none"
        for program in section.programs:
            # Where patterns bound its arguments, a program may start others.
            if problem := (not section.allow and _starts_others(program)) or _problem(program):
                yield f"{section.name} programs: {program.text}: {problem}"
    if section.users is not None and ANY in section.users:
        yield f"{section.name} users: * permits every user, root as well"
    for name in section.environment or ():
        if section.programs is not None and is_reserved(name, bounded=True):
            yield f"{section.name} environment: {name} is never permitted beside programs"
        elif section.allow and is_reserved(name, bounded=True):
            yield f"{section.name} environment: {name} decides what a permitted command runs"
        elif section.programs is not None and name == ANY:
            yield f"{section.name} environment: * permits variables by which a program may run other ones"


def _of_names(sections: PolicySections, known: frozenset[str]) -> Iterator[str]:
    for identity in sections.identities:
        if identity != ANY and identity not in known:
            yield f"[identity {identity}]: no caller has this identity"
    for group, members in sorted(sections.members.items()):
        for member in sorted(members - known - {ANY}):
            yield f"[group {group}] members: no caller has the identity {member}"


def _of_combination(identity: str, sections: Sequence[PolicySection]) -> Iterator[str]:
    """What nothing satisfies, because each section has to permit it."""
    names = " and ".join(section.name for section in sections)
    for key in ("users", "shells"):
        given = [value for section in sections if (value := getattr(section, key)) is not None]
        bounds = [value for value in given if ANY not in value]
        if len(bounds) > 1 and not frozenset.intersection(*bounds):
            yield f"[identity {identity}] can run nothing: {names} have no {key} in common"


def _shell_is_permitted(sections: Iterable[PolicySection]) -> bool:
    for section in sections:
        if section.shells is None and section.programs is not None:
            return False
        if section.shells is not None and section.shells <= {NO_SHELL}:
            return False
    return True


def _starts_others(program: Program) -> str:
    names = {PurePosixPath(path).name for path in (program.path, os.path.realpath(program.path))}
    if names & _STARTERS or any(name.startswith("python") for name in names):
        return "starts other programs as its arguments say; bound them with allow patterns"
    return ""


def _problem(program: Program) -> str:
    """Why an entry bounds nothing or permits nothing; empty where neither is so."""
    path = Path(program.path)
    try:
        if not path.exists():
            return "does not exist"
        if program.is_folder != path.is_dir():
            return "a folder is written with a slash at its end, a program without"
        if os.name == "posix":
            check_trusted(path)
    except UntrustedFileError as error:
        return f"others could put another program there: {error}"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    return ""
