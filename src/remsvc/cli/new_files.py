"""Writes a set of new files: all of them or none, and private ones never readable by others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remsvc.errors import RemSvcError


@dataclass(frozen=True, slots=True)
class NewFile:
    """The content of a file to write. A private file gets the mode 0600, any other 0644."""

    content: bytes
    private: bool = True


def make_directory(path: Path) -> None:
    """Make a directory that only its owner may enter. One that exists already stays as it is."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise RemSvcError(f"{path}: cannot be made: {error.strerror}") from error


def write_files(directory: Path, files: Mapping[str, NewFile], *, replace: bool) -> None:
    """Write ``files`` (by name) into ``directory``.

    All are written under temporary names first, so that a full disk leaves what was there.

    Raises:
        RemSvcError: a file exists and ``replace`` is not set, or one cannot be written.
    """
    if not replace and (existing := [name for name in files if os.path.lexists(directory / name)]):
        raise RemSvcError(
            f"{directory} already holds {', '.join(existing)}: nothing written (--force replaces them)"
        )
    temporary = {directory / f".{name}.new": directory / name for name in files}
    try:
        for path, final in temporary.items():
            _create(path, files[final.name])
        for path, final in temporary.items():
            path.replace(final)
    except OSError as error:
        raise RemSvcError(f"{error.filename}: cannot be written: {error.strerror}") from error
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


def _create(path: Path, file: NewFile) -> None:
    path.unlink(missing_ok=True)  # left by a run that was killed
    # The file has its mode from the first moment, and O_EXCL follows no link that somebody may have put
    # there.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if file.private else 0o644)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(file.content)
        stream.flush()
        os.fsync(stream.fileno())
