"""Looks up the user that a command runs as, and gives it what a login would: home, a clean environment."""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from remsvc.errors import StartError
from remsvc.execution.supervisor.protocol import Credentials

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A program that asks for SHELL wants to run a command, which these do not.
_NO_SHELLS = ("nologin", "false", "true", "sync", "halt", "shutdown")
_RUNTIME_DIRS = "/run/user"  # systemd-logind

# All that a command gets of the server's own environment: how text and time are written. The rest
# may hold secrets.
_LOCALE = (
    *("LANG", "LANGUAGE", "TZ", "LC_ALL", "LC_CTYPE", "LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY"),
    *("LC_MESSAGES", "LC_PAPER", "LC_NAME", "LC_ADDRESS", "LC_TELEPHONE", "LC_MEASUREMENT"),
    "LC_IDENTIFICATION",
)

_WINDOWS_ENVIRONMENT = (
    *("ALLUSERSPROFILE", "APPDATA", "COMPUTERNAME", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA"),
    *("NUMBER_OF_PROCESSORS", "OS", "PATH", "PATHEXT", "PROCESSOR_ARCHITECTURE", "PROGRAMDATA"),
    *("PROGRAMFILES", "PROGRAMFILES(X86)", "PUBLIC", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP"),
    *("USERDOMAIN", "USERNAME", "USERPROFILE", "WINDIR"),
)


@dataclass(frozen=True, slots=True)
class Login:
    """The surroundings of a command.

    Attributes:
        env: its environment, without what comes and goes: see :meth:`variables`.
        cwd: the user's home directory.
        credentials: the user to become; None to stay the server's own.
        runtime_dir: where the user's XDG_RUNTIME_DIR is while the user is logged in; empty for none.
    """

    env: Mapping[str, str]
    cwd: str
    credentials: Credentials | None = None
    runtime_dir: str = ""

    def variables(self) -> dict[str, str]:
        """The environment of a command that starts now."""
        variables = dict(self.env)
        if self.runtime_dir and _is_there(self.runtime_dir):
            variables["XDG_RUNTIME_DIR"] = self.runtime_dir
        return variables


def login(user: str = "") -> Login:
    """The login of ``user``, or of the server's own user where it is empty.

    Looks the user up in the system's databases, which may be remote: call it in a thread. On
    Windows ``user`` is ignored.

    Raises:
        StartError: there is no such user, or the server may not become it.
    """
    if sys.platform == "win32":
        return _windows_login()
    return _posix_login(user)


def _posix_login(user: str) -> Login:
    import pwd

    own = os.geteuid()
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(own)
    except KeyError:
        if user:
            raise StartError(f"user not found: {user}") from None
        # A container may run as a number without a name.
        return Login(_posix_environment(str(own), "/", "/bin/sh"), "/", runtime_dir=f"{_RUNTIME_DIRS}/{own}")
    shell = entry.pw_shell
    if not shell or posixpath.basename(shell) in _NO_SHELLS:
        shell = "/bin/sh"
    env = _posix_environment(entry.pw_name, entry.pw_dir, shell)
    runtime_dir = f"{_RUNTIME_DIRS}/{entry.pw_uid}"
    if not user or (entry.pw_uid == own and own != 0):
        return Login(env, entry.pw_dir, runtime_dir=runtime_dir)
    if own != 0:
        raise StartError(f"cannot run as user {user}: the server is not privileged (it runs as uid {own})")
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Login(env, entry.pw_dir, Credentials(entry.pw_uid, entry.pw_gid, groups), runtime_dir)


def _is_there(folder: str) -> bool:
    """Whether there is such a folder. What its user may have mounted there is not asked anything."""
    if sys.platform == "win32":
        return False
    try:
        os.close(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _posix_environment(name: str, home: str, shell: str) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if key in _LOCALE}
    env["PATH"] = os.environ.get("PATH", DEFAULT_PATH)
    return env | {"USER": name, "LOGNAME": name, "HOME": home, "SHELL": shell}


def _windows_login() -> Login:
    env = {name: value for name in _WINDOWS_ENVIRONMENT if (value := os.environ.get(name))}
    return Login(env, env.get("USERPROFILE") or env.get("SYSTEMDRIVE", "C:") + "\\")
