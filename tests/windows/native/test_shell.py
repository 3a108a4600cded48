"""The shells of Windows, and what they are given."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from remsvc.errors import InvalidCommandError, StartError
from remsvc.execution.shell import check_length, command_line, shell_argv


def test_cmd_exe_comes_from_the_system_not_from_the_path() -> None:
    program = Path(shell_argv("echo", 0, "C:\\elsewhere")[0])
    assert (program.name, program.parent.name.lower()) == ("cmd.exe", "system32")
    assert program.is_absolute()


def test_powershell_gets_the_text_in_one_argument() -> None:
    program, *arguments = shell_argv('Write-Output "a  b"', 1, "")
    assert Path(program).name == "powershell.exe"
    assert arguments == ["-NoLogo", "-NoProfile", "-NonInteractive", "-Command", 'Write-Output "a  b"']


def test_without_powershell_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    with pytest.raises(StartError, match=r"^PowerShell \(powershell\.exe\) is not installed"):
        shell_argv("Get-Date", 1, "")


@pytest.mark.parametrize("text", ["echo 1\necho 2", "echo 1\r\necho 2", "\necho 1\n\necho 2\n"])
def test_cmd_exe_is_not_given_several_lines(text: str) -> None:
    with pytest.raises(StartError, match=r"^cmd\.exe runs one line only"):
        shell_argv(text, 0, "")
    assert shell_argv(text, 1, "")[-1] == text


@pytest.mark.parametrize(("cmdtyp", "limit"), [(0, 8191), (1, 32766)])
def test_the_longest_command(cmdtyp: int, limit: int) -> None:
    room = limit - len(command_line(shell_argv("rem ", cmdtyp, "")))
    text = "rem " + "x" * room
    check_length(text, cmdtyp)
    subprocess.run(command_line(shell_argv(text, cmdtyp, "")), stdin=subprocess.DEVNULL, check=True)
    with pytest.raises(InvalidCommandError, match=rf"has {limit + 1} characters, .* at most {limit}$"):
        check_length(text + "x", cmdtyp)
    with pytest.raises(InvalidCommandError, match="cmd is too long"):
        check_length("\U0001f600" * (limit // 2), cmdtyp)
