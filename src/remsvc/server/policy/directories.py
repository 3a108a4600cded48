"""Decides in which directories a command may start, by a list of absolute paths."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable


def is_plain(path: str) -> bool:
    """Whether ``path`` is absolute and without ``.``, ``..`` and doubled slashes."""
    return path.startswith("/") and not path.startswith("//") and posixpath.normpath(path) == path


def parse_directory(text: str) -> str:
    """An entry of the list: an absolute path, a slash at its end for all that is below it as well.

    Raises:
        ValueError: it is none.
    """
    if not is_plain(text.rstrip("/") or "/") or text.endswith("//"):
        raise ValueError("expected an absolute path without . and .., a slash at its end for what is below")
    return text


def permits_directory(listed: Iterable[str], directory: str) -> bool:
    """Whether a command may start in ``directory``; not if it is written with ``.``, ``..`` or ``//``.

    Nothing is looked up on disk: otherwise a caller could make the server wait for a file system of the
    caller's choice. So a symbolic link is permitted where its own path is.
    """
    path = directory if directory == "/" else directory.removesuffix("/")
    if not is_plain(path):
        return False
    return any(
        path == (entry.rstrip("/") or "/") or (entry.endswith("/") and path.startswith(entry))
        for entry in listed
    )
