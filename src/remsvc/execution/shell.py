"""Tells which program interprets a command's text on this platform, and with which arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from remsvc.command import CommandType
from remsvc.errors import InvalidCommandError, StartError

# Exit codes are PowerShell's own: N after "exit N", else 0 or 1 by the success of the last statement.
_POWERSHELL_OPTIONS = ("-NoLogo", "-NoProfile", "-NonInteractive", "-Command")

_CMD_EXE_LIMIT = 8_191
"""UTF-16 units in a command line that cmd.exe reads; it refuses a longer one."""

_WINDOWS_LIMIT = 32_766
"""UTF-16 units in the command line of any Windows program, without the NUL that ends it."""


def shell_argv(cmd: str, cmdtyp: int, path: str) -> tuple[str, ...]:
    """Program and arguments that run the text ``cmd``, for :class:`~remsvc.execution.engine.ProcessSpec`.

    Args:
        cmd: the command's text; the shell gets it as it is.
        cmdtyp: a :class:`~remsvc.command.CommandType` value.
        path: the ``PATH`` to look for ``pwsh`` in (POSIX; on Windows both shells are part of the system).

    Raises:
        StartError: the shell is not installed, or cannot run such a text.
    """
    if os.name == "nt":
        if cmdtyp == CommandType.POWERSHELL:
            argv = _windows_powershell(cmd)
            if not Path(argv[0]).is_file():
                raise StartError(f"PowerShell (powershell.exe) is not installed: there is no {argv[0]}")
            return argv
        if "\n" in cmd.strip("\r\n"):
            # It would run the first line and drop the others without a word.
            raise StartError("cmd.exe runs one line only: join the lines with &, or use PowerShell")
        return _cmd_exe(cmd)
    if cmdtyp == CommandType.POWERSHELL:
        pwsh = shutil.which("pwsh", path=path)
        if pwsh is None:
            raise StartError(f"PowerShell (pwsh) is not installed: there is no pwsh in {path}")
        return (pwsh, *_POWERSHELL_OPTIONS, _powershell_text(cmd))
    if cmd.startswith(("-", "+")):
        return ("/bin/sh", "-c", "--", cmd)  # a text, not options
    return ("/bin/sh", "-c", cmd)


def check_length(cmd: str, cmdtyp: int) -> None:
    """Refuse a text that Windows cannot hand to its shell; what POSIX can is in the table of all limits.

    Raises:
        InvalidCommandError: it is too long; says how long it is and what was possible.
    """
    if os.name == "nt":
        shell, limit, argv = "cmd.exe", _CMD_EXE_LIMIT, _cmd_exe(cmd)
        if cmdtyp == CommandType.POWERSHELL:
            shell, limit, argv = "powershell.exe", _WINDOWS_LIMIT, _windows_powershell(cmd)
        length = len(command_line(argv).encode("utf-16-le")) // 2
        if length > limit:
            raise InvalidCommandError(
                f"cmd is too long: its command line has {length} characters, {shell} takes at most {limit}"
            )


def command_line(argv: Sequence[str]) -> str:
    """The one string that a Windows process is started with.

    Programs split it by the rules of the C runtime. cmd.exe does not: it takes what follows ``/C``
    as it is, so its arguments are joined with nothing but spaces.
    """
    program = subprocess.list2cmdline(argv[:1])
    if argv[0].replace("/", "\\").rpartition("\\")[2].lower() in ("cmd", "cmd.exe"):
        return " ".join((program, *argv[1:]))
    return subprocess.list2cmdline(argv)


def _cmd_exe(cmd: str) -> tuple[str, ...]:
    # /D: no AutoRun commands from the registry. /S: cmd.exe strips exactly the two quotes around the
    # text, instead of guessing which of the text's own quotes are meant.
    text = cmd.strip("\r\n")
    return (_system_program("cmd.exe"), "/D", "/S", "/C", f'"{text}"')


def _windows_powershell(cmd: str) -> tuple[str, ...]:
    # Not -EncodedCommand: it makes PowerShell write its errors as XML.
    return (
        _system_program(r"WindowsPowerShell\v1.0\powershell.exe"),
        *_POWERSHELL_OPTIONS,
        _powershell_text(cmd),
    )


def _powershell_text(cmd: str) -> str:
    """The text as its option takes it: a lone hyphen there would mean standard input."""
    return f" {cmd}" if cmd == "-" else cmd


def _system_program(name: str) -> str:
    root = os.environ.get("SYSTEMROOT", r"C:\Windows")
    return rf"{root}\System32\{name}"
