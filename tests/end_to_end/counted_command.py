"""A command that shows how often it ran and what it printed, whatever became of its task."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

from tests.end_to_end.waiting import is_running, wait_until

_SCRIPT = """\
# $1: the directory of the traces
cd "$1"
echo $$ >> runs
number=0
while [ ! -e release ]; do
  number=$((number + 1))
  # The trace first: nothing is printed that it does not have.
  echo "out $number: ä漢\\U0001f980" >> printed.out; tail -n 1 printed.out
  case $number in *0) echo "err $number" >> printed.err; tail -n 1 printed.err >&2;; esac
  sleep 0.1
done
printf 'an end without a newline' >> printed.out; printf 'an end without a newline'
exit "$2"
"""


class CountedCommand:
    """Prints some ten lines a second, now and then one to standard error, until it is released.

    Its directory gets a line for each start (``runs``) and whatever it printed.

    Args:
        directory: an empty one.
        rc: with what it ends, once released.
    """

    def __init__(self, directory: Path, rc: int = 0) -> None:
        self._directory = directory
        script = directory / "counted.sh"
        script.write_text(_SCRIPT.replace("\\U0001f980", "\U0001f980"), encoding="utf-8")
        self.cmd = shlex.join(["sh", str(script), str(directory), str(rc)])

    @property
    def pids(self) -> list[int]:
        """The process of each run."""
        return [int(line) for line in self._read("runs").split()]

    @property
    def out(self) -> str:
        """What it printed so far; of all runs, where there are several."""
        return self._read("printed.out")

    @property
    def err(self) -> str:
        return self._read("printed.err")

    @property
    def running(self) -> bool:
        return any(map(is_running, self.pids))

    def wait_until_started(self, times: int = 1) -> None:
        wait_until(lambda: len(self.pids) >= times, f"the command to start {times} time(s)")

    def wait_until_it_prints(self, lines: int = 3) -> None:
        """Wait until it has printed so many lines more."""
        wanted = self.out.count("\n") + lines
        wait_until(lambda: self.out.count("\n") >= wanted, "the command to go on printing")

    def release(self) -> None:
        """Let it end."""
        (self._directory / "release").touch()

    def kill(self) -> None:
        """End what a failed test has left behind."""
        for pid in filter(is_running, self.pids):
            os.kill(pid, signal.SIGKILL)

    def _read(self, name: str) -> str:
        path = self._directory / name
        return path.read_text(encoding="utf-8") if path.exists() else ""
