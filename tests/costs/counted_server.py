"""A real server whose work is counted (:mod:`tests.costs.counted`), seen from outside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_DEADLINE = 50.0
_PROGRAM = Path(__file__).with_name("counted.py")


@dataclass(frozen=True)
class Counts:
    """What processes have done since they started, and what they hold.

    Attributes:
        calls: Python functions called, and coroutines and generators resumed.
        blocks: blocks of memory in use.
    """

    calls: int
    blocks: int


@dataclass(frozen=True)
class CountedServer:
    """A running server.

    Attributes:
        target: ``HOST:PORT``.
        processes: by their part: ``server`` the one, ``supervisor`` all of these.
    """

    target: str
    processes: dict[str, Sequence[psutil.Process]]
    _folder: Path

    def counts(self, part: str) -> Counts:
        """The sums over the processes of a part."""
        counts = [self._ask(process) for process in self.processes[part]]
        return Counts(sum(each["calls"] for each in counts), sum(each["blocks"] for each in counts))

    def _ask(self, process: psutil.Process) -> dict[str, Any]:
        before = self._read(process).get("round", 0)
        process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + _DEADLINE
        while (counts := self._read(process)).get("round", 0) == before:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {process.pid} does not say what it has counted")
            time.sleep(0.002)
        return counts

    def _read(self, process: psutil.Process) -> dict[str, Any]:
        try:
            text = (self._folder / f"{process.pid}.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        counts: dict[str, Any] = json.loads(text)
        return counts


@contextmanager
def counted_server(folder: Path) -> Iterator[CountedServer]:
    """Start one that has its files in ``folder``, and end it afterwards."""
    command = [sys.executable, str(_PROGRAM), str(folder), "serve", "--port", "0"]
    command += ["--state-dir", str(folder / "state")]
    log = folder / "stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"the server did not start: {line!r}\n{log.read_text(encoding='utf-8')}")
        server = psutil.Process(process.pid)
        supervisors = [child for child in server.children(recursive=True) if str(_PROGRAM) in child.cmdline()]
        if not supervisors:
            raise RuntimeError("the server has no supervisor that counts")
        yield CountedServer(line.split()[-1], {"server": [server], "supervisor": supervisors}, folder)
    finally:
        process.terminate()
        process.wait(_DEADLINE)
        process.stdout.close()
