"""Makes standard input, output and error usable, however the program was started.

A program may be started without some of them (``>&-``, cron jobs, services), in a locale that cannot encode
what it has to say, or with an output that fails. None of this may end in a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from remsvc.errors import RemSvcError

_MODES = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


class OutputError(RemSvcError):
    """Standard output cannot be written, such as because its disk is full."""


def prepare() -> None:
    """Make all three usable: a closed one leads nowhere, what cannot be encoded becomes an escape.

    As ssh does, the null device is opened in the place of a closed stream. Otherwise the next file or
    connection would get its descriptor, and whatever is printed would be written into it.
    """
    for number, (name, mode) in enumerate(_MODES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
            missing.add(name)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # another class of stream, which somebody else has put there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


missing: set[str] = set()
"""The names of the streams that the program was started without: ``stdin``, ``stdout``, ``stderr``."""


@contextmanager
def written(name: str) -> Iterator[None]:
    """A block that writes to ``stdout`` or ``stderr``: its error says which of them has failed, and why.

    Raises:
        OutputError: writing has failed.
        BrokenPipeError: nobody reads it any more.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        words = {"stdout": "standard output", "stderr": "standard error"}
        raise OutputError(f"{words[name]} cannot be written: {error.strerror or error}") from error


def forget_output() -> None:
    """Flush both outputs, and forget what cannot be written: Python would try it again at the end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            forget(stream)


def forget(stream: IO[str]) -> None:
    """Let a stream that has failed lead nowhere from now on."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
