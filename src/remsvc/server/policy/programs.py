"""Decides which programs may be started without a shell, by a list of absolute paths and folders."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Program:
    """One entry of a list.

    Attributes:
        text: as the configuration writes it.
        path: the same in its plain form, see :func:`plain_path`.
        is_folder: whether it stands for the programs in a folder, those in folders below it not
            included.
    """

    text: str
    path: str
    is_folder: bool

    @classmethod
    def parse(cls, text: str) -> Program:
        """An absolute path; a folder with a slash at its end. Raises :class:`ValueError`."""
        path = plain_path(text)
        if path is None or path == "/":
            raise ValueError("expected an absolute path, or a folder with a slash at its end")
        return cls(text, path, text.endswith("/"))


def plain_path(path: str) -> str | None:
    """The plain form of an absolute path: without ``.``, ``..`` and doubled slashes, and with the symbolic
    links of the root folder followed (``/bin`` is one on most systems). None where it is not absolute.

    Only the root folder is looked up on disk: otherwise a caller could make the server wait for a file
    system of the caller's choice. The server decides on the plain form, and starts the plain form: so it
    does not matter where the path as written would lead.
    """
    if not path.startswith("/") or "\0" in path:
        return None
    first, slash, rest = posixpath.normpath(path).lstrip("/").partition("/")
    return posixpath.normpath(f"/{_root_links().get(first, first)}{slash}{rest}").replace("//", "/")


@cache
def _root_links() -> dict[str, str]:
    with os.scandir("/") as entries:
        return {entry.name: os.readlink(entry.path) for entry in entries if entry.is_symlink()}  # noqa: PTH115


def permitting(programs: Iterable[Program], path: str) -> Program | None:
    """The entry that permits to start ``path``, a plain path; None where none does.

    A program that is listed itself is permitted wherever its path leads: whoever lists it knows. A folder
    permits what is in it, but not a symbolic link to something outside the list, such as a shell. To find
    out, links in listed folders are followed on disk.
    """
    programs = tuple(programs)
    for program in programs:
        if not program.is_folder and program.path == path:
            return program
    folder, _, name = path.rpartition("/")
    for program in programs:
        if program.is_folder and program.path == folder and name and _stays(path, programs):
            return program
    return None


def _stays(path: str, programs: Iterable[Program]) -> bool:
    try:
        target = os.path.realpath(path, strict=True)
        folder = posixpath.dirname(target)
        return any(
            os.path.realpath(program.path) == (folder if program.is_folder else target)
            for program in programs
        )
    except OSError:
        return False
