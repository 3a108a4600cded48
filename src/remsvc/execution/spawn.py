"""Starting one process on POSIX, from a single-threaded process that reaps by itself."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from remsvc.execution.engine import Credentials

# Python ignores these; a command must not inherit that.
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)


# Of open files. What this process takes for itself is nothing for commands: select(2) knows 1024.
_command_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
_low: list[int] = []


def open_more_files() -> None:
    """Let this process, but not its commands, open as many files as the system lets it."""
    hard = _command_limit[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Room below the commands' limit: posix_spawn knows no descriptor above it.
    _low.extend(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(3))


@contextlib.contextmanager
def _with_command_limit(streams: Sequence[int]) -> Iterator[Sequence[int]]:
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    moves = _low and max(streams) >= _command_limit[0]
    if moves:
        streams = [os.dup2(stream, low, inheritable=False) for stream, low in zip(streams, _low, strict=True)]
    resource.setrlimit(resource.RLIMIT_NOFILE, _command_limit)
    try:
        yield streams
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, own)
        if moves:
            for low in _low:
                os.dup2(0, low, inheritable=False)  # the null device again


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    cwd_required: bool = False,
    credentials: Credentials | None,
    streams: tuple[int, int, int],
) -> int:
    """Start a process as the leader of a new session and return its pid; the caller reaps it.

    Args:
        argv, env, cwd, credentials: as in :class:`~remsvc.execution.engine.ProcessSpec`.
        cwd_required: fail where the directory cannot be entered, instead of starting in ``/``.
        streams: descriptors for its standard input, output and error. It inherits no other.

    Raises:
        OSError: it could not be started.
        ValueError: a NUL in an argument or in the environment.
    """
    if "/" not in argv[0]:
        program = shutil.which(argv[0], path=env.get("PATH", ""))
        if program is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
        argv = (program, *argv[1:])
    if credentials is not None:
        return _spawn_as(argv, env, cwd, cwd_required, credentials, streams)
    try:
        os.chdir(cwd)
    except OSError:
        os.chdir("/")
        if cwd_required:
            raise
    try:
        # A tenth quicker than subprocess, which cannot use posix_spawn for a new session.
        with _with_command_limit(streams) as usable:
            return os.posix_spawn(
                argv[0],
                list(argv),
                env,
                file_actions=[(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(usable)],
                setsid=True,
                setsigdef=_DEFAULT_SIGNALS,
            )
    finally:
        os.chdir("/")  # a file system that this process is in cannot be unmounted


def _spawn_as(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    cwd_required: bool,
    credentials: Credentials,
    streams: tuple[int, int, int],
) -> int:
    def enter() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, _command_limit)
        # In the child, once it is the user: only there can be seen where that user may go.
        try:
            os.chdir(cwd)
        except OSError:
            if cwd_required:
                raise

    try:
        process = subprocess.Popen(
            argv,
            env=env,
            cwd="/",
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            user=credentials.uid,
            group=credentials.gid,
            extra_groups=credentials.groups,
            start_new_session=True,
            preexec_fn=enter,  # this process has a single thread
        )
    except subprocess.SubprocessError:
        raise OSError(None, "the working directory cannot be entered by that user", cwd) from None
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        # Only root may become another user, and not even root where that capability is taken from it.
        raise PermissionError(error.errno, f"not privileged to become uid {credentials.uid}") from None
    process.returncode = 0  # reaping is the caller's: Popen must not try
    return process.pid
