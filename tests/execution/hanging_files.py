"""Files and folders that hold up whoever looks at them: a FUSE file system that is silent, a lease."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)

_HOLD_LEASE = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
program = os.open(sys.argv[1], os.O_RDONLY)
if os.geteuid() == 0:
    os.setuid(os.fstat(program).st_uid)
fcntl.fcntl(program, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def hanging_mount(folder: Path) -> Iterator[Path]:
    """A FUSE file system on ``folder`` whose owner never answers. Needs root and ``/dev/fuse``."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    try:
        connection = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"there is no FUSE here: {error}")
    options = f"fd={connection},rootmode=40000,user_id=0,group_id=0,allow_other"
    folder.mkdir(exist_ok=True)
    try:
        if _libc.mount(b"hanging", os.fsencode(folder), b"fuse", 0, options.encode()) != 0:
            pytest.skip(f"FUSE cannot be mounted: {os.strerror(ctypes.get_errno())}")
        try:
            yield folder
        finally:
            os.close(connection)  # whoever waits is told that it is gone
            connection = -1
            _libc.umount2(os.fsencode(folder), _MNT_DETACH)
    finally:
        if connection >= 0:
            os.close(connection)


@contextmanager
def leased_program(path: Path) -> Iterator[Path]:
    """A program of another user, or as root ``nobody``, who holds a lease on it: its start waits for 45 s."""
    shutil.copy("/bin/true", path)
    path.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    holder = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HOLD_LEASE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != b"held\n":
                pytest.skip("no lease can be had on a file here")
            yield path
        finally:
            holder.kill()
