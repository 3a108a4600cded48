"""The rate at which this machine starts and reaps ``/bin/sh -c true``: what all rates are compared with.

In C (``bare.c``, compiled here) and in Python: spawn with both outputs on pipes, read them to their ends,
wait. Nothing but that: no timeout, no new session, no process that is watched.

    python -m benchmarks.bare COUNT      prints commands per second, in Python
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.rows import Measurement, Rounds, Row
from benchmarks.settings import Settings

IN_C = "bare loop in C"
IN_PYTHON = "bare loop in Python"
_NO_COMPILER = "there is no C compiler (cc), so that there are no ratios"
_SECONDS = 60.0
_FOLDER = Path(__file__).resolve().parent


def in_c(settings: Settings, count: int) -> Measurement | None:
    """The loop in C, compiled; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = settings.folder / "bare"
    if not program.exists():
        command = [compiler, "-O2", "-o", str(program), str(_FOLDER / "bare.c")]
        subprocess.run(command, check=True, timeout=_SECONDS)
    return lambda: _rate([str(program), str(count)])


def in_python(count: int) -> Measurement:
    """The loop in Python, in a process of its own."""
    return lambda: _rate([sys.executable, "-m", "benchmarks.bare", str(count)])


def add(rounds: Rounds, settings: Settings, group: str, count: int) -> None:
    """Put the loop in C into the rounds of a group, as their reference."""
    row = Row(group, IN_C, "/s")
    if measurement := in_c(settings, count):
        rounds.add(measurement, row)
    else:
        rounds.leave_out(_NO_COMPILER, row)


def _rate(command: list[str]) -> float:
    result = subprocess.run(
        command, cwd=_FOLDER.parent, stdout=subprocess.PIPE, text=True, timeout=_SECONDS, check=True
    )
    return float(result.stdout)


def _run_one() -> None:
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, out_end, 1), (os.POSIX_SPAWN_DUP2, err_end, 2)]
    pid = os.posix_spawn("/bin/sh", ["/bin/sh", "-c", "true"], os.environ, file_actions=actions)
    os.close(out_end)
    os.close(err_end)
    for end in (out, err):
        while os.read(end, 65536):
            pass
        os.close(end)
    if os.waitpid(pid, 0)[1] != 0:
        raise SystemExit("the command failed")


def main(count: int) -> None:
    started = time.perf_counter()
    for _ in range(count):
        _run_one()
    print(count / (time.perf_counter() - started))


if __name__ == "__main__":
    main(int(sys.argv[1]))
