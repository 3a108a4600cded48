"""Runs the verbs that talk to a server without loading click, which takes longer than such a verb does.

It understands only command lines that are right. Everything else goes to click, which explains and completes:
``--help``, wrong usage, rare ways of writing an option (``-c4``, ``-if``).
"""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from remsvc.cli.outcome import errors_told
from remsvc.cli.standard_streams import forget_output, written
from remsvc.cli.verbs import QUICK, load

if TYPE_CHECKING:
    from remsvc.cli.options import Option
    from remsvc.cli.verb import Verb

_LOADED_OBJECTS = 50_000
"""More than all modules create: Python need not look for garbage among them while they load."""


def run_quickly(words: Sequence[str]) -> None:
    """Do what the command line says and exit. Returns only where click has to take over."""
    if sys.platform == "win32" or "_REMSVC_COMPLETE" in os.environ:
        return  # on Windows, click also expands patterns of file names, as a shell would
    for length in (1, 2):
        if place := QUICK.get(tuple(words[:length])):
            gc.set_threshold(_LOADED_OBJECTS)
            if (code := _run(place, words[length:])) is not None:
                _exit(code)


def _run(place: str, words: Sequence[str]) -> int | None:
    """Run a verb; returns the exit code, or None where click has to take over."""
    try:
        with errors_told():
            verb: Verb = load(place)
            if (values := parse(verb, words)) is None:
                return None
            verb.run(values)
            _flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _exit(code: int) -> NoReturn:
    """Exit at once. Everything is closed by now, and to take the interpreter apart would only take time."""
    forget_output()
    os._exit(code)


def _flush() -> None:
    with written("stdout"):
        sys.stdout.flush()
    with written("stderr"):
        sys.stderr.flush()


def parse(verb: Verb, words: Sequence[str]) -> dict[str, Any] | None:
    """The value of each option and argument, as click would read it; None where click has to take over."""
    by_flag = {flag: option for option in verb.options for flag in option.flags}
    off = {option.off: option for option in verb.options if option.off is not None}
    given: dict[str, list[Any]] = {}
    arguments: list[str] = []
    left = deque(words)
    while left:
        word = left.popleft()
        if word == "--":
            arguments += left
            break
        if word == "-" or not word.startswith("-"):
            arguments.append(word)
            if verb.options_first:
                arguments += left
                break
            continue
        flag, equals, text = word.partition("=")
        if (option := by_flag.get(flag)) is None:
            if (option := off.get(word)) is None:
                return None
            given.setdefault(option.name, []).append(False)
        elif option.switch:
            if equals:
                return None
            given.setdefault(option.name, []).append(True)
        elif equals:
            if not flag.startswith("--"):
                return None
            given.setdefault(option.name, []).append(text)
        elif left:
            given.setdefault(option.name, []).append(left.popleft())
        else:
            return None
    try:
        values = {option.name: _value(option, given.get(option.name)) for option in verb.options}
        if verb.argument is not None:
            values[verb.argument.name] = verb.argument.value(arguments)
        elif arguments:
            return None
        verb.check(values, given)
    except ValueError:
        return None  # click reads it once more, and says what is wrong
    return values


def _value(option: Option, given: list[Any] | None) -> Any:
    if option.switch:
        return option.default if given is None else given[-1]
    if option.multiple:
        return tuple(map(option.kind, given or ()))
    if given is None:
        text = os.environ.get(option.variable) if option.variable is not None else None
        return option.kind(text) if text else option.default
    return option.kind(given[-1])
