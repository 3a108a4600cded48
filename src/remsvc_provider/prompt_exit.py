"""Makes Airflow notice at once that a worker's process has ended.

Airflow's supervisor waits for what the sockets of a task's process bring. Linux closes a process's sockets a
moment before the process counts as ended. When the last of them wakes the supervisor, it asks too early
whether the process has ended, and after that nothing wakes it before ``[workers] min_heartbeat_interval``
has passed, 5 s by default. Until then the worker's slot is taken. After a deferral it is worse: the
scheduler hears that the worker has ended when the task runs again already, and fails it.

So a small process, the holder, keeps a copy of the worker process's standard output until that process
has ended. The last socket is closed after the end then, and not before it. docs/decisions/0022 has what was
measured, and which other ways were considered.
"""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

from remsvc_provider.airflow_process import in_worker
from remsvc_provider.settings import PROMPT_EXIT

SHELL = "/bin/sh"
AFFECTED = ((3, 1), (3, 3))
"""The first and the last minor version of Airflow of which it is known that their supervisor needs this."""

# Its standard input is a pipe whose other end only the worker's process has: it ends with that process,
# however that ends. Then the files of the process are closed, but the process may still be on its way out: it
# counts as ended when it is a zombie whose threads are gone, or when it is gone. The rounds are a bound for
# what cannot be; usually none is needed. Where other processes are not to be seen, a pause has to do.
_SCRIPT = """\
cd /
read -r _
rounds=300
while [ $rounds -gt 0 ]; do
    rounds=$((rounds - 1))
    read -r line <"/proc/$1/stat" || { sleep 0.02; exit; }
    fields=${line##*) }
    state=${fields%% *}
    set -- "$1" $fields
    [ "$state" = Z ] && [ "${19}" = 1 ] && exit
    sleep 0.01
done
"""
_SIGCHLD = 1 << 16
_REAPS_NOTHING = ("airflow", "python", "celery", "[celery")
"""What process 1 is called where Airflow is it: by its program, its interpreter, or the title that Celery and
Airflow give themselves."""

_log = logging.getLogger(__name__)
_holder: tuple[subprocess.Popen[bytes], int] | None = None
"""This process's, and the end of the pipe by which it knows that the process lives."""


def ensure() -> None:
    """Start the holder of this process, where Airflow needs one; what hinders it is no error.

    To be called first when a worker runs a task. It does nothing the second time, outside of a worker's
    process, where ``[remsvc] prompt_exit`` is off, with a version of Airflow of which it is not known
    whether it needs this, and where nobody would reap the holder.
    """
    try:
        if _holder is None and _is_needed():
            _start()
    except (OSError, ValueError) as error:
        _log.debug("Airflow may notice late that this process has ended: no process was started: %s", error)


def _start() -> None:
    global _holder
    reader, writer = os.pipe()
    try:
        holder = subprocess.Popen(
            [SHELL, "-c", _SCRIPT, "remsvc-prompt-exit", str(_awaited_process())],
            stdin=reader,
            stderr=subprocess.DEVNULL,
            # Neither the task's secrets, nor the signals that end what the task has started.
            env={"PATH": os.defpath},
            start_new_session=True,
        )
    except BaseException:
        os.close(writer)
        raise
    finally:
        os.close(reader)
    # Kept, so that Popen's finalizer does not warn that nobody has waited for it.
    _holder = (holder, writer)
    # What this process forks may live longer, and would have the holder live as long.
    os.register_at_fork(after_in_child=_release)


def _release() -> None:
    global _holder
    if _holder is not None:
        holder, writer = _holder
        os.close(writer)
        holder.returncode = 0  # it is no child of this process
        _holder = None


def _is_needed() -> bool:
    return (
        sys.platform == "linux"
        and in_worker()
        and stat.S_ISSOCK(os.fstat(1).st_mode)
        and _is_affected()
        and PROMPT_EXIT.read_or(False)
        and _is_reaped()
    )


def _is_affected() -> bool:
    from airflow import __version__

    first, last = AFFECTED
    return first <= tuple(map(int, __version__.split(".")[:2])) <= last


def _is_reaped() -> bool:
    """Whether process 1 takes care of orphans, as an init does; Airflow itself as process 1 does not.

    Each visit of a worker would leave a zombie there, until no process can be started any more.
    """
    try:
        lines = Path("/proc/1/status").read_text(encoding="utf-8", errors="replace").splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        handled = any(int(status[name], 16) & _SIGCHLD for name in ("SigBlk", "SigIgn", "SigCgt"))
        return handled or not status["Name"].startswith(_REAPS_NOTHING)
    except (OSError, KeyError, ValueError):
        return False


def _awaited_process() -> int:
    """The process that the supervisor has started: this one, or the sudo of ``run_as_user``, which Airflow
    3.1.0 to 3.3.2 tell by this variable."""
    return os.getppid() if os.environ.get("_AIRFLOW__REEXECUTED_PROCESS") == "1" else os.getpid()
