"""Ending everything that a command started, a slice of time after the other.

A crowd of thousands takes seconds to be found and ended, and one that forks all the time may never be
caught: the supervisor's loop does other things in between, and gives up in the end.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Iterator

from remsvc.execution.supervisor.process_tree import Others, Tree, walk
from remsvc.execution.supervisor.processes import ProcEntry, describe, is_there, send_signal

_PAUSE_SECONDS = 0.02
"""How often it is looked whether anything is left."""

_FREEZE_SECONDS = 0.2
_REAP_SECONDS = 0.001
_NAMED = 5


class TreeEnd:
    """The end of a command's processes. First :meth:`terminate` or :meth:`kill`, then :meth:`work`.

    Args:
        others: tells of the other commands as they are now.
        orphans: tells how many processes have ended so far that may have been the command's, and were
            the first process of none.

    Attributes:
        ended: all that belonged to the command has ended.
        given_up: some of it is there still, and nobody waits for that any more.
        left: what is, or may be, for a person; empty for nothing.
    """

    def __init__(self, command: Tree, others: Callable[[], Others], orphans: Callable[[], int]) -> None:
        self.ended = False
        self.given_up = False
        self.left = ""
        self._command = command
        self._others = others
        self._orphans = orphans
        self._doubtful: set[ProcEntry] = set()
        self._guarded: set[ProcEntry] = set()
        self._known: set[ProcEntry] = set()
        self._steps: Iterator[float] = iter(())
        self._deadline = float("inf")

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.ended or self.given_up

    def terminate(self) -> None:
        """Ask its processes to end."""
        self._steps = self._terminate()

    def kill(self, within: float) -> None:
        """End its processes, and give up ``within`` seconds after this was asked for first."""
        self._deadline = min(self._deadline, time.monotonic() + within)
        self._steps = self._kill(self._deadline)

    def work(self, until: float) -> float:
        """Go on until that time of the monotonic clock.

        Returns:
            Seconds until there may be something to do again; 0 where there is, or it is :attr:`over`.

        Raises:
            OSError: it cannot go on now; it begins anew the next time, with :meth:`kill`.
        """
        for pause in self._steps:
            if pause or time.monotonic() >= until:
                return pause
        return 0.0

    def _terminate(self) -> Iterator[float]:
        # SIGCONT, so that stopped ones see it.
        for number in (signal.SIGTERM, signal.SIGCONT):
            yield from self._signal_all(number)
        while True:
            began = time.monotonic()
            if (yield from self._none()):
                self._finish()
                return
            # Looking through a crowd is dear: not more than a quarter of the time.
            yield max(_PAUSE_SECONDS, 3 * (time.monotonic() - began))

    def _kill(self, deadline: float) -> Iterator[float]:
        if time.monotonic() > deadline:  # it was tried before, and failed
            self.given_up = True
            self.left = "could not be ended: this server could not look after its processes"
            return
        group = self._command.group
        if group is not None:
            group.freeze()
            frozen_by = min(deadline, time.monotonic() + _FREEZE_SECONDS)
            while not group.frozen and not group.empty and time.monotonic() < frozen_by:
                yield 0.001
        if self._command.may_leave:
            # None can fork away while its relatives are being found.
            yield from self._signal_all(signal.SIGSTOP, (time.monotonic() + deadline) / 2)
        killed: set[ProcEntry] = set()
        while True:
            began, before = time.monotonic(), len(killed)
            if (yield from self._none(killed)):
                break
            if time.monotonic() > deadline:
                self._give_up()
                break
            yield 0.0 if len(killed) > before else max(_PAUSE_SECONDS, time.monotonic() - began)
        if group is not None:
            group.freeze(False)
        if not self.given_up:
            self._finish()

    def _signal_all(self, number: signal.Signals, deadline: float = float("inf")) -> Iterator[float]:
        """Signal each process once, until no new one turns up."""
        signalled: set[ProcEntry] = set()
        quiet = 0
        # The kernel's list of children may miss one while others end (proc(5)): look twice.
        while quiet < 2 and time.monotonic() < deadline:
            quiet += 1
            for process in self._walk():
                if process is not None and process not in signalled:
                    quiet = 0
                    signalled.add(process)
                    self._send(process, number)
                yield 0.0

    def _none(self, killed: set[ProcEntry] | None = None) -> Generator[float, None, bool]:
        """Whether nothing is left; what is found goes into ``killed``, and is."""
        ended = self._orphans()
        if (yield from self._any(killed)):
            return False
        if not self._command.may_leave:
            return True
        # Of a chain, each of whose links starts the next one and ends, none may have been there to be seen.
        yield _REAP_SECONDS
        return self._orphans() == ended

    def _any(self, killed: set[ProcEntry] | None = None) -> Generator[float, None, bool]:
        """Whether anything is left; what is found goes into ``killed``, and is."""
        for known in list(self._known) if killed is None else ():
            if is_there(known):
                return True
            self._known.discard(known)
            yield 0.0
        found = False
        for _ in range(2):  # as above
            for process in self._walk():
                yield 0.0
                if process is None:
                    continue
                found = True
                if killed is None:
                    self._known.add(process)
                    return True
                if process not in killed:
                    killed.add(process)
                    self._send(process, signal.SIGKILL)
            if found:
                break
        return found

    def _walk(self) -> Iterator[ProcEntry | None]:
        self._doubtful.clear()
        return walk(self._command, self._others(), self._doubtful)

    def _send(self, process: ProcEntry, number: signal.Signals) -> None:
        if not send_signal(process, number):
            self._guarded.add(process)

    def _finish(self) -> None:
        self.ended = True
        if self._doubtful:
            self.left = f"may have left behind, as other commands of its user ran, {_names(self._doubtful)}"

    def _give_up(self) -> None:
        self.given_up = True
        left = {process for process in self._walk() if process is not None}
        if not left:
            self.left = "may have left processes behind that start others and end too quickly to be found"
            return
        why = ", some of which this server may not signal" if self._guarded & left else ""
        self.left = f"could not be ended whole: left are {_names(left)}{why}"


def _names(processes: set[ProcEntry]) -> str:
    first = sorted(processes, key=lambda process: process.start_ticks)[:_NAMED]
    more = f" and {len(processes) - len(first)} more" if len(processes) > len(first) else ""
    return f"process {', '.join(describe(process.pid) for process in first)}{more}"
