"""How jobs ended, kept by the supervisor until a server has written it down."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
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


_RETRY_SECONDS = 1.0


class KeptRecords:
    """Exit records in memory; on disk, too, where no server is there to be told.

    Args:
        complain: called with what is wrong with the disk.
    """

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._records: dict[int | str, dict[str, Any]] = {}
        self._unwritten: set[int | str] = set()
        self._tried = 0.0

    def __contains__(self, name: int | str) -> bool:
        return name in self._records

    @property
    def all(self) -> Mapping[int | str, dict[str, Any]]:
        """The records by their jobs."""
        return self._records

    @property
    def unwritten(self) -> bool:
        """Whether some must still be written to disk."""
        return bool(self._unwritten)

    def keep(self, name: int | str, folder: Path, record: dict[str, Any]) -> None:
        """Keep the record of a job; ``folder`` has its files."""
        record["folder"] = str(folder)
        self._records[name] = record

    def forget(self, name: int | str) -> None:
        """A server has written it down."""
        self._records.pop(name, None)
        self._unwritten.discard(name)

    def write(self, name: int | str) -> None:
        """Write one to disk, now or when that is possible."""
        self._unwritten.add(name)
        self._write()

    def write_all(self) -> None:
        """Write all to disk."""
        self._unwritten = set(self._records)
        self._write()

    def try_again(self) -> None:
        """Write what could not be written, if that is long enough ago."""
        if self._unwritten and time.monotonic() - self._tried > _RETRY_SECONDS:
            self._write()

    def _write(self) -> None:
        self._tried = time.monotonic()
        for name in list(self._unwritten):
            record = self._records[name]
            try:
                write_exit_record(Path(record["folder"]), record)
            except OSError as error:
                self._complain(f"the end of job {name} cannot be written yet: {error}")
            else:
                self._unwritten.discard(name)
