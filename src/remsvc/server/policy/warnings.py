"""Warns of rules that are valid, but do not do what they seem to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from remsvc.server.policy.decision import NO_SHELL
from remsvc.server.policy.pattern_shape import is_anchored, lets_operators_pass
from remsvc.server.policy.patterns import Rule
from remsvc.server.policy.programs import Program
from remsvc.server.policy.section import ANY, PolicySection, PolicySections
from remsvc.server.policy.variables import is_barred, runs_code
from remsvc.server.settings.files import UntrustedFileError, check_trusted

_STARTERS = frozenset(
    (
        *("ansible", "ansible-playbook", "apt", "apt-get", "ash", "at", "awk", "bash", "batch", "busybox"),
        *("cargo", "chroot", "crontab", "csh", "dash", "doas", "docker", "dpkg", "ed", "emacs", "env"),
        *("ex", "expect", "find", "fish", "flock", "gawk", "gcc", "gdb", "git", "go", "helm", "ionice"),
        *("java", "journalctl", "ksh", "kubectl", "less", "lua", "make", "man", "mawk", "more", "mount"),
        *("mysql", "nano", "nice", "node", "nohup", "npm", "nsenter", "parallel", "perl", "php", "pip"),
        *("pip3", "podman", "psql", "pwsh", "python", "rclone", "rg", "rpm", "rsync", "ruby", "runuser"),
        *("salt-call", "scp", "script", "sed", "service", "setpriv", "setsid", "sftp", "sh", "socat"),
        *("sqlite3", "ssh", "start-stop-daemon", "stdbuf", "strace", "su", "sudo", "systemctl"),
        *("systemd-run", "tar", "tclsh", "tcsh", "terraform", "time", "timeout", "tmux", "unshare", "vi"),
        *("view", "vim", "watch", "xargs", "yum", "zip", "zsh"),
    )
)
"""Programs that start others at their arguments' bidding, as far as they are well known."""

_READERS = frozenset(
    (
        *("ash", "at", "awk", "bash", "batch", "bc", "busybox", "crontab", "csh", "dash", "dc", "ed", "ex"),
        *("fish", "ftp", "gawk", "gdb", "ksh", "lua", "m4", "make", "mawk", "mysql", "node", "parallel"),
        *("perl", "php", "psql", "pwsh", "python", "ruby", "sftp", "sh", "sqlite3", "ssh", "tclsh", "tcsh"),
        *("vi", "vim", "xargs", "zsh"),
    )
)
"""Programs that take orders on their standard input, as far as they are well known."""


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
    bounded = _bounded(sections)
    for section in every:
        yield from _of_section(section, has_global=bool(allow))
        if allow or section.name in bounded:
            yield from _of_supplied(section)
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


def _bounded(sections: PolicySections) -> set[str]:
    """The sections that apply to a caller of whom some section permits certain commands alone."""
    names: set[str] = set()
    for identity in (*sections.identities, *(name for group in sections.members.values() for name in group)):
        applying = sections.applying(identity)
        if any(section.bounds_programs for section in applying):
            names.update(section.name for section in applying)
    return names


def _of_supplied(section: PolicySection) -> Iterator[str]:
    """What lets a caller lead the programs elsewhere that a policy bounds."""
    for name in section.environment or ():
        where = f"{section.name} environment: {name}"
        if section.programs is not None and is_barred(name):
            yield f"{where} is never permitted beside programs"
        elif name == ANY:
            yield f"{where} permits variables by which a program may run other ones"
        elif runs_code(name):
            yield f"{where} decides what some programs run; whoever may set it may run anything by them"
    for directory in section.directories or ():
        if problem := _problem_of_directory(directory):
            yield f"{section.name} directories: {directory}: {problem}"
    if section.input:
        for program in section.programs or ():
            if _names(program) & _READERS:
                yield f"{section.name} input: {program.text} runs what comes on its standard input"


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
    for key, given in (
        ("users", [section.users for section in sections if section.users is not None]),
        ("shells", [section.shells for section in sections if section.shells is not None]),
    ):
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


def _names(program: Program) -> set[str]:
    """What a program is called, and what it is a link to; ``python`` for each of its versions."""
    names = {PurePosixPath(path).name for path in (program.path, os.path.realpath(program.path))}
    return {"python" if name.startswith("python") else name for name in names}


def _starts_others(program: Program) -> str:
    if _names(program) & _STARTERS:
        return "starts other programs as its arguments say; bound them with allow patterns"
    return ""


def _problem_of_directory(directory: str) -> str:
    """Why a command that starts there may be led elsewhere; empty where nothing speaks for that."""
    if directory == "/":
        return "permits every directory, also those that others can write to"
    risk = "programs may read there what others have put there"
    return _problem_on_disk(Path(directory), True, "is no directory", risk)


def _problem(program: Program) -> str:
    """Why an entry bounds nothing or permits nothing; empty where neither is so."""
    other_kind = "a folder is written with a slash at its end, a program without"
    risk = "others could put another program there"
    return _problem_on_disk(Path(program.path), program.is_folder, other_kind, risk)


def _problem_on_disk(path: Path, is_folder: bool, other_kind: str, risk: str) -> str:
    """What is wrong with a path: it is not there, of the ``other_kind``, or others can write to it."""
    try:
        if not path.exists():
            return "does not exist"
        if path.is_dir() != is_folder:
            return other_kind
        if os.name == "posix":
            check_trusted(path)
    except UntrustedFileError as error:
        return f"{risk}: {error}"
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    return ""
