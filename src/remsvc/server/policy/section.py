"""The rules of one identity or group, as a section of the configuration has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from remsvc.server.policy.decision import IdentityLimits
from remsvc.server.policy.patterns import Rule
from remsvc.server.policy.programs import Program

ANY = "*"


@dataclass(frozen=True, slots=True)
class PolicySection:
    """The rules of one section. What is None or empty restricts nothing.

    Attributes:
        name: as in the configuration, such as ``[identity etl]``.
        users: names, :data:`~remsvc.server.own_user.OWN_USER` and :data:`ANY`.
        shells: of :data:`~remsvc.server.policy.decision.SHELLS`.
        programs: for commands without a shell.
        environment: names of variables, see :mod:`~remsvc.server.policy.variables`.
        directories: where a caller may have a command start, see :mod:`~remsvc.server.policy.directories`.
        input: whether a caller may give standard input.
        deny, allow: patterns.
        limits: how much.
        line: where it begins in its file.
    """

    name: str
    users: frozenset[str] | None = None
    shells: frozenset[str] | None = None
    programs: tuple[Program, ...] | None = None
    environment: tuple[str, ...] | None = None
    directories: tuple[str, ...] | None = None
    input: bool | None = None
    deny: tuple[Rule, ...] = ()
    allow: tuple[Rule, ...] = ()
    limits: IdentityLimits = field(default_factory=IdentityLimits)
    line: int = 0

    @property
    def bounds_programs(self) -> bool:
        """Whether it permits only certain commands."""
        return self.programs is not None or bool(self.allow)


@dataclass(frozen=True, slots=True)
class PolicySections:
    """The sections of all identities and groups.

    Attributes:
        identities: by identity; that of :data:`ANY` is for every caller without a section of its own.
        groups: by name.
        members: identities by group; :data:`ANY` is every caller.
    """

    identities: Mapping[str, PolicySection] = field(default_factory=dict)
    groups: Mapping[str, PolicySection] = field(default_factory=dict)
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def applying(self, identity: str) -> list[PolicySection]:
        """The sections that apply to a caller: its own, then its groups' in the order of their names."""
        own = self.identities.get(identity) or self.identities.get(ANY)
        groups = [
            section
            for name, section in sorted(self.groups.items())
            if not self.members.get(name, frozenset()).isdisjoint((identity, ANY))
        ]
        return [own, *groups] if own else groups
