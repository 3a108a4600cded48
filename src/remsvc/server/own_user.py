"""The user that the server runs as: who that is, and what it means."""

from __future__ import annotations

import os
import sys

OWN_USER = "self"
"""How the configuration writes the server's own user."""


def runs_privileged() -> bool:
    """Whether this process may do anything on this host: as root, or as an administrator of Windows."""
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.shell32.IsUserAnAdmin())
    return os.geteuid() == 0


def own_user_name() -> str:
    """The name of the user that this process runs as; the number of one that has no name."""
    if sys.platform == "win32":
        return os.environ.get("USERNAME", "")
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
