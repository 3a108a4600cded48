"""Starting a process on POSIX at once, and what the process that starts them does for that beforehand.

For what may take long see :mod:`remsvc.execution.supervisor.forked_start`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_KEYCTL_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
_SYS_KEYCTL = {"x86_64": 250, "ppc64le": 271, "ppc64": 271, "s390x": 280}
_SYS_KEYCTL |= dict.fromkeys(("aarch64", "riscv64", "loongarch64"), 219)
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_syscall = ctypes.CDLL(None, use_errno=True).syscall


class NewSession:
    """What this process starts in the block is in a session of its own.

    Where the kernel refuses a keyring, the command starts all the same, and that is told, once for each
    reason: without support for keys, in a container that forbids them, or where a user who is not root has
    as many as may be.

    Args:
        complain: told what commands do not get, and why.
    """

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._told: set[str] = set()
        self._keyctl = _SYS_KEYCTL.get(os.uname().machine) if sys.maxsize > 1 << 32 else None
        self._own_score = 0
        if _OOM_SCORE.exists():
            self._own_score = int(_OOM_SCORE.read_text())

    def __enter__(self) -> None:
        if self._keyctl is not None and _syscall(self._keyctl, _KEYCTL_JOIN_SESSION_KEYRING, None) < 0:
            reason = os.strerror(ctypes.get_errno())
            self._tell(f"commands may share a session keyring: {reason} (keyctl)")
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

# linux/prctl.h
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_libc = ctypes.CDLL(None, use_errno=True)


# Of open files. What this process takes for itself is nothing for commands: select(2) knows 1024.
_command_limit = _own_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
_NEARLY = 128
_low: list[int] = []


def make_room(descriptor: int) -> None:
    """Once ``descriptor``, the newest, is nearly the last that may be opened, let this process, but not its
    commands, open as many files as the system lets it. From then on each start takes two calls more.
    """
    global _own_limit
    if descriptor < _command_limit[0] - _NEARLY or _own_limit != _command_limit:
        return
    hard = _command_limit[1]
    _own_limit = (hard, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, _own_limit)
    # Room below the commands' limit: posix_spawn knows no descriptor above it.
    _low.extend(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(3))


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    folder: str | int,
    folder_required: bool,
    streams: tuple[int, int, int],
) -> int:
    """Start a process as the leader of a new session and return its pid; the caller reaps it.

    This process waits until it has become the program, so nothing may hold that up:
    see :class:`~remsvc.execution.supervisor.local_paths.LocalPaths`.

    Args:
        argv: the first is the program's path.
        env: the whole environment.
        folder: the working directory: a path, or a descriptor.
        folder_required: fail where it cannot be entered, instead of starting in ``/``.
        streams: descriptors for its standard input, output and error. It inherits no other.

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
        # A tenth quicker than subprocess, which cannot use posix_spawn for a new session.
        return _posix_spawn(argv, env, streams)
    finally:
        os.chdir("/")  # a file system that this process is in cannot be unmounted


def _posix_spawn(argv: Sequence[str], env: Mapping[str, str], streams: Sequence[int]) -> int:
    moves = _low and max(streams) >= _command_limit[0]
    if moves:
        streams = [os.dup2(stream, low, inheritable=False) for stream, low in zip(streams, _low, strict=True)]
    if _own_limit != _command_limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, _command_limit)
    try:
        return os.posix_spawn(
            argv[0],
            tuple(argv),
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams)],
            setsid=True,
            setsigdef=_DEFAULT_SIGNALS,
        )
    finally:
        if _own_limit != _command_limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, _own_limit)
        if moves:
            for low in _low:
                os.dup2(0, low, inheritable=False)  # the null device again


def command_file_limits() -> tuple[int, int]:
    """The limits of open files, soft and hard, that a command starts with."""
    return _command_limit


def drop_ambient_capabilities() -> None:
    """Keep what a server that is not root may do (``AmbientCapabilities=``) from its commands."""
    # Before Linux 4.3 there are none, and this fails.
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def restore_signals() -> None:
    """Let no command inherit that a signal is ignored or blocked, as ``nohup`` and the like leave it."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - set(_DEFAULT_SIGNALS):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
