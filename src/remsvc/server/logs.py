"""The server's log: standard error, and a rotated file where one is configured.

Records are written by a thread of their own, so that a slow disk never blocks the event loop.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import re
import sys
import time
from pathlib import Path

_FILES = 10
_FILE_BYTES = 10_000_000
_QUEUE_RECORDS = 10_000
_BATCH_SECONDS = 0.05
_SHOWN_CHARACTERS = 1_000
_PLAIN = re.compile(r"[\w.:/@%+,\[\]-]+", re.ASCII)


def fields(**values: object) -> str:
    """``key=value`` pairs of one line; what is empty is left out.

    Values that are not plain are quoted as JSON with every control and non-ASCII character
    escaped: nothing a caller sends can forge a line or reach a terminal raw.
    """
    return " ".join(f"{key}={_shown(str(value))}" for key, value in values.items() if value != "")


def _shown(value: str) -> str:
    if len(value) > _SHOWN_CHARACTERS:
        value = f"{value[:_SHOWN_CHARACTERS]}… ({len(value)} characters)"
    return value if _PLAIN.fullmatch(value) else json.dumps(value).replace("\x7f", "\\u007f")


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    """Drops records rather than blocking or growing, and counts what it dropped."""

    dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _BatchingListener(logging.handlers.QueueListener):
    """Sleeps after each batch: waking up for every record would slow the event loop down."""

    def handle(self, record: logging.LogRecord) -> None:
        super().handle(record)
        records: queue.Queue[logging.LogRecord] = self.queue  # type: ignore[assignment]
        if records.empty():
            time.sleep(_BATCH_SECONDS)


class Logs:
    """Logging while a server runs: a context manager.

    Args:
        level: a :mod:`logging` level.
        file: the log file, opened here, rotated at 10 MB, 10 files kept.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, level: int, file: Path | None) -> None:
        handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
        if file is not None:
            handlers.append(
                logging.handlers.RotatingFileHandler(
                    file, maxBytes=_FILE_BYTES, backupCount=_FILES - 1, encoding="utf-8"
                )
            )
        for handler in handlers:
            handler.setFormatter(_Formatter())
        records: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_RECORDS)
        self._queue_handler = _BoundedQueueHandler(records)
        self._listener = _BatchingListener(records, *handlers)
        self._handlers = handlers
        self._level = level

    def __enter__(self) -> Logs:  # noqa: PYI034
        root = logging.getLogger()
        root.addHandler(self._queue_handler)
        root.setLevel(self._level)
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self._queue_handler)
        self._listener.stop()
        for handler in self._handlers:
            if self._queue_handler.dropped:
                handler.handle(
                    logging.makeLogRecord(
                        {
                            "name": "remsvc.log",
                            "levelno": logging.ERROR,
                            "levelname": "ERROR",
                            "msg": f"{self._queue_handler.dropped} records were dropped: writing was slow",
                        }
                    )
                )
            handler.close()
