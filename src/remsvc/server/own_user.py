"""The user that the server runs as."""

from __future__ import annotations

import os
import sys


def runs_privileged() -> bool:
    """Whether this process may do anything on this host: as root, or as an administrator of Windows."""
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.shell32.IsUserAnAdmin())
    return os.geteuid() == 0
