"""Which sections and keys a configuration file may have.

The owner of a section declares it beside the code that uses its values: nothing here, and nothing in the
reader, knows what a key means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from remsvc.server.settings.ini import NAMED_SECTIONS
from remsvc.server.settings.misplaced_secrets import in_known_key, in_path


class Kind(Enum):
    """What a value looks like. It decides what a message may show of one that is wrong."""

    WORD = auto()
    """A number, or one of a few words: anything long may be a token that stands in the wrong place."""
    TEXT = auto()
    """A path, a name or a pattern, always shown."""
    SECRETS_PATH = auto()
    """The path of a file with secrets. People write the secret itself there: it is shown if it is a path."""

    def hides(self, value: str) -> bool:
        """Whether no message may show ``value``, because it may be a token."""
        if self is Kind.TEXT:
            return False
        return in_path(value) if self is Kind.SECRETS_PATH else in_known_key(value)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section.

    Attributes:
        name: as the file has it, in lower case.
        kind: what its value looks like.
        flag: the flag of ``remsvc serve`` that overrides it, with underscores; empty where there is none.
        repeatable: whether it may also be given as ``KEY.NAME``, any number of times.
        reloads: whether a reload takes a change over, or has a message of its own for it. For any other key,
            the log says that the change counts from the next start on.
    """

    name: str
    kind: Kind = Kind.WORD
    flag: str = ""
    repeatable: bool = False
    reloads: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A section, or one owner's share of it: several owners may declare the same section.

    Attributes:
        name: in lower case. Of one in :data:`~remsvc.server.settings.ini.NAMED_SECTIONS` there may be many,
            and its owner looks for unknown keys itself.
        keys: those that it may have; empty where the keys are names of the administrator's choice.
        flag: the flag of ``remsvc serve`` that replaces the whole list, where the section is one.
    """

    name: str
    keys: tuple[Key, ...] = ()
    flag: str = ""


class Schema:
    """All that a configuration may hold, put together from the owners' sections."""

    def __init__(self, *sections: Section) -> None:
        self._keys: dict[str, dict[str, Key]] = {}
        self._named_keys: dict[str, dict[str, Key]] = {name: {} for name in NAMED_SECTIONS}
        self.free_sections = tuple(section.name for section in sections if not section.keys)
        self.list_flags = {section.flag: section.name for section in sections if section.flag}
        for section in sections:
            if section.keys:
                keys = self._named_keys if section.name in NAMED_SECTIONS else self._keys
                keys.setdefault(section.name, {}).update({key.name: key for key in section.keys})

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of the sections whose keys are declared."""
        return (*self._keys, *self._named_keys)

    @property
    def shown_sections(self) -> str:
        """The sections, as a message lists them."""
        names = [*self._keys, *self.free_sections, *(f"{kind} NAME" for kind in self._named_keys)]
        return ", ".join(f"[{name}]" for name in names)

    def has_keys(self, section: str) -> bool:
        """Whether it is a section whose keys are declared, and of which there is one."""
        return section in self._keys

    def names_in(self, section: str) -> tuple[str, ...]:
        """The names of a section's keys."""
        return tuple((self._keys | self._named_keys)[section])

    def key(self, section: str, name: str) -> Key | None:
        """What declares ``name``, which may be ``KEY.NAME``; None where nothing does."""
        keys = self._keys.get(section, {})
        first, dot, _ = name.partition(".")
        if not dot:
            return keys.get(name)
        return found if (found := keys.get(first)) is not None and found.repeatable else None

    def flags(self) -> Iterator[tuple[str, str, str]]:
        """Each flag that sets one key, with the section and the name of that key."""
        for section, keys in self._keys.items():
            for key in keys.values():
                if key.flag:
                    yield key.flag, section, key.name
