"""The server's log: standard error, and a rotated file where one is configured.

Each of the two has a thread that writes it. So neither a slow disk, nor a standard error that nobody reads,
can block the event loop, the other log or the end of the server.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import os
import queue
import re
import stat
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from remsvc.printable import printable

_MODE = 0o640
_FILES = 10
_FILE_BYTES = 10_000_000
_QUEUE_RECORDS = 10_000
_BATCH_SECONDS = 0.05
_BATCH_RECORDS = 500
_STOP_SECONDS = 2.0
_SHOWN_CHARACTERS = 1_000
_LONG = 100
_LONGEST_LINE = 16 * 1024
_PLAIN = re.compile(r"[\w.:/@%+,\[\]-]+", re.ASCII)


def fields(**values: object) -> str:
    """``key=value`` pairs for one line of the log; empty values are left out.

    Values that are not plain are quoted as JSON, with every control and non-ASCII character escaped. So
    nothing that a caller sends can pass for a line of the log, or reach a terminal as it is.
    """
    return " ".join([f"{key}={_quoted(str(value))}" for key, value in values.items() if value != ""])


def _quoted(value: str) -> str:
    # The same callers send the same words again and again; what is long is not worth keeping.
    return _shown(value) if len(value) > _LONG else _shown_before(value)


def _shown(value: str) -> str:
    if len(value) > _SHOWN_CHARACTERS:
        value = f"{value[:_SHOWN_CHARACTERS]}… ({len(value)} characters)"
    return value if _PLAIN.fullmatch(value) else json.dumps(value).replace("\x7f", "\\u007f")


_shown_before = lru_cache(1024)(_shown)


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """One record; what follows its first line, as in a traceback, is indented and so no record."""
        return "\n    ".join(
            [printable(line, limit=_LONGEST_LINE) for line in super().format(record).split("\n")]
        )


_FORMATTER = _Formatter()


class _QueueHandler(logging.handlers.QueueHandler):
    """Drops records rather than blocking or growing, and counts what it dropped."""

    dropped = 0
    queue: queue.SimpleQueue[logging.LogRecord | None]

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # formatted by the thread that writes it: what it is made of does not change

    def enqueue(self, record: logging.LogRecord) -> None:
        if self.queue.qsize() < _QUEUE_RECORDS:
            self.queue.put(record)
        else:
            self.dropped += 1


class _Sink:
    """One place that the log is written to, with the thread that writes it."""

    def __init__(self, write: Callable[[list[logging.LogRecord]], object]) -> None:
        self._write = write
        self._records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self.handler = _QueueHandler(self._records)

    def start(self) -> None:
        logging.getLogger().addHandler(self.handler)
        self._thread.start()

    def stop(self) -> None:
        """Write what is left. Gives up where that takes longer than two seconds."""
        logging.getLogger().removeHandler(self.handler)
        deadline = time.monotonic() + _STOP_SECONDS
        self._records.put(None)
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            batch = [record]
            with contextlib.suppress(queue.Empty):
                while len(batch) < _BATCH_RECORDS and (record := self._records.get_nowait()) is not None:
                    batch.append(record)
            self._write(batch)
            if record is None:
                break
            if self._records.empty():
                # One wake-up for many records: each would slow the event loop down.
                time.sleep(_BATCH_SECONDS)
        if self.handler.dropped:
            text = f"{self.handler.dropped} records were dropped: writing was slow"
            self._write([logging.LogRecord("remsvc.log", logging.ERROR, "", 0, text, None, None)])


def _write_to_stderr(records: list[logging.LogRecord]) -> None:
    # Not through sys.stderr: its lock, held by a thread that cannot write, would hang the exit.
    data = "".join(f"{_FORMATTER.format(record)}\n" for record in records).encode(errors="backslashreplace")
    with contextlib.suppress(OSError):  # closed: there is nobody to tell
        while data:
            data = data[os.write(2, data) :]


class _RotatedFile(logging.handlers.RotatingFileHandler):
    """The log file and its older ones. Only their owner and their group can read them.

    The commands of all callers stand in them, and with the commands, secrets that somebody wrote there.
    """

    def __init__(self, file: Path, **options: Any) -> None:
        super().__init__(file, **options)
        for number in range(1, self.backupCount + 1):
            with contextlib.suppress(OSError):  # there is none, or it is somebody else's
                _withdraw(self.rotation_filename(f"{self.baseFilename}.{number}"))

    def _open(self) -> TextIOWrapper:
        # Appending, whatever the mode: that is how it is made. Not by open(), which lets everybody read it.
        descriptor = os.open(
            self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), _MODE
        )
        with contextlib.suppress(OSError):  # it is somebody else's
            if not Path(self.baseFilename).is_symlink():  # what a link leads to has its own rights
                _withdraw(descriptor)
        return TextIOWrapper(open(descriptor, "ab"), encoding=self.encoding, errors=self.errors)  # noqa: PTH123


def _withdraw(file: int | str) -> None:
    """Take all rights to a file of ours from others than its owner and its group."""
    # Where others may make files beside the log, a link could lead to any file of ours.
    status = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    if sys.platform != "win32" and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        wanted = stat.S_IMODE(status.st_mode) & (_MODE | stat.S_ISGID)
        if wanted != stat.S_IMODE(status.st_mode):
            os.chmod(file, wanted)  # noqa: PTH101


def _write_to_file(file: logging.Handler, records: list[logging.LogRecord]) -> None:
    for record in records:
        file.handle(record)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of gRPC's belongs into the log.

    It writes a traceback for each answer whose caller has gone. With those, anybody who can connect could
    fill the log.
    """
    return "ExecuteBatchError" not in record.getMessage()


class Logs:
    """Logging while a server runs: a context manager.

    Args:
        level: a :mod:`logging` level.
        file: the log file. It is opened here, and rotated at 10 MB; 10 files are kept. Only their owner and
            their group can read them.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, level: int, file: Path | None) -> None:
        self._level = level
        self._sinks = [_Sink(_write_to_stderr)]
        self._file: logging.Handler | None = None
        if file is not None:
            self._file = _RotatedFile(
                file,
                maxBytes=_FILE_BYTES,
                backupCount=_FILES - 1,
                encoding="utf-8",
                errors="backslashreplace",
            )
            self._file.setFormatter(_FORMATTER)
            self._sinks.append(_Sink(partial(_write_to_file, self._file)))

    def __enter__(self) -> Logs:  # noqa: PYI034
        logging.getLogger().setLevel(self._level)
        # Nothing of this is in a line, and each is looked up for every record: "Optimization" in Python's
        # logging HOWTO.
        logging._srcfile = None
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        logging.logAsyncioTasks = False  # type: ignore[attr-defined, unused-ignore]
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
        for sink in self._sinks:
            sink.start()
        return self

    def __exit__(self, *_: object) -> None:
        for sink in self._sinks:
            sink.stop()
        logging.getLogger("grpc._cython.cygrpc").removeFilter(_is_news)
        if self._file is not None:
            self._file.close()
