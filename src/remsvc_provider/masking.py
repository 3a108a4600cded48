"""Masks secrets in all that is said about a task's commands: in its log, its results and its errors.

A worker learns secrets while it renders a task, and Airflow masks them in all that the task logs there. A
triggerer learns none of them. So the worker hands over the secrets that the rendered fields hold, and
whatever a run of commands says goes through :class:`Masking`, in the triggerer as in the worker.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remsvc_provider.version_compat import masked_parts, names_a_secret

MASK = "***"
LEAST_CHARACTERS = 5
"""Characters that a secret must have to be masked. Airflow has the same limit by default: a shorter secret
would be found in the middle of words."""
LEAST_FRAGMENT = 4
"""Where a text was cut off inside a secret, so many characters of it that are left are masked."""


class Masking:
    """Replaces the secrets in texts by asterisks.

    Args:
        secrets: the first ones; :meth:`add` adds others.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.longest = 0
        """Characters of the longest secret that can stand on one line."""
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """From now on these are masked as well. Of one with several lines, such as a private key, each
        line is: a log has them one by one."""
        for secret in secrets:
            pieces = (secret, *map(str.strip, secret.splitlines()))
            self._secrets.update(piece for piece in pieces if len(piece) >= LEAST_CHARACTERS)
        if self._secrets:
            longest_first = sorted(self._secrets, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))
            self.longest = max((len(secret) for secret in longest_first if "\n" not in secret), default=0)

    def __call__(self, text: str) -> str:
        """The text without the secrets."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def cut(self, text: str, *, begin: bool = True, end: bool = True) -> str:
        """The same for a text that was cut off at its beginning, its end or both, maybe in the middle of a
        secret."""
        text = self(text)
        if begin and (size := max((_overlap(secret, text) for secret in self._secrets), default=0)):
            text = MASK + text[size:]
        if end and (size := max((_overlap(text, secret) for secret in self._secrets), default=0)):
            text = text[:-size] + MASK
        return text

    def begun(self, line: str) -> tuple[str, str]:
        """Of a line that goes on: its beginning, masked; and the rest as it is, in which a secret may have
        begun that goes on."""
        if self._pattern is None:
            return line, ""
        end = max(len(line) - self.longest + 1, 0)
        for match in self._pattern.finditer(line):
            if match.start() >= end:
                break
            end = max(end, match.end())
        return self(line[:end]), line[end:]

    def command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """A stored command without the secrets, for people. Of an input of bytes nothing is left where it
        has one: what is around the secret need not be text."""
        masked = dict(command)
        for key, value in command.items():
            if key == "input" and isinstance(value, Mapping):
                text = _text(base64.b64decode(value["base64"]))
                masked[key] = value if self(text) == text else MASK
            elif isinstance(value, str):
                masked[key] = self(value)
            elif isinstance(value, Sequence):
                masked[key] = [self(str(element)) for element in value]
            elif isinstance(value, Mapping):
                masked[key] = {name: self(str(element)) for name, element in value.items()}
        return masked


def _overlap(before: str, after: str) -> int:
    """How many characters at the end of ``before`` are also the beginning of ``after``. Fewer than
    ``LEAST_FRAGMENT`` count as none."""
    head = after[:LEAST_FRAGMENT]
    start = before.find(head, len(before) - min(len(before), len(after)))
    while start >= 0:  # the longest overlap begins first
        if after.startswith(before[start:]):
            return len(before) - start
        start = before.find(head, start + 1)
    return 0


def secrets_in(value: object, name: str = "", *, known: bool = True) -> set[str]:
    """What Airflow masks, in this process, of a rendered field: values that it knows as secrets, such as
    those of Variables and connections, and those under a name that says so (``DB_PASSWORD``).

    Args:
        value: text, bytes or a number, or lists and dicts of them.
        name: under which it stands, with all that is in it.
        known: look for the values that this process knows, too. A triggerer knows those of many tasks.
    """
    hidden = bool(name) and names_a_secret(name)
    if isinstance(value, str):
        # A program may take a value apart, and print a secret in it without the rest.
        parts = masked_parts(value) if known else set()
        return parts | ({value} if hidden else set())
    if isinstance(value, bytes):
        return secrets_in(_text(value), name, known=known)
    if isinstance(value, Mapping):
        named = ((name if hidden else str(key), element) for key, element in value.items())
        return {part for key, element in named for part in secrets_in(element, key, known=known)}
    if isinstance(value, Sequence):
        return {part for element in value for part in secrets_in(element, name, known=known)}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {str(value)} if hidden and is_number else set()


def _text(data: bytes) -> str:
    """All of ``data`` that can be read as text."""
    return data.decode("utf-8", "ignore")
