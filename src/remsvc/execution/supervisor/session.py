"""What each command gets new from the kernel, as after a login: its session keyring, its OOM score.

A process inherits both. So this process takes them for itself before it starts a command, which costs less
than a step of the command's own.

Sources: session-keyring(7), keyctl(2), keyrings(7) ("quotas"), proc(5) ("oom_score_adj").
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
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
