"""Starts a process that may take long to become its program, without waiting for it.

That may be so for two reasons: a caller may be able to hold up the working directory, the program, or a file
system on the way to them; or the process has something to do before it becomes the program, such as becoming
another user. So the supervisor forks, and the copy does all of that. The copy is the command's first process
from the beginning: it has the command's pid, session, control group and limits, and can be ended like any
other. Between it and the supervisor there is a pipe, the *verdict*. It brings what went wrong, or it just
closes when the copy becomes the program.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import shutil
import signal
from collections.abc import Mapping, Sequence
from typing import NoReturn

from remsvc.execution.supervisor.protocol import Credentials, ProcessLimits
from remsvc.execution.supervisor.system_calls import prctl, system_call

_VERDICT_BYTES = 4096  # PIPE_BUF: a write of so much is never cut
_VERDICT = 3
_MOMENT_MS = 2
_SYS_CLOSE_RANGE = 436  # asm-generic/unistd.h; glibc has had a function for it since 2.34 only
_MAX_DESCRIPTOR = 0xFFFFFFFF
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h


def fork_start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    cwd_required: bool,
    credentials: Credentials | None,
    streams: tuple[int, int, int],
    limits: ProcessLimits,
    open_files: tuple[int, int],
) -> tuple[int, int]:
    """Start a process as the leader of a new session; the caller reaps it.

    Args:
        argv: the program is a path, or a name that is looked up in ``env["PATH"]``.
        env, cwd, credentials: as in :class:`~remsvc.execution.engine.ProcessSpec`.
        cwd_required: fail where the directory cannot be entered, instead of starting in ``/``.
        streams: descriptors for its standard input, output and error. It inherits no other.
        limits: what it is held to.
        open_files: how many files it may open, soft and hard limit, where ``limits`` do not say.

    Returns:
        Its pid, and a descriptor for :func:`read_verdict`.

    Raises:
        OSError: there can be no other process.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pid = os.fork()  # this process has a single thread
    except BaseException:
        os.close(reader)
        os.close(writer)
        raise
    if pid:
        os.close(writer)
        # As long as there are two of this process, each page that one of them writes to is copied. Most
        # become their program within a millisecond: to wait so long costs a fifth less than to go on.
        ready = select.poll()
        ready.register(reader, select.POLLIN)
        ready.poll(_MOMENT_MS)
        return pid, reader
    verdict = b"it could not be prepared"
    try:
        _take_streams(streams, writer)
        _reset_signals()
        _become(argv, env, cwd, cwd_required, credentials, limits, open_files)
    except BaseException as error:  # noqa: BLE001
        with contextlib.suppress(BaseException):
            verdict = describe_failure(error).encode(errors="replace")[:_VERDICT_BYTES]
    finally:
        with contextlib.suppress(BaseException):
            os.write(_VERDICT, verdict)
        os._exit(127)


def read_verdict(descriptor: int) -> str | None:
    """What went wrong with a start; empty where it became the program or was ended; None for not yet."""
    try:
        return os.read(descriptor, _VERDICT_BYTES).decode(errors="replace")
    except BlockingIOError:
        return None


def describe_failure(error: BaseException) -> str:
    """Why a process could not be started, in words for its caller."""
    if isinstance(error, OSError):
        if error.errno == errno.E2BIG:
            return "the command and its environment are longer than the system can start"
        name = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{name}"
    return str(error)


# In the new process


def _take_streams(streams: tuple[int, int, int], verdict: int) -> None:
    """Have the three streams and the verdict's pipe open, and nothing else.

    While this process waits for a file system it must not hold the pipes of other commands.
    """
    kept = [os.dup(descriptor) for descriptor in (*streams, verdict)]
    for number, descriptor in enumerate(kept):
        os.dup2(descriptor, number, inheritable=number != _VERDICT)
    try:
        system_call(_SYS_CLOSE_RANGE, _VERDICT + 1, _MAX_DESCRIPTOR, 0)
    except OSError:  # before Linux 5.9
        for name in os.listdir("/proc/self/fd"):
            if int(name) > _VERDICT:
                with contextlib.suppress(OSError):  # the one that the listing had open
                    os.close(int(name))


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)


def _become(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    cwd_required: bool,
    credentials: Credentials | None,
    limits: ProcessLimits,
    open_files: tuple[int, int],
) -> NoReturn:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_NOFILE, open_files)
    if credentials is not None:
        _become_user(credentials)
    # Only as the user can be seen where that user may go, and what may be started.
    try:
        os.chdir(cwd)
    except OSError:
        if cwd_required and credentials is not None:
            raise OSError(None, "the working directory cannot be entered by that user", cwd) from None
        if cwd_required:
            raise
    path = _find_program(argv[0], env)
    try:
        _apply(limits, open_files[1])
    except (OSError, ValueError) as error:
        raise OSError(None, f"[limits] cannot be set: {error}") from None
    try:
        os.execve(path, tuple(argv), env)  # noqa: S606
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _become_user(credentials: Credentials) -> None:
    try:
        os.setgroups(credentials.groups)
        os.setgid(credentials.gid)
        os.setuid(credentials.uid)
    except PermissionError as error:
        # Only root may become another user, and not even root where that capability is taken from it.
        raise PermissionError(error.errno, f"not privileged to become uid {credentials.uid}") from None


def _find_program(name: str, env: Mapping[str, str]) -> str:
    if "/" in name:
        return name
    program = shutil.which(name, path=env.get("PATH", ""))
    if program is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return program


def _apply(limits: ProcessLimits, most_files: int) -> None:
    """Hold this process, and what comes from it, to the limits; it may open ``most_files`` in any case."""
    if limits.umask is not None:
        os.umask(limits.umask)
    if limits.no_new_privs:
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if limits.nofile is not None:
        most = min(limits.nofile, most_files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if limits.nproc is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.nproc, limits.nproc))
    if limits.cpu_seconds is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
    if limits.memory_bytes is not None:  # last: from here on this process may have too little itself
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
