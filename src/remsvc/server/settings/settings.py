"""What the configuration file and the flags say: single values, each checked, each mistake kept.

Which keys there are is declared by the owners of the sections (:mod:`~remsvc.server.settings.schema`). They
also convert the values that only they understand, such as patterns and tokens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from remsvc.server.settings.files import Signature, signature_of
from remsvc.server.settings.ini import NAMED_SECTIONS, IniEntry, parse_ini, section_key, section_names
from remsvc.server.settings.misplaced_secrets import NOT_SHOWN, in_unknown_key
from remsvc.server.settings.schema import Schema

TRUTH = {"true": True, "yes": True, "on": True, "1": True}
TRUTH |= {"false": False, "no": False, "off": False, "0": False}
"""How a yes and a no are written, in lower case."""
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


@dataclass(frozen=True, slots=True)
class Value:
    """One setting: its text, and where it came from as a problem's line begins."""

    text: str
    where: str
    line: int = 0

    @property
    def is_flag(self) -> bool:
        """Whether it was given on the command line."""
        return self.where.startswith("--")


class Settings:
    """What the file and the flags say.

    Methods that read a value note what is wrong with it, and go on with the default: so all mistakes are told
    at once.

    Args:
        path: the file; None for none.
        overrides: values by flag with underscores; None as a value means not given.
        schema: the sections and keys that there are.

    Attributes:
        warnings: a line for each thing that is permitted but probably not meant.
        files: the files that were read, with their signatures before they were.
    """

    def __init__(self, path: Path | None, overrides: Mapping[str, object], schema: Schema) -> None:
        self._schema = schema
        self._problems: list[tuple[int, str]] = []
        self.warnings: list[str] = []
        self.files: dict[Path, Signature] = {}
        self._sections: set[str] = set()
        self._values: dict[tuple[str, str], Value] = {}
        self._free: dict[str, list[IniEntry]] = {section: [] for section in schema.free_sections}
        self._named: dict[str, list[IniEntry]] = {}
        self._path = path
        if path is not None:
            self._read_file(path)
        self._lists: dict[str, tuple[Value, ...]] = {}
        for flag, section in schema.list_flags.items():
            texts = overrides.get(flag)
            if isinstance(texts, tuple) and texts:
                self._lists[section] = tuple(Value(str(text), f"--{flag} {text}") for text in texts)
        for flag, section, key in schema.flags():
            if (given := overrides.get(flag)) is not None:
                text = str(given).lower() if isinstance(given, bool) else str(given)
                self._values[section, key] = Value(text, f"--{flag.replace('_', '-')} {text}")

    # Mistakes

    @property
    def problems(self) -> list[str]:
        """A line for each mistake (file, section, key, value, what was expected), in the file's order."""
        return [text for _, text in sorted(self._problems, key=lambda problem: problem[0])]

    def report(self, section: str, key: str, expected: str) -> None:
        """Note a problem with the value of a key, or with its not being given."""
        value = self.given(section, key)
        self.report_value(value or Value("", f"[{section}] {key}"), expected)

    def report_value(self, value: Value, expected: str) -> None:
        """Note a problem with a value."""
        self._note(value.line, f"{value.where}: {expected}")

    def report_section(self, section: str, expected: str) -> None:
        """Note a problem with a section as a whole."""
        self._note(0, f"[{section}]: {expected}")

    def report_unknown_key(self, entry: IniEntry, known: Iterable[str]) -> None:
        """Note that an entry means nothing. ``known``: the keys that do.

        A value that may be a token is not shown.
        """
        shown = NOT_SHOWN if in_unknown_key(entry.key, entry.value) else entry.value
        where = f"{self.place_of(entry)} = {shown}"
        self._note(entry.line, f"{where}: unknown key, expected one of {', '.join(known)}")

    # Sections whose keys are declared

    def given(self, section: str, key: str) -> Value | None:
        """The value, or None where it is not given or empty."""
        value = self._values.get((section, key))
        return value if value is not None and value.text else None

    @property
    def texts(self) -> dict[tuple[str, str], str]:
        """The text of each setting that was given, by section and key; not those whose keys are free."""
        return {setting: value.text for setting, value in self._values.items()}

    def text(self, section: str, key: str) -> str | None:
        """The text as written."""
        value = self.given(section, key)
        return value.text if value else None

    def path(self, section: str, key: str) -> Path | None:
        """A path, with its variables and a leading ``~`` expanded."""
        value = self.given(section, key)
        if value is None:
            return None
        text = expand_variables(value.text)
        if "\0" in text:
            self.report_value(value, "expected a path without a NUL character")
            return None
        try:
            return Path(text).expanduser()
        except RuntimeError:
            self.report_value(value, "expected a path; ~ could not be resolved to a home directory")
            return None

    def integer(self, section: str, key: str, default: int, low: int, high: int, hint: str = "") -> int:
        """A whole number from ``low`` to ``high``."""
        value = self._values.get((section, key))
        if value is None:
            return default
        number = parse_integer(value.text, low, high)
        if number is not None:
            return number
        hint = f" ({hint})" if hint else ""
        self.report_value(value, f"expected a whole number from {low} to {high}{hint}")
        return default

    def boolean(self, section: str, key: str, default: bool, otherwise: str = "") -> bool:
        """``true`` or ``false`` (or yes/no, on/off, 1/0); ``otherwise`` names what else may be given."""
        value = self._values.get((section, key))
        if value is None:
            return default
        if value.text.lower() not in TRUTH:
            self.report_value(value, f"expected true or false{otherwise}")
        return TRUTH.get(value.text.lower(), default)

    def choice(self, section: str, key: str, default: str, choices: Collection[str]) -> str:
        """One of ``choices``, in any case."""
        value = self._values.get((section, key))
        if value is None:
            return default
        if value.text.lower() in choices:
            return value.text.lower()
        self.report_value(value, f"expected one of {', '.join(choices)}")
        return default

    def repeated(self, section: str, key: str) -> list[tuple[str, Value]]:
        """The values of ``key`` and of each ``key.NAME`` with their names, in the order of the names."""
        return [
            (name, value)
            for (in_section, name), value in sorted(self._values.items())
            if in_section == section and name.partition(".")[0] == key
        ]

    def note_file(self, path: Path) -> None:
        """Note that ``path`` is about to be read."""
        self.files.setdefault(path, signature_of(path))

    # Sections whose keys are names

    def has_section(self, name: str) -> bool:
        """Whether the file has the section, with or without entries."""
        return name in self._sections

    def entries(self, section: str) -> list[IniEntry]:
        """All of a section whose keys are free."""
        return self._free[section]

    def listed_by_flag(self, section: str) -> tuple[Value, ...]:
        """What a flag has given in place of a section's entries; empty where it was not given."""
        return self._lists.get(section, ())

    def named_sections(self, kind: str) -> dict[str, list[IniEntry]]:
        """The entries of each ``[kind NAME]``, by name."""
        return {
            section.removeprefix(f"{kind} "): entries
            for section, entries in self._named.items()
            if section.startswith(f"{kind} ")
        }

    def place_of(self, entry: IniEntry) -> str:
        """Where an entry stands, without its value: for those that may hold a token."""
        return f"{self._path}:{entry.line}: [{entry.section}] {entry.key}"

    def value_of(self, entry: IniEntry) -> Value:
        """For :meth:`report_value`."""
        key = self._schema.key(entry.section.lower(), entry.key.lower())
        shown = NOT_SHOWN if key is not None and key.kind.hides(entry.value) else entry.value
        return Value(entry.value, f"{self.place_of(entry)} = {shown}", entry.line)

    # Reading

    def _note(self, line: int, problem: str) -> None:
        self._problems.append((line, problem))

    def _read_file(self, path: Path) -> None:
        self.note_file(path)
        try:
            text = path.read_bytes().decode("utf-8")
        except OSError as error:
            self._note(0, f"{path}: cannot be read: {error.strerror}")
            return
        except UnicodeDecodeError as error:
            self._note(0, f"{path}: expected UTF-8 text: byte {error.start} is not")
            return
        if os.name == "posix" and path.stat().st_mode & 0o002:
            self.warnings.append(f"{path}: everybody can write to it, and so permit anything (chmod o-w)")
        self._sections = section_names(text)
        entries, mistakes = parse_ini(text)
        for mistake in mistakes:
            self._note(mistake.line, f"{path}:{mistake.line}: {mistake.message}")
        unknown: set[str] = set()
        for entry in entries:
            section, key = entry.section.lower(), entry.key.lower()
            if section in self._free:
                self._free[section].append(entry)
            elif section.split()[0] in NAMED_SECTIONS and section_key(entry.section) not in NAMED_SECTIONS:
                self._named.setdefault(section_key(entry.section), []).append(entry)
            elif not self._schema.has_keys(section):
                if section not in unknown:
                    expected = f"unknown section, expected one of {self._schema.shown_sections}"
                    self._note(entry.line, f"{path}:{entry.line}: [{entry.section}]: {expected}")
                unknown.add(section)
            elif self._schema.key(section, key) is None:
                self.report_unknown_key(entry, self._schema.names_in(section))
            else:
                self._values[section, key] = self.value_of(entry)


def parse_integer(text: str, low: int, high: int) -> int | None:
    """The whole number in ``text``; None where it is none from ``low`` to ``high``."""
    if re.fullmatch(r"[+-]?[0-9]{1,20}", text) and low <= int(text) <= high:
        return int(text)
    return None


def expand_variables(text: str) -> str:
    """``$VAR`` and ``${VAR}`` from the environment; an unknown one stays as written."""
    return _VARIABLE.sub(lambda match: os.environ.get(match[1] or match[2], match[0]), text)


def variables_in(text: str) -> list[str]:
    """The names of the variables that ``text`` refers to."""
    return [match[1] or match[2] for match in _VARIABLE.finditer(text)]


def is_variable(text: str) -> bool:
    """Whether ``text`` is the reference to one variable, and no more."""
    return _VARIABLE.fullmatch(text) is not None
