"""Starts a command's process the quick way, with posix_spawn, and prepares the supervisor for that.

The supervisor waits until the process has become its program. So only a program and a directory that nobody
can make it wait at are started like this; for all others see
:mod:`remsvc.execution.supervisor.forked_start`.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from remsvc.execution.supervisor.system_calls import prctl, system_call

_KEYCTL_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
_SYS_KEYCTL = {"x86_64": 250, "ppc64le": 271, "ppc64": 271, "s390x": 280}
_SYS_KEYCTL |= dict.fromkeys(("aarch64", "riscv64", "loongarch64"), 219)
_OOM_SCORE = Path("/proc/self/oom_score_adj")

Streams = tuple[int, int, int]
"""Descriptors for standard input, output and error."""


class NewSession:
    """Gives what is started in a ``with`` block a session keyring and an OOM score of its own.

    A command must not read the keys of another one, nor be protected from the kernel's out-of-memory killer
    as the server may be. Where the kernel refuses a keyring, the command starts all the same: the kernel may
    have no support for keys, a container may forbid them, or a user who is not root may have as many as it
    may. Each reason is told once.

    Args:
        complain: called with what commands do not get, and why.
    """

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._told: set[str] = set()
        self._keyctl = _SYS_KEYCTL.get(os.uname().machine) if sys.maxsize > 1 << 32 else None
        self._own_score = 0
        if _OOM_SCORE.exists():
            self._own_score = int(_OOM_SCORE.read_text())

    def __enter__(self) -> None:
        if self._keyctl is not None:
            try:
                system_call(self._keyctl, _KEYCTL_JOIN_SESSION_KEYRING, None)
            except OSError as error:
                self._tell(f"commands may share a session keyring: {error.strerror} (keyctl)")
        if self._own_score < 0:  # the server's protection is not its commands'
            _OOM_SCORE.write_text("0")

    def __exit__(self, *_: object) -> None:
        if self._own_score < 0:
            try:
                _OOM_SCORE.write_text(str(self._own_score))
            except OSError as error:
                self._own_score = 0
                self._tell(f"this process gave up its OOM score for its commands: {error}")

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._complain(what)


# Python ignores these; a command must not inherit that.
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)

_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4  # linux/prctl.h
_NEARLY = 128


class OpenFiles:
    """How many files this process and its commands may open.

    Commands keep the limit that this process was started with: programs that use select(2) cannot work with
    descriptors above 1024. This process itself takes as many as the system lets it have, once it needs them.

    Attributes:
        of_commands: the soft and the hard limit that a command starts with.
    """

    def __init__(self) -> None:
        self.of_commands = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._own = self.of_commands
        self._low: list[int] = []

    def make_room(self, descriptor: int) -> None:
        """Raise this process's own limit once ``descriptor``, the newest, is nearly the last that it allows.

        From then on each start takes two system calls more.
        """
        if descriptor < self.of_commands[0] - _NEARLY or self._own != self.of_commands:
            return
        hard = self.of_commands[1]
        self._own = (hard, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._own)
        # Room below the commands' limit: posix_spawn knows no descriptor above it.
        self._low.extend(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(3))

    def lower(self, streams: Streams) -> Streams:
        """Have the limit of commands until :meth:`restore`; ``streams`` at numbers that it allows."""
        if self._own == self.of_commands:
            return streams
        if max(streams) >= self.of_commands[0]:
            stdin, stdout, stderr = (
                os.dup2(stream, low, inheritable=False)
                for stream, low in zip(streams, self._low, strict=True)
            )
            streams = (stdin, stdout, stderr)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.of_commands)
        return streams

    def restore(self, streams: Streams) -> None:
        """Have this process's own limit again; ``streams`` are what :meth:`lower` returned."""
        if self._own == self.of_commands:
            return
        resource.setrlimit(resource.RLIMIT_NOFILE, self._own)
        for low in set(streams).intersection(self._low):
            os.dup2(0, low, inheritable=False)  # the null device again


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    folder: str | int,
    folder_required: bool,
    streams: Streams,
    open_files: OpenFiles,
) -> int:
    """Start a process as the leader of a new session and return its pid; the caller reaps it.

    This process waits until the new one has become the program. Nothing may hold that up, which
    :class:`~remsvc.execution.supervisor.local_paths.LocalPaths` makes sure of.

    Args:
        argv: the first is the program's path.
        env: the whole environment.
        folder: the working directory: a path, or a descriptor.
        folder_required: fail where it cannot be entered, instead of starting in ``/``.
        streams: descriptors for its standard input, output and error. It inherits no other.
        open_files: how many files it may open.

    Raises:
        OSError: it could not be started.
        ValueError: a NUL in an argument or in the environment.
    """
    try:
        os.chdir(folder)
    except OSError:
        if folder_required:
            raise
    try:
        streams = open_files.lower(streams)
        try:
            # A tenth quicker than subprocess, which cannot use posix_spawn for a new session.
            return os.posix_spawn(
                argv[0],
                tuple(argv),
                env,
                file_actions=[(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams)],
                setsid=True,
                setsigdef=_DEFAULT_SIGNALS,
            )
        finally:
            open_files.restore(streams)
    finally:
        os.chdir("/")  # a file system that this process is in cannot be unmounted


def drop_ambient_capabilities() -> None:
    """Keep what a server that is not root may do (``AmbientCapabilities=``) from its commands."""
    with suppress(OSError):  # before Linux 4.3 there are none
        prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def restore_signals() -> None:
    """Let no command inherit that a signal is ignored or blocked, as ``nohup`` and the like leave it."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - set(_DEFAULT_SIGNALS):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
