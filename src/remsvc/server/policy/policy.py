"""Decides whether a command may run: every rule that applies to its caller must permit it.

The global lists apply to everybody, a section of an identity or a group to those whom it names. A section
can only take away: none permits what another section, or a global list, refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce

from remsvc.server.own_user import OWN_USER
from remsvc.server.policy.decision import (
    DEFAULT_RULE,
    NO_SHELL,
    CommandRequest,
    Decision,
    IdentityLimits,
    Step,
    shown,
)
from remsvc.server.policy.pattern_shape import is_anchored
from remsvc.server.policy.patterns import AllowPatterns, DenyPatterns, Rule
from remsvc.server.policy.programs import permitting, plain_path
from remsvc.server.policy.section import ANY, PolicySection, PolicySections
from remsvc.server.policy.supplied import supplied_steps

_MANY = 10_000


class _Section:
    """A section whose patterns are compiled."""

    def __init__(self, section: PolicySection) -> None:
        self.section = section
        self.name = section.name
        self.deny = DenyPatterns(section.deny)
        self.allow = AllowPatterns(section.allow)


class Policy:
    """The rules of one configuration. Never changes: a reload makes another one.

    Raises:
        PatternError: on construction, for a pattern that cannot be used.
    """

    def __init__(
        self,
        deny: Iterable[Rule] = (),
        allow: Iterable[Rule] = (),
        sections: PolicySections = PolicySections(),  # noqa: B008  frozen
    ) -> None:
        self._deny = DenyPatterns(deny)
        allow = tuple(allow)
        self._allow = AllowPatterns(allow)
        self._allowlist_bounds = bool(allow) and all(is_anchored(rule.pattern) for rule in allow)
        self._sections = sections
        every = (*sections.identities.values(), *sections.groups.values())
        self._limits: dict[str, IdentityLimits] = {}
        self._compiled = {section.name: _Section(section) for section in every}

    def decide(self, identity: str, request: CommandRequest) -> Decision:
        """Whether ``identity`` may run what is requested. This may read folders that the policy lists."""
        rule, program = DEFAULT_RULE, ""
        for step in self.steps(identity, request):
            if not step.allowed:
                return Decision(False, step.rule, step.message)
            rule, program = step.rule, step.program or program
        return Decision(True, rule, program=program, limits=self.limits(identity))

    def limits(self, identity: str) -> IdentityLimits:
        """How much ``identity`` may take."""
        if identity not in self._limits:
            limits = (section.limits for section in self._sections.applying(identity))
            if len(self._limits) >= _MANY:
                self._limits.clear()
            self._limits[identity] = reduce(IdentityLimits.within, limits, IdentityLimits())
        return self._limits[identity]

    def reads_folders(self, identity: str) -> bool:
        """Whether a decision on an identity's commands may have to look into folders, which may take long."""
        sections = self._sections.applying(identity)
        return any(program.is_folder for section in sections for program in section.programs or ())

    def steps(self, identity: str, request: CommandRequest) -> Iterator[Step]:
        """The checks that apply to a request, in their order. The first one that refuses decides."""
        sections = [self._compiled[section.name] for section in self._sections.applying(identity)]
        for patterns in (self._deny, *(section.deny for section in sections)):
            if rule := patterns.matching(request):
                name = rule.name if patterns is self._deny else rule
                yield Step(False, str(rule), f"command denied by denylist (rule {name})")
        yield Step(True, DEFAULT_RULE, "no deny pattern matches")
        if self._allow:
            yield _allow(self._allow, request, "[allowlist]", "")
        for section in sections:
            yield from _section_steps(section, request)
        applying = [section.section for section in sections]
        yield from supplied_steps(
            applying, request, has_allowlist=bool(self._allow), allowlist_bounds=self._allowlist_bounds
        )


def _section_steps(compiled: _Section, request: CommandRequest) -> Iterator[Step]:
    section, name = compiled.section, compiled.name
    if section.users is not None:
        user = request.user or OWN_USER
        # A user that is called as we write the server's own is not meant by that.
        allowed = ANY in section.users or (user in section.users and request.user != OWN_USER)
        who = f"user {shown(user)}" if request.user else "the server's own user"
        yield Step.of(allowed, f"{name} users", f"running as {who} is not permitted")
    shells = section.shells
    if shells is None and section.programs is not None:
        shells = frozenset((NO_SHELL,))  # a shell starts any program
    if shells is not None:
        rule = f"{name} shells" if section.shells is not None else f"{name} programs"
        what = "without a shell" if request.shell == NO_SHELL else f"with the shell {request.shell}"
        yield Step.of(request.shell in shells, rule, f"commands {what} are not permitted")
    if section.programs is not None and request.shell == NO_SHELL:
        path = plain_path(request.argv[0])
        program = permitting(section.programs, path) if path else None
        if program is None or path is None:
            hint = "" if path else ": expected an absolute path"
            message = f"program {shown(request.argv[0])} is not permitted{hint}"
            yield Step.of(False, f"{name} programs", message)
        else:
            yield Step(True, f"{name} programs", f"{program.text} permits {path}", program=path)
    if compiled.allow:
        yield _allow(compiled.allow, request, f"{name} allow", f" (rule {name} allow)")


def _allow(patterns: AllowPatterns, request: CommandRequest, rule: str, suffix: str) -> Step:
    if permitting := patterns.matching(request):
        return Step(True, str(permitting), "its pattern matches")
    return Step(False, rule, f"command not permitted by allowlist{suffix}")
