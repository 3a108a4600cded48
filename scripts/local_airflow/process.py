"""A background process that is gone, with all its descendants, once it was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from typing_extensions import Self

TERM_GRACE = 5.0
"""Seconds between asking a process to end and killing it."""


class StartupError(Exception):
    """A process ended, or said nothing, instead of getting ready; has the end of its log."""


class BackgroundProcess:
    """A process in a session of its own, writing to a log file.

    The session is what makes stopping reliable: Airflow puts its task processes into process
    groups of their own, but no descendant leaves the session unless it asks to.

    Attributes:
        name: what messages call it.
        log_path: where its standard output and error go.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log_path: Path,
    ) -> None:
        self.name = name
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process's id; also that of its session."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Raise :class:`StartupError` where the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise StartupError(f"{self.name} ended with code {code}\n{self._log_tail()}")

    def wait_for_line(self, start: str, timeout: float) -> str:
        """The rest of the first line of its log that begins with ``start``.

        Raises:
            StartupError: no such line within ``timeout`` seconds, or the process ended.
        """
        return self._wait_for_line(start, timeout, str.startswith).removeprefix(start).strip()

    def wait_for_text(self, text: str, timeout: float) -> str:
        """The first line of its log that has ``text`` in it, whole.

        Raises:
            StartupError: no such line within ``timeout`` seconds, or the process ended.
        """
        return self._wait_for_line(text, timeout, str.__contains__).strip()

    def _wait_for_line(self, text: str, timeout: float, fits: Callable[[str, str], bool]) -> str:
        deadline = time.monotonic() + timeout
        while True:
            ended = self._process.poll() is not None
            for line in self.log.splitlines(keepends=True):
                if fits(line, text) and line.endswith("\n"):
                    return line
            if ended:
                self.check()
            if time.monotonic() > deadline:
                raise StartupError(
                    f"{self.name} did not print {text!r} within {timeout:.0f} s\n{self._log_tail()}"
                )
            time.sleep(0.05)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def send_signal(self, number: int) -> None:
        """Send a signal to the process alone; nothing happens where it has ended."""
        self._process.send_signal(number)

    def send_signal_to_all(self, number: int) -> None:
        """Send a signal to it and everything in its session: what stopping a whole machine does."""
        self.send_signal(number)
        for pid in self._session_members():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait(self, timeout: float) -> int:
        """Wait for its end, and return its exit code: negative, the signal that ended it.

        Raises:
            TimeoutError: it goes on.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{self.name} goes on after {timeout:.0f} s") from error

    def stop(self, grace: float = TERM_GRACE) -> None:
        """End it and everything in its session. Idempotent."""
        stop_all([self], grace)

    def _session_members(self) -> list[int]:
        return [pid for pid in psutil.pids() if pid != self.pid and _session_of(pid) == self.pid]

    def _log_tail(self, lines: int = 30) -> str:
        tail = self.log.splitlines()[-lines:]
        return "\n".join([f"--- the end of {self.log_path}:", *tail])


class BackgroundServer(ABC):
    """A server in a background process, as a context manager: it is ready in the block, and gone after it."""

    _process: BackgroundProcess | None = None

    @abstractmethod
    def _start(self) -> BackgroundProcess:
        """Start it. Raises :class:`StartupError` where that cannot be."""

    @abstractmethod
    def _wait_until_ready(self, process: BackgroundProcess) -> None:
        """Wait until it can be used. Raises :class:`StartupError` where that takes too long."""

    def _stop(self, process: BackgroundProcess) -> None:
        process.stop()

    def __enter__(self) -> Self:
        """Start the server.

        Raises:
            StartupError: it cannot be started, or was not ready in time; with the end of its log.
        """
        process = self._process = self._start()
        try:
            self._wait_until_ready(process)
        except BaseException:
            process.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._stop(self._process)


def stop_all(processes: Iterable[BackgroundProcess], grace: float = TERM_GRACE) -> None:
    """Stop several processes side by side: TERM, ``grace`` seconds, then KILL to what remains.

    Raises:
        RuntimeError: something is still there after KILL.
    """
    processes = list(processes)
    for process in processes:
        if process._process.poll() is None:
            process._process.terminate()
    deadline = time.monotonic() + grace
    for process in processes:
        try:
            process._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process._process.kill()
            process._process.wait()
    deadline = time.monotonic() + 10.0
    while members := [pid for process in processes for pid in process._session_members()]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {members} are still there after SIGKILL")
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def end_children() -> None:
    """Kill whatever children of this process are left, and their sessions.

    There are some only where a signal came between starting a process and taking note of it.
    """
    sessions = {child.pid for child in psutil.Process().children()}
    for pid in psutil.pids():
        if pid in sessions or _session_of(pid) in sessions:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _session_of(pid: int) -> int | None:
    """The session of a process that is there and no zombie, else None."""
    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return None
        return os.getsid(pid)
    except (psutil.NoSuchProcess, ProcessLookupError, PermissionError, psutil.AccessDenied):
        return None
