"""Starting one process on POSIX, from a single-threaded process that reaps by itself."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence

from remsvc.execution.engine import Credentials
from remsvc.execution.process_limits import NO_LIMITS, ProcessLimits

# Python ignores these; a command must not inherit that.
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)

# linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_libc = ctypes.CDLL(None, use_errno=True)


# Of open files. What this process takes for itself is nothing for commands: select(2) knows 1024.
_command_limit = _own_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
_low: list[int] = []


def open_more_files() -> None:
    """Let this process, but not its commands, open as many files as the system lets it."""
    global _own_limit
    hard = _command_limit[1]
    _own_limit = (hard, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, _own_limit)
    # Room below the commands' limit: posix_spawn knows no descriptor above it.
    _low.extend(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(3))


def find_program(argv: Sequence[str], env: Mapping[str, str]) -> Sequence[str]:
    """``argv`` with the path of its program, looked up in ``env["PATH"]``.

    Raises:
        FileNotFoundError: it is not there.
    """
    if "/" in argv[0]:
        return argv
    program = shutil.which(argv[0], path=env.get("PATH", ""))
    if program is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    return (program, *argv[1:])


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    cwd_required: bool = False,
    credentials: Credentials | None,
    streams: tuple[int, int, int],
    limits: ProcessLimits = NO_LIMITS,
) -> int:
    """Start a process as the leader of a new session and return its pid; the caller reaps it.

    Args:
        argv: as of :func:`find_program`.
        env, cwd, credentials: as in :class:`~remsvc.execution.engine.ProcessSpec`.
        cwd_required: fail where the directory cannot be entered, instead of starting in ``/``.
        streams: descriptors for its standard input, output and error. It inherits no other.
        limits: what it is held to.

    Raises:
        OSError: it could not be started.
        ValueError: a NUL in an argument or in the environment.
    """
    if credentials is not None:
        return _fork(argv, env, cwd, cwd_required, credentials, streams, limits)
    try:
        os.chdir(cwd)
    except OSError:
        os.chdir("/")
        if cwd_required:
            raise
    try:
        if limits != NO_LIMITS:
            return _fork(argv, env, None, False, None, streams, limits)
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


def _fork(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str | None,
    cwd_required: bool,
    credentials: Credentials | None,
    streams: tuple[int, int, int],
    limits: ProcessLimits,
) -> int:
    """Start a process that has something to do before it becomes the program, ``cwd`` the last of it."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # for what is wrong

    def enter() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, _command_limit)
        # In the child, once it is the user: only there can be seen where that user may go.
        try:
            if cwd is not None:
                os.chdir(cwd)
        except OSError:
            if cwd_required:
                os.write(writer, b"the working directory cannot be entered by that user")
                raise
        try:
            _apply(limits)
        except (OSError, ValueError) as error:
            os.write(writer, f"[limits] cannot be set: {error}".encode())
            raise

    try:
        process = subprocess.Popen(
            argv,
            env=env,
            cwd="/" if cwd is not None else None,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            user=credentials.uid if credentials else None,
            group=credentials.gid if credentials else None,
            extra_groups=credentials.groups if credentials else None,
            start_new_session=True,
            preexec_fn=enter,  # this process has a single thread
        )
    except subprocess.SubprocessError:
        with contextlib.suppress(BlockingIOError):
            raise OSError(None, os.read(reader, 4096).decode(errors="replace"), cwd) from None
        raise OSError(None, "it could not be prepared", argv[0]) from None
    except PermissionError as error:
        if error.errno != errno.EPERM or credentials is None:
            raise
        # Only root may become another user, and not even root where that capability is taken from it.
        raise PermissionError(error.errno, f"not privileged to become uid {credentials.uid}") from None
    finally:
        os.close(reader)
        os.close(writer)
    process.returncode = 0  # reaping is the caller's: Popen must not try
    return process.pid


def _apply(limits: ProcessLimits) -> None:
    """Hold this process, and what comes from it, to the limits."""
    if limits.umask is not None:
        os.umask(limits.umask)
    if limits.no_new_privs:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if limits.nofile is not None:
        most = min(limits.nofile, _command_limit[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if limits.nproc is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.nproc, limits.nproc))
    if limits.cpu_seconds is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
    if limits.memory_bytes is not None:  # last: from here on this process may have too little itself
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))


def drop_ambient_capabilities() -> None:
    """Keep what a server that is not root may do (``AmbientCapabilities=``) from its commands."""
    with contextlib.suppress(OSError):  # before Linux 4.3 there are none
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def restore_signals() -> None:
    """Let no command inherit that a signal is ignored or blocked, as ``nohup`` and the like leave it."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - set(_DEFAULT_SIGNALS):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
