"""Whether a command may run. Every rule that applies to its caller must permit it.

The global lists apply to everyone, a section of an identity or a group to those it names. A
section only ever narrows: no section permits what another one, or the global lists, refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from remsvc.server.decision import CommandRequest, Decision
from remsvc.server.patterns import AllowPatterns, DenyPatterns, Rule

DEFAULT_RULE = "default"


@dataclass(frozen=True, slots=True)
class Step:
    """One check of a decision.

    Attributes:
        allowed: False where it refuses the command.
        rule: what was checked; the rule itself where one matched.
        message: for the caller, where it refuses.
        program: see :class:`Decision`.
    """

    allowed: bool
    rule: str
    message: str = ""
    program: str = ""


class Policy:
    """The rules of one configuration; never changes.

    Raises:
        PatternError: on construction, for a pattern that cannot be used.
    """

    def __init__(self, deny: Iterable[Rule] = (), allow: Iterable[Rule] = ()) -> None:
        self._deny = DenyPatterns(deny)
        self._allow = AllowPatterns(allow)

    def decide(self, identity: str, request: CommandRequest) -> Decision:
        """Whether ``identity`` may run a valid request."""
        rule = DEFAULT_RULE
        program = ""
        for step in self.steps(identity, request):
            if not step.allowed:
                return Decision(False, step.rule, step.message)
            rule, program = step.rule, step.program or program
        return Decision(True, rule, program=program)

    def steps(self, identity: str, request: CommandRequest) -> Iterator[Step]:
        """The checks that apply, in their order. The first that refuses decides."""
        if rule := self._deny.matching(request):
            yield Step(False, str(rule), f"command denied by denylist (rule {rule.name})")
        if self._allow:
            permitting = self._allow.matching(request)
            if permitting is None:
                yield Step(False, "[allowlist]", "command not permitted by allowlist")
            else:
                yield Step(True, str(permitting))


class PolicyInForce:
    """The policy that the services ask; a reload replaces it.

    Attributes:
        policy: the one in force now.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def decide(self, identity: str, request: CommandRequest) -> Decision:
        """As :meth:`Policy.decide`."""
        return self.policy.decide(identity, request)
