"""One command: what interprets it, what it is given, how its end is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import grpc
import pytest

from .client import Client, command, refused
from .commands import COMMANDS, posix_only, windows_only
from .conftest import HIDDEN_VARIABLE
from .waiting import wait_until


@posix_only
def test_type_0_runs_the_shell(client: Client) -> None:
    """cmdtyp 0 runs /bin/sh -c CMD"""
    text = r"tr '\0' '\n' </proc/$$/cmdline; readlink /proc/$$/exe; : 'it is quoted'  and spaced "
    *arguments, executable = client.run(text).out.splitlines()
    assert arguments[1:] == ["-c", text]
    assert executable == os.path.realpath("/bin/sh")


@windows_only
def test_type_0_runs_cmd_exe(client: Client) -> None:
    """Windows: cmd.exe /C"""
    result = client.run("echo %COMSPEC%")
    assert result.rc == 0
    assert "cmd.exe" in result.out.lower()


def test_shell_syntax_works(client: Client) -> None:
    """A shell interprets the text."""
    assert client.run("echo a&& echo b").out.split() == ["a", "b"]


@posix_only
@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("echo a\necho b", "a\nb\n"),
        ("echo a # comment", "a\n"),
        (r"printf '%s|' '$HOME' '\n' '  ünïcödé 😀 '", r"$HOME|\n|  ünïcödé 😀 |"),
    ],
    ids=["lines", "comment", "quoting"],
)
def test_the_text_reaches_the_shell_unchanged(client: Client, text: str, output: str) -> None:
    """/bin/sh -c CMD"""
    assert client.run(text).out == output


def test_type_1_runs_pwsh(serve, connect, tmp_path: Path) -> None:
    """cmdtyp 1 runs pwsh"""
    if shutil.which("pwsh"):
        env = {}
    else:  # stands in for PowerShell: shows its arguments
        pwsh = tmp_path / "bin" / "pwsh"
        pwsh.parent.mkdir()
        pwsh.write_text('#!/bin/sh\nprintf "%s\\n" "$@" hello\n')
        pwsh.chmod(0o755)
        for directory in (tmp_path, pwsh.parent):
            directory.chmod(0o755)
        env = {"PATH": f"{pwsh.parent}:{os.environ['PATH']}"}
    result = connect(serve(env=env).target).run("Write-Output ('hel' + 'lo')", cmdtyp=1)
    assert (result.rc, result.err) == (0, "")
    assert result.out.splitlines()[-1] == "hello"
    assert len(result.out.splitlines()) == 1 or "Write-Output ('hel' + 'lo')" in result.out


@posix_only
@pytest.mark.skipif(shutil.which("pwsh") is not None, reason="PowerShell is installed here")
def test_absent_pwsh_is_said(client: Client) -> None:
    """pwsh absent: rc 1, err starts PowerShell (pwsh) is not installed"""
    result = client.run("Get-Date", cmdtyp=1, tid=4)
    assert (result.rc, result.tid, result.out) == (1, 4, "")
    assert result.err.startswith("PowerShell (pwsh) is not installed")


@posix_only
def test_a_stream_goes_on_after_absent_pwsh(client: Client) -> None:
    """pwsh absent: rc 1: an answer like any other, not an error of the call."""
    answers = list(client.stream([command("Get-Date", cmdtyp=1, tid=1), command("echo next", tid=2)]))
    assert [answer.tid for answer in answers] == [1, 2]
    assert answers[1].out == "next\n"


@pytest.mark.parametrize("cmdtyp", [2, 3, -1, 2**31 - 1, -(2**31)])
def test_any_other_type_is_refused(client: Client, cmdtyp: int) -> None:
    """any other value: INVALID_ARGUMENT"""
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        client.run(COMMANDS.echo("no"), cmdtyp=cmdtyp)


def test_standard_input_is_empty(client: Client) -> None:
    """Standard input is empty (end of file at once)."""
    result = client.run(COMMANDS.read_all_input)
    assert result.out == "end" + COMMANDS.line_end


@posix_only
def test_each_command_has_a_process_and_group_of_its_own(client: Client) -> None:
    """Its own process, its own process group."""
    show = "set -- $(sed 's/.*) //' /proc/$$/stat); echo $$ $3"  # fields after the name: state, parent, group
    first, second = (list(map(int, client.run(show).out.split())) for _ in range(2))
    assert first[0] == first[1], "the command leads its group"
    assert second[0] == second[1]
    assert first != second


@pytest.mark.parametrize("tid", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_tid_is_echoed(client: Client, tid: int) -> None:
    """tid is echoed."""
    assert client.run(COMMANDS.echo("x"), tid=tid).tid == tid


@pytest.mark.parametrize("code", [0, 1, 3, 9, 127, 255])
def test_the_exit_code_is_told(client: Client, code: int) -> None:
    """rc is the command's exit code; exit 9 and death by signal 9 can be told apart."""
    assert client.run(COMMANDS.exit(code)).rc == code


@posix_only
@pytest.mark.parametrize(("signal", "number"), [("HUP", 1), ("KILL", 9), ("SEGV", 11), ("TERM", 15)])
def test_death_by_a_signal_is_told_as_128_and_its_number(client: Client, signal: str, number: int) -> None:
    """A command killed by signal N gives rc 128+N"""
    result = client.run(f"echo before; kill -{signal} $$; sleep 300")
    assert (result.rc, result.out) == (128 + number, "before\n")


def test_an_unknown_program_is_the_shells_error(client: Client) -> None:
    """The shell's own errors are answers like any other."""
    result = client.run("no-such-program-anywhere")
    assert result.rc != 0
    assert "no-such-program-anywhere" in result.err


@posix_only
def test_a_command_sees_nothing_of_the_servers_environment(client: Client) -> None:
    """Commands get a clean environment; what the server was started with may hold secrets."""
    output = client.run(f"env; echo [${HIDDEN_VARIABLE}]").out
    names = {line.partition("=")[0] for line in output.splitlines()}
    assert {"PATH", "HOME", "USER", "LOGNAME", "SHELL"} <= names
    assert HIDDEN_VARIABLE not in names
    assert "[]" in output


def test_src_goes_into_the_log(shared_server, client: Client) -> None:
    """src goes into the log entries of that command."""
    client.run(COMMANDS.echo("logged"), src="daily_report.extract.2024-05-01")
    wait_until(lambda: "daily_report.extract.2024-05-01" in shared_server.log, "the log entry")


def test_src_of_a_stream_goes_into_the_log_of_its_command(shared_server, client: Client) -> None:
    """src goes into the log entries of that command."""
    list(client.stream([command("echo 1", src="first-source"), command("echo 2", src="second-source")]))
    wait_until(lambda: "second-source" in shared_server.log, "the second command's log entry")
    lines = shared_server.log.splitlines()
    assert any("first-source" in line for line in lines)
    assert not any("first-source" in line and "second-source" in line for line in lines)
