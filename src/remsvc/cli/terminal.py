"""Writes to the terminal: errors, warnings, lines and JSON; with colours only where a person looks."""

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
    """Say on standard error, in one line, what has failed."""
    _line("remsvc: ", "bold red", message)


def warning_line(message: str) -> None:
    """Say on standard error, in one line, what a person should know although nothing has failed."""
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
    """Write a line to standard output, at once. Raises :class:`OutputError` or ``BrokenPipeError``."""
    with written("stdout"):
        _write(sys.stdout, text)


def _write(stream: TextIO, text: str) -> None:
    if codecs.lookup(stream.encoding).name == "ascii":  # a locale that names no encoding
        stream.buffer.write(f"{text}\n".encode())
    else:
        stream.write(f"{text}\n")
    stream.flush()


def print_json(value: Mapping[str, object] | Sequence[Mapping[str, object]]) -> None:
    """Write a JSON object, or an array of them, as one line of ASCII without control characters."""
    import json  # slow to load

    print_line(json.dumps(value).replace("\x7f", "\\u007f"))


@contextmanager
def progress(message: str) -> Iterator[Callable[[str], None]]:
    """A block that takes time: shows a spinner on standard error, if that is a terminal.

    Gives the block a function that changes the message.
    """
    if not sys.stderr.isatty():
        yield lambda message: None
        return
    from rich.console import Console
    from rich.markup import escape

    spinner = "dots" if sys.stderr.encoding.lower().startswith("utf") else "line"
    with Console(stderr=True).status(escape(printable(message)), spinner=spinner) as status:
        yield lambda message: status.update(escape(printable(message)))
