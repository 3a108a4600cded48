"""The policy's sections of the configuration: the global lists, ``[identity NAME]`` and ``[group NAME]``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from remsvc.server.bounds.rate_limit import Rate
from remsvc.server.policy.decision import SHELLS, IdentityLimits
from remsvc.server.policy.directories import parse_directory
from remsvc.server.policy.patterns import Rule, pattern_problem
from remsvc.server.policy.policy import Policy
from remsvc.server.policy.programs import Program
from remsvc.server.policy.section import PolicySection, PolicySections
from remsvc.server.policy.variables import NAME
from remsvc.server.settings.ini import IniEntry
from remsvc.server.settings.schema import Key, Kind, Section
from remsvc.server.settings.settings import TRUTH, Settings, Value, parse_integer

_MAX_INT32 = 2**31 - 1
_MAX_BYTES = 2**50
_LISTS = ("users", "shells", "programs", "environment", "directories")
_NUMBERS = {
    "time_limit_ms": (1, _MAX_INT32),
    "output_limit_bytes": (1, _MAX_BYTES),
    "max_running": (1, 100_000),
    "max_queued": (0, 1_000_000),
}
_PATTERNS = ("deny", "allow")
_DENYLIST, _ALLOWLIST = "denylist", "allowlist"


def _keys(*names: str, repeatable: bool = False) -> tuple[Key, ...]:
    return tuple(Key(name, Kind.TEXT, repeatable=repeatable, reloads=True) for name in names)


_KEYS = (*_keys(*_LISTS, "input"), *_keys(*_PATTERNS, repeatable=True), *_keys(*_NUMBERS, "rate"))
_IDENTITY_SECTION = Section("identity", _KEYS)
_GROUP_SECTION = Section("group", (*_keys("members"), *_KEYS))
_NAMED_SECTIONS = {section.name: section for section in (_IDENTITY_SECTION, _GROUP_SECTION)}
POLICY_SECTIONS = (
    Section(_DENYLIST, flag="deny"),
    Section(_ALLOWLIST, flag="allow"),
    _IDENTITY_SECTION,
    _GROUP_SECTION,
)
# Written for a reader of INI files that unescapes: here such a pattern hardly ever matches.
_DOUBLED = re.compile(r"\\\\[sSdDwWbB.]")
_COMMENT = "what follows ' ;' is a comment; write [;] to match one"
_PARSED: dict[str, Callable[[str], object]] = {"programs": Program.parse, "directories": parse_directory}


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """What callers may run.

    Attributes:
        deny, allow: the patterns of the global lists, in the order in which they are tried.
        sections: the rules of single identities and groups.
    """

    deny: tuple[Rule, ...] = ()
    allow: tuple[Rule, ...] = ()
    sections: PolicySections = field(default_factory=PolicySections)

    def compile(self) -> Policy:
        """The policy that decides by this."""
        return Policy(self.deny, self.allow, self.sections)


def read_policy(settings: Settings) -> PolicyConfig:
    """All of the policy. Problems go to ``settings``."""
    return PolicyConfig(
        _read_list(settings, _DENYLIST), _read_list(settings, _ALLOWLIST), _read_sections(settings)
    )


def _read_list(settings: Settings, section: str) -> tuple[Rule, ...]:
    """The patterns of a global list, in the order of their keys. A flag's list replaces the file's."""
    given: list[tuple[Rule, Value]] = []
    for number, value in enumerate(settings.listed_by_flag(section), 1):
        flag = value.where.partition(" ")[0]
        given.append((Rule(f"{flag} #{number}", value.text), value))
    if not given:
        for entry in sorted(settings.entries(section), key=lambda entry: entry.key):
            value = settings.value_of(entry)
            if _DOUBLED.search(entry.value):
                settings.warnings.append(
                    f"{value.where}: \\\\ matches a backslash; write \\s and the like with one"
                )
            if not entry.value:
                settings.warnings.append(f"{value.where}: not used, because it is empty")
            if entry.comment and section == _ALLOWLIST:  # shorter, it permits more
                settings.warnings.append(f"{value.where}: {_COMMENT}")
            if entry.value:
                given.append((Rule(entry.key, entry.value, f"[{section}]"), value))
    for rule, value in given:
        if problem := pattern_problem(rule.pattern):
            settings.report_value(value, problem)
    return tuple(rule for rule, _ in given)


def _read_sections(settings: Settings) -> PolicySections:
    """The sections of identities and groups.

    An empty value is one: it would permit what an administrator meant to refuse.
    """
    sections: dict[str, dict[str, PolicySection]] = {"identity": {}, "group": {}}
    members: dict[str, frozenset[str]] = {}
    for kind, read in sections.items():
        for name, entries in settings.named_sections(kind).items():
            reader = _SectionReader(settings, kind, f"[{kind} {name}]")
            read[name] = reader.read(entries)
            if kind == "group":
                members[name] = frozenset(reader.members or ())
                if reader.members is None:
                    settings.report_value(
                        settings.value_of(entries[0]), "expected members in the section, too"
                    )
    return PolicySections(sections["identity"], sections["group"], members)


@dataclass
class _SectionReader:
    settings: Settings
    kind: str
    name: str
    members: list[str] | None = None
    lists: dict[str, list[str]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    patterns: dict[str, list[Rule]] = field(default_factory=lambda: {key: [] for key in _PATTERNS})
    rate: Rate | None = None
    input: bool | None = None
    seen: dict[str, str] = field(default_factory=dict)

    def read(self, entries: list[IniEntry]) -> PolicySection:
        for entry in sorted(entries, key=lambda entry: entry.key):
            self._read_entry(entry)
        limits = IdentityLimits(
            time_limit=self.numbers["time_limit_ms"] / 1000 if "time_limit_ms" in self.numbers else None,
            output_limit=self.numbers.get("output_limit_bytes"),
            max_running=self.numbers.get("max_running"),
            max_queued=self.numbers.get("max_queued"),
            rate=self.rate,
        )
        users, shells, programs = (self._list(key) for key in ("users", "shells", "programs"))
        return PolicySection(
            self.name,
            users=None if users is None else frozenset(users),
            shells=None if shells is None else frozenset(shells),
            programs=None if programs is None else tuple(map(Program.parse, programs)),
            environment=self._list("environment"),
            directories=self._list("directories"),
            input=self.input,
            deny=tuple(self.patterns["deny"]),
            allow=tuple(self.patterns["allow"]),
            limits=limits,
            line=min(entry.line for entry in entries),
        )

    def _list(self, key: str) -> tuple[str, ...] | None:
        return tuple(self.lists[key]) if key in self.lists else None

    def _read_entry(self, entry: IniEntry) -> None:
        key = entry.key.lower()
        kind, dot, _ = key.partition(".")
        if self.seen.setdefault(key, entry.key) != entry.key and kind not in _PATTERNS:
            self._report(entry, "given twice")
        if not entry.value:
            self._report(entry, "expected a value; leave the key out where it is to restrict nothing")
        elif key in _LISTS or (key == "members" and self.kind == "group"):
            self._read_list(entry, key)
        elif key in _NUMBERS:
            self._read_number(entry, key)
        elif key == "rate":
            if rate := Rate.parse(entry.value):
                self.rate = rate
            else:
                self._report(entry, "expected a whole number above 0 and /s, /m or /h, such as 10/s")
        elif key == "input":
            self.input = TRUTH.get(entry.value.lower())
            if self.input is None:
                self._report(entry, "expected true or false")
        elif kind in _PATTERNS and (dot or key in _PATTERNS):
            self._read_pattern(entry, kind)
        else:
            keys = _NAMED_SECTIONS[self.kind].keys
            known = [f"{key.name}.NAME" if key.repeatable else key.name for key in keys]
            self.settings.report_unknown_key(entry, known)

    def _read_list(self, entry: IniEntry, key: str) -> None:
        items = [item.strip() for item in entry.value.split(",")]
        if not all(items):
            self._report(entry, "expected values separated by commas, none of them empty")
        for item in filter(None, items):
            if expected := _expected(key, item):
                self._report(entry, f"{item!r}: {expected}")
                items = [other for other in items if other != item]
        if key == "members":
            self.members = items
        else:
            self.lists[key] = [item for item in items if item]

    def _read_number(self, entry: IniEntry, key: str) -> None:
        low, high = _NUMBERS[key]
        number = parse_integer(entry.value, low, high)
        if number is None:
            self._report(entry, f"expected a whole number from {low} to {high}")
        else:
            self.numbers[key] = number

    def _read_pattern(self, entry: IniEntry, kind: str) -> None:
        if problem := pattern_problem(entry.value):
            self._report(entry, problem)
            return
        if entry.comment:
            self.settings.warnings.append(f"{self.settings.value_of(entry).where}: {_COMMENT}")
        self.patterns[kind].append(Rule(entry.key, entry.value, self.name))

    def _report(self, entry: IniEntry, expected: str) -> None:
        self.settings.report_value(self.settings.value_of(entry), expected)


def _expected(key: str, item: str) -> str:
    """What is wrong with an item of a list; empty where nothing is."""
    if key == "shells" and item not in SHELLS:
        return f"expected one of {', '.join(SHELLS)}"
    if key == "environment" and not NAME.fullmatch(item):
        return "expected the name of a variable, * at its end for any that begins so"
    if key == "users" and (any(character.isspace() for character in item) or ("*" in item and item != "*")):
        return "expected the name of a user, self for the server's own, or * for any"
    if parse := _PARSED.get(key):
        try:
            parse(item)
        except ValueError as error:
            return str(error)
    return ""
