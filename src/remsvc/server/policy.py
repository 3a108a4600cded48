"""Which commands may run: deny patterns first, then allow patterns.

Patterns are RE2's: matched in linear time whatever the pattern and the command. They match
anywhere in the command's text. On shell text they are a guard rail, not a sandbox (SECURITY.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import re2

# RE2's words for what would take more than linear time: look-around, and \\1 or (?P=name).
_NOT_LINEAR = ("invalid perl operator", "invalid escape sequence", "invalid named capture")
_LINEAR_TIME = "look-around and back-references cannot be matched in linear time and are not supported"


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern of a list.

    Attributes:
        name: its key in the configuration, or the flag that gave it.
        pattern: RE2 syntax.
    """

    name: str
    pattern: str


class PatternError(ValueError):
    """A pattern that RE2 does not accept, and why."""


def compile_pattern(pattern: str) -> Any:
    """The compiled pattern. Raises :class:`PatternError`."""
    if not pattern:
        raise PatternError("an empty pattern matches every command")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        hint = f"; {_LINEAR_TIME}" if text.startswith(_NOT_LINEAR) else ""
        raise PatternError(f"{text}{hint}") from error


class Policy:
    """The global deny and allow lists.

    Raises:
        PatternError: on construction, for a pattern that cannot be used.
    """

    def __init__(self, deny: Iterable[Rule] = (), allow: Iterable[Rule] = ()) -> None:
        self._deny = [(rule, compile_pattern(rule.pattern)) for rule in deny]
        self._allow = [(rule, compile_pattern(rule.pattern)) for rule in allow]

    def refusal(self, command: str) -> str | None:
        """Why the command's text is refused, or None where it is permitted."""
        for rule, pattern in self._deny:
            if pattern.search(command):
                return f"command denied by denylist (rule {rule.name})"
        if self._allow and not any(pattern.search(command) for _, pattern in self._allow):
            return "command not permitted by allowlist"
        return None
