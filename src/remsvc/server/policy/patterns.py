"""Decides by regular expressions on a command's text.

They are RE2's, which are matched in linear time, whatever the pattern and the text are. On a text for a
shell they are a guard rail, not a sandbox (docs/policy.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from remsvc.server.policy.decision import NO_SHELL, POWERSHELL, SHELL, CommandRequest

# RE2's words for what would take more than linear time: look-around, and \\1 or (?P=name).
_NOT_LINEAR = ("invalid perl operator", "invalid escape sequence", "invalid named capture")
_LINEAR_TIME = "look-around and back-references cannot be matched in linear time and are not supported"


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern of a list.

    Attributes:
        name: its key in the configuration, or the flag that gave it.
        pattern: RE2 syntax.
        section: where it stands, such as ``[denylist]``; empty where a flag gave it.
    """

    name: str
    pattern: str
    section: str = ""

    def __str__(self) -> str:
        return f"{self.section} {self.name}".strip()


class PatternError(ValueError):
    """A pattern that RE2 does not accept, and why."""


def compile_pattern(pattern: str) -> Any:
    """The compiled pattern. Raises :class:`PatternError`."""
    if not pattern:
        raise PatternError("an empty pattern matches every command")
    import re2  # where there are patterns, and only there

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        hint = f"; {_LINEAR_TIME}" if text.startswith(_NOT_LINEAR) else ""
        raise PatternError(f"{text}{hint}") from error


def pattern_problem(pattern: str) -> str:
    """What is wrong with a pattern of the configuration, as a message says it; empty where nothing is."""
    try:
        compile_pattern(pattern)
    except PatternError as error:
        return f"expected an RE2 regular expression: {error}"
    return ""


# What a shell reads as a blank, a dash or a quote (PowerShell does), or what only a reader overlooks.
_LOOK_ALIKES = {
    **dict.fromkeys((0x0B, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)), " "),
    **dict.fromkeys((0x2028, 0x2029, 0x202F, 0x205F, 0x3000), " "),
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63, 0xFF0D), "-"),
    **dict.fromkeys(range(0x2018, 0x201C), "'"),
    **dict.fromkeys(range(0x201C, 0x2020), '"'),
    **dict.fromkeys((0xAD, 0x061C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), 0xFEFF), None),
    **dict.fromkeys((*range(0x2060, 0x2070), *range(0xFE00, 0xFE10)), None),
}
_CONTINUED_LINE = {SHELL: re.compile(r"\\\n"), POWERSHELL: re.compile(r"`\r?\n")}


class DenyPatterns:
    """Patterns that forbid: none may match.

    They match more than they say, never less, so that a small change to a command does not get it past
    them: ``.`` matches the end of a line as well, ``^`` and ``$`` match at each line, and whatever looks
    like a blank, a dash or a quote counts as one.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Raises :class:`PatternError`."""
        self._rules = [(rule, _wider(rule.pattern, "ms"), _wider(rule.pattern, "ims")) for rule in rules]

    def matching(self, request: CommandRequest) -> Rule | None:
        """The first rule that forbids it."""
        if not self._rules:
            return None
        texts = _readings(request)
        for rule, wide, caseless in self._rules:
            # PowerShell knows a command by any case of its name. Both: [^a-z] is less in any case.
            patterns = (wide, caseless) if request.shell == POWERSHELL else (wide,)
            if any(pattern.search(text) for pattern in patterns for text in texts):
                return rule
        return None


class AllowPatterns:
    """Patterns that permit: one must match, and it matches exactly what it says."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Raises :class:`PatternError`."""
        self._rules = [(rule, compile_pattern(rule.pattern)) for rule in rules]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def matching(self, request: CommandRequest) -> Rule | None:
        """The first rule that permits it."""
        text = request.matched
        return next((rule for rule, pattern in self._rules if pattern.search(text)), None)


def _wider(pattern: str, flags: str) -> Any:
    compile_pattern(pattern)  # so that "a)(?:b" is told from two groups
    return compile_pattern(f"(?{flags})(?:{pattern})")


def _readings(request: CommandRequest) -> list[str]:
    """The texts that a command can be read as, for patterns that forbid."""
    readings = [request.matched]
    if request.shell == NO_SHELL:
        readings.append(" ".join(request.argv))
    continued = _CONTINUED_LINE.get(request.shell)
    for text in tuple(readings):
        folded = (continued.sub("", text) if continued else text).translate(_LOOK_ALIKES)
        if folded not in readings:
            readings.append(folded)
    return readings
