"""Whether a file may have changed, without reading it."""

from __future__ import annotations

from pathlib import Path

Signature = tuple[int, ...]
"""What changes with a file's content, its owner or its mode; empty for a file that is not there."""


def signature_of(path: Path) -> Signature:
    """The signature of a file, symbolic links followed."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ()
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
        status.st_uid,
    )
