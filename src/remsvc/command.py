"""A command of wire version 1, and when it is valid: one type for server, client and provider."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import IntEnum

from remsvc.errors import InvalidCommandError
from remsvc.validation import CMD, CMDUSR, SRC, check_text


class CommandType(IntEnum):
    """``cmdtyp`` on the wire: what interprets the command's text."""

    SHELL = 0
    """``/bin/sh -c`` on POSIX, ``cmd.exe /C`` on Windows."""
    POWERSHELL = 1
    """``pwsh`` on POSIX, ``powershell.exe`` on Windows."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of wire version 1 (``RemCmdMsg`` without its number and hash).

    Attributes:
        cmd: the text that the shell interprets.
        cmdtyp: a :class:`CommandType` value.
        cmdusr: POSIX: the user to run as; empty for the server's own user.
        src: where the command comes from; goes into the server's log.
    """

    cmd: str
    cmdtyp: int = CommandType.SHELL
    cmdusr: str = ""
    src: str = ""

    def validate(self) -> None:
        """Check everything that can be checked on any machine, before anything is sent or run.

        Raises:
            InvalidCommandError: saying what is wrong, in one line.
        """
        for limit in (CMD, CMDUSR, SRC):
            check_text(limit.field, getattr(self, limit.field), limit)
        if not self.cmd.strip():
            raise InvalidCommandError("cmd must not be blank")
        if isinstance(self.cmdtyp, bool) or not isinstance(self.cmdtyp, int):
            raise InvalidCommandError(f"cmdtyp must be 0 or 1, not {type(self.cmdtyp).__name__}")
        if self.cmdtyp not in (CommandType.SHELL, CommandType.POWERSHELL):
            raise InvalidCommandError(f"cmdtyp must be 0 (shell) or 1 (PowerShell), not {self.cmdtyp}")


def crc32hex(text: str) -> str:
    """CRC-32 of ``text``'s UTF-8 bytes as 8 lowercase hex digits: the wire's ``hsh``."""
    return f"{zlib.crc32(text.encode()):08x}"
