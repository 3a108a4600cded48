"""Which shell gets a command's text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remsvc.errors import InvalidCommandError, StartError
from remsvc.execution.shell import command_line, shell_argv
from remsvc.validation import CMD


def test_a_shell_command_is_given_to_bin_sh() -> None:
    assert shell_argv("echo 'a  b'", 0, "/bin") == ("/bin/sh", "-c", "echo 'a  b'")


def test_powershell_is_looked_for_in_the_given_path(tmp_path: Path) -> None:
    pwsh = tmp_path / "pwsh"
    pwsh.write_text("#!/bin/sh\n")
    pwsh.chmod(0o755)
    argv = shell_argv("Get-Date", 1, f"/nowhere:{tmp_path}")
    assert argv == (str(pwsh), "-NoLogo", "-NoProfile", "-NonInteractive", "-Command", "Get-Date")


def test_without_powershell_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^PowerShell \(pwsh\) is not installed"):
        shell_argv("Get-Date", 1, str(tmp_path))


@pytest.mark.parametrize("text", ["x" * 131_071, "é" * 65_535])
def test_the_longest_command_can_really_be_started(text: str) -> None:
    CMD.check(text)
    pid = os.posix_spawn("/bin/sh", ["/bin/sh", "-c", ": " + text[2:]], {})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_longer_command_is_refused_with_both_lengths() -> None:
    with pytest.raises(InvalidCommandError, match=r"^cmd: expected at most 131071 bytes, not 131072$"):
        CMD.check("é" * 65_536)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ((r"C:\x\cmd.exe", "/S", "/C", '"dir "C:\\a b" & ver"'), r'C:\x\cmd.exe /S /C "dir "C:\a b" & ver"'),
        ((r"C:\Program Files\CMD.EXE", "/C", "a  b"), r'"C:\Program Files\CMD.EXE" /C a  b'),
        ((r"C:\powershell.exe", "-Command", 'echo "a b\\"'), r'C:\powershell.exe -Command "echo \"a b\\\""'),
    ],
)
def test_cmd_exe_gets_its_text_as_it_is_and_others_by_the_c_runtime_rules(
    argv: tuple[str, ...], line: str
) -> None:
    assert command_line(argv) == line
