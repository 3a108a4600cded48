"""How a durable job ended, on disk: what a server that was away finds when it comes back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_NAME = "exit.json"


def write_exit_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of the job whose files are in ``folder``, whole or not at all, onto the disk.

    Raises:
        OSError: it could not be written.
    """
    folder.mkdir(0o700, exist_ok=True)
    temporary = folder / f"{_NAME}.new"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _NAME)
    for directory in (folder, folder.parent):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_exit_record(folder: Path) -> dict[str, Any] | None:
    """The record of the job whose files are in ``folder``; None where it has none, or a broken one."""
    try:
        record = json.loads((folder / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None
