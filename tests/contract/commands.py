"""The same commands for each platform's shell."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

PLATFORM = os.environ.get("REMSVC_CONTRACT_PLATFORM", "posix")
"""Where the server under test runs: ``posix`` or ``windows``."""

posix_only = pytest.mark.skipif(PLATFORM != "posix", reason="a promise for POSIX servers")
windows_only = pytest.mark.skipif(PLATFORM != "windows", reason="a promise for Windows servers")


@dataclass(frozen=True)
class Commands:
    """Texts for ``cmdtyp`` 0 (``/bin/sh -c``, ``cmd.exe /C``)."""

    echo: Callable[[str], str]
    echo_to_stderr: Callable[[str], str]
    exit: Callable[[int], str]
    sleep: Callable[[int], str]
    print_lines: Callable[[int], str]
    """Prints N lines of 99 ``x``."""
    echo_then_sleep: Callable[[str, int], str]
    read_all_input: str
    """Reads standard input to its end, then prints ``end``."""
    line_end: str


POSIX = Commands(
    echo=lambda text: f"echo {text}",
    echo_to_stderr=lambda text: f"echo {text} >&2",
    exit=lambda code: f"exit {code}",
    sleep=lambda seconds: f"sleep {seconds}",
    print_lines=lambda count: f"yes {'x' * 99} | head -n {count}",
    echo_then_sleep=lambda text, seconds: f"echo {text}; sleep {seconds}",
    read_all_input="cat; echo end",
    line_end="\n",
)

WINDOWS = Commands(
    echo=lambda text: f"echo {text}",
    echo_to_stderr=lambda text: f">&2 echo {text}",
    exit=lambda code: f"exit {code}",
    sleep=lambda seconds: f"ping -n {seconds + 1} 127.0.0.1 >NUL",
    print_lines=lambda count: f"for /L %i in (1,1,{count}) do @echo {'x' * 99}",
    echo_then_sleep=lambda text, seconds: f"echo {text}& ping -n {seconds + 1} 127.0.0.1 >NUL",
    read_all_input="set /p LINE=& echo end",
    line_end="\r\n",
)

COMMANDS = WINDOWS if PLATFORM == "windows" else POSIX
