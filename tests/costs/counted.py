"""Runs ``remsvc`` with its work counted: ``python counted.py FOLDER serve ...``.

Not a line of the product knows of it. Counted are the Python functions that are called, in all
threads, and the blocks of memory in use, in the server and in each supervisor, which is started
through ``sys.executable``. On SIGUSR1 a process writes its counts to ``FOLDER/PID.json``. What the
server does some times a second, whatever is asked of it, is put off: it would count for more on a slow
machine.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType
from typing import Any


def count(folder: Path) -> None:
    """Count in this process from now on."""
    calls = itertools.count()
    rounds = itertools.count(1)

    def profile(_frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            next(calls)  # one step of the interpreter: no thread can come between

    def write(_number: int, _frame: FrameType | None) -> None:
        sys.setprofile(None)  # none of this is the product's work
        gc.collect()
        counts = {"round": next(rounds), "calls": next(calls), "blocks": sys.getallocatedblocks()}
        unfinished = folder / f"{os.getpid()}.unfinished"
        unfinished.write_text(json.dumps(counts), encoding="utf-8")
        unfinished.rename(folder / f"{os.getpid()}.json")
        sys.setprofile(profile)

    signal.signal(signal.SIGUSR1, write)
    threading.setprofile(profile)
    sys.setprofile(profile)


def put_off_what_recurs() -> None:
    """Let no coroutine of this process go on that sleeps from one time to the next."""
    sleep = asyncio.sleep

    def longer(delay: float, result: Any = None) -> Coroutine[Any, Any, Any]:
        return sleep(delay and 3600.0, result)

    asyncio.sleep = longer


def _program(folder: Path) -> Path:
    """A stand-in for the interpreter that counts what it runs."""
    program = folder / "counted-python"
    words = " ".join(f"'{word}'" for word in (sys.executable, "-I", Path(__file__).resolve(), folder))
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return program


def main() -> None:
    """Run the server, or the supervisor, as its arguments say."""
    folder, *arguments = Path(sys.argv[1]), *sys.argv[2:]
    if "-c" in arguments:  # the supervisor: options, -c, its text and its arguments
        text = arguments.index("-c") + 1
        sys.argv = ["-c", *arguments[text + 1 :]]
        count(folder)
        exec(compile(arguments[text], "<string>", "exec"), {"__name__": "__main__"})
        return
    sys.executable = str(_program(folder))
    sys.argv = ["remsvc", *arguments]
    from remsvc.__main__ import main as command_line

    put_off_what_recurs()
    count(folder)
    command_line()


if __name__ == "__main__":
    main()
