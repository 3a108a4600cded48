"""Writing to the terminal: error lines, safe text, colours only where a person looks."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from remsvc.cli.standard_streams import forget, written
from remsvc.printable import printable


def error_line(message: str) -> None:
    """One line on standard error: what failed."""
    _line("remsvc: ", "bold red", message)


def warning_line(message: str) -> None:
    """One line on standard error: what to look at, though it did not fail."""
    _line("remsvc: warning: ", "bold yellow", message)


def _line(prefix: str, style: str, message: str) -> None:
    message = printable(message)
    try:
        if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
            _write(sys.stderr, prefix + message)
            return
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True).print(Text.assemble((prefix, style), message), soft_wrap=True)
    except OSError:
        forget(sys.stderr)  # there is nowhere left to say it


def print_line(text: str) -> None:
    """One line of standard output, at once. Raises :class:`OutputError`, ``BrokenPipeError``."""
    with written("stdout"):
        _write(sys.stdout, text)


def _write(stream: TextIO, text: str) -> None:
    if codecs.lookup(stream.encoding).name == "ascii":  # a locale that says nothing of an encoding
        stream.buffer.write(f"{text}\n".encode())
    else:
        stream.write(f"{text}\n")
    stream.flush()


def print_json(value: Mapping[str, object] | Sequence[Mapping[str, object]]) -> None:
    """A JSON object, or an array of them, on one line of standard output; ASCII without controls."""
    import json  # slow to load

    print_line(json.dumps(value).replace("\x7f", "\\u007f"))


@contextmanager
def progress(message: str) -> Iterator[Callable[[str], None]]:
    """While something takes time: a spinner on standard error, if that is a terminal.

    Gives what changes the message.
    """
    if not sys.stderr.isatty():
        yield lambda message: None
        return
    from rich.console import Console
    from rich.markup import escape

    spinner = "dots" if sys.stderr.encoding.lower().startswith("utf") else "line"
    with Console(stderr=True).status(escape(printable(message)), spinner=spinner) as status:
        yield lambda message: status.update(escape(printable(message)))
