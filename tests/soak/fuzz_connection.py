"""Look for sessions that break the server's connections.

    python -m tests.soak.fuzz_connection [--seconds N] [--seed S] [--corpus DIRECTORY]
    python -m tests.soak.fuzz_connection --replay FILE

The first finding ends the search: its session is made as short as it can be, kept, and the exit code is 1.
"""

from __future__ import annotations

import faulthandler
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.soak.player import play_each
from tests.soak.search import Finding, Progress, parse_arguments
from tests.soak.sessions import Session, Sessions

_SHORTENING_SECONDS = 60.0
_NUMBERS = re.compile(r"\d+|0x[0-9a-f]+")


def fresh_sessions(seed: int) -> Iterator[Session]:
    """New sessions without end."""
    sessions = Sessions(random.Random(seed))
    while True:
        yield sessions.make()


def search(seconds: float, seed: int, corpus: Path) -> int:
    """Play new sessions. Returns the exit code."""
    progress = Progress(seconds, seed)
    corpus.mkdir(parents=True, exist_ok=True)
    running = corpus / f"connection-{seed}"

    def each() -> Iterator[Session]:
        for session in fresh_sessions(seed):
            if not progress.goes_on():
                return
            # Before it is played: the process need not survive it.
            running.write_text(session.as_text())
            yield session

    try:
        play_each(each())
    except Finding as finding:
        print(f"FINDING: {finding}", flush=True)
        short = shortened(Session.from_text(running.read_text()))
        running.write_text("".join(f"# {line}\n" for line in str(finding).splitlines()) + short.as_text())
        print(f"kept in {running}", flush=True)
        return 1
    running.unlink()
    progress.say()
    return 0


def finding_of(session: Session) -> str:
    """What playing a session, alone, finds; empty for nothing."""
    try:
        play_each([session])
    except Finding as finding:
        return str(finding)
    return ""


def shortened(session: Session) -> Session:
    """The same finding with fewer steps; the session itself where it takes those before it to find it."""
    found = _NUMBERS.sub("", finding_of(session))
    if not found or session.undamaged:  # which it is as a whole only
        return session
    ends = time.monotonic() + _SHORTENING_SECONDS
    size = len(session.steps)
    while size := size // 2:
        position = 0
        while position < len(session.steps) and time.monotonic() < ends:
            steps = session.steps[:position] + session.steps[position + size :]
            if _NUMBERS.sub("", finding_of(without := replace(session, steps=steps))) == found:
                session = without
            else:
                position += size
    return session


def main() -> int:
    """The program."""
    arguments = parse_arguments(__doc__)
    faulthandler.enable()
    if arguments.replay:
        found = finding_of(Session.from_text(arguments.replay.read_text()))
        print(found or "nothing is found any more")
        return int(bool(found))
    return search(arguments.seconds, arguments.seed, arguments.corpus)


if __name__ == "__main__":
    sys.exit(main())
