"""Words on the command line reach the program over there as they were meant, through a real shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remsvc.cli.shell_text import command_text
from remsvc.errors import InvalidCommandError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="runs a POSIX shell")

SHELLS = [shell for shell in ("/bin/sh", "/bin/bash", "/bin/dash") if Path(shell).exists()]

# What an argument, a variable or a directory may hold on POSIX: anything but NUL.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
# Shells give these a meaning of their own, or forbid to set them.
SPECIAL = {"PATH", "PWD", "OLDPWD", "IFS", "PS4", "OPTIND", "LINENO", "UID", "EUID", "PPID", "_", "LANG"}


def run_text(text: str, shell: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.defpath, "CDPATH": "/etc:/usr", "LC_ALL": "C"}
    return subprocess.run(
        [shell, "-c", text], env=environment, cwd=cwd, capture_output=True, timeout=50, check=False
    )


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=50)
@given(arguments=st.lists(TEXT, max_size=5))
def test_without_a_shell_every_argument_arrives_as_it_is(shell: str, arguments: list[str]) -> None:
    printf = shutil.which("printf") or "printf"
    run = run_text(command_text([printf, "%s\\0", *arguments], "none"), shell)
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout == b"".join(argument.encode() + b"\0" for argument in arguments or [""])


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=50)
@given(variables=st.dictionaries(NAMES.filter(lambda name: name not in SPECIAL), TEXT, max_size=3))
def test_any_value_reaches_a_variable(shell: str, variables: dict[str, str]) -> None:
    run = run_text(command_text(["env", "-0"], env=list(variables.items())), shell)
    assert (run.returncode, run.stderr) == (0, b"")
    entries = dict(entry.partition(b"=")[::2] for entry in run.stdout.split(b"\0") if entry)
    assert {name: entries[name.encode()] for name in variables} == {
        name: value.encode() for name, value in variables.items()
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_any_directory_is_entered(shell: str, tmp_path: Path) -> None:
    @settings(max_examples=50)
    @given(
        name=st.one_of(
            st.sampled_from(["-", "--", "-P", "~", "$HOME", "etc", "a b", "*", "'", "..x", "\n", "-\n"]), TEXT
        ).filter(lambda name: "/" not in name and name not in ("", ".", "..") and len(name.encode()) < 200),
        absolute=st.booleans(),
    )
    def check(name: str, absolute: bool) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        run = run_text(
            command_text(["pwd -P; exit 7"], cwd=str(tmp_path / name) if absolute else name), shell, tmp_path
        )
        assert (run.returncode, run.stderr) == (7, b"")
        assert run.stdout == os.fsencode(tmp_path.resolve() / name) + b"\n"

    check()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("form", ["sh", "none"])
def test_nothing_runs_where_the_directory_cannot_be_entered(shell: str, form: str, tmp_path: Path) -> None:
    text = command_text(
        ["touch", str(tmp_path / "ran")], form, cwd=str(tmp_path / "missing"), env=[("A", "b")]
    )
    run = run_text(text, shell)
    assert run.returncode == 255
    assert b"missing" in run.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_exit_code_is_the_commands(shell: str) -> None:
    for words, code in ((["false"], 1), (["exit 42"], 42), (["true; (exit 3)"], 3), (["nosuchprogram"], 127)):
        assert run_text(command_text(words, cwd="/", env=[("A", "b")]), shell).returncode == code
    assert run_text(command_text(["nosuchprogram", "x"], "none"), shell).returncode == 127
    assert run_text(command_text(["A=b"], "none"), shell).returncode == 127


@pytest.mark.parametrize("shell", SHELLS)
def test_a_symbolic_link_is_left_by_its_real_parent(shell: str, tmp_path: Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/inner")
    run = run_text(command_text(["pwd -P"], cwd="link/.."), shell, tmp_path)
    assert run.stdout == os.fsencode((tmp_path / "real").resolve()) + b"\n"


def test_words_are_joined_as_ssh_does() -> None:
    assert command_text(["echo", "a  b", "$HOME"]) == "echo a  b $HOME"
    assert command_text(["Get-Date", "-Format", "o"], "pwsh") == "Get-Date -Format o"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["x"], "sh", ""), "--cwd must not be empty"),
        (([""], "none"), "the program's name must not be empty"),
        ((["-x"], "none"), "'-x' is not the name of a program"),
        ((["x"], "pwsh", "/"), "--cwd and --env need --shell sh or none"),
        ((["x"], "pwsh", None, [("A", "b")]), "--cwd and --env need --shell sh or none"),
    ],
)
def test_what_cannot_be_expressed_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InvalidCommandError, match=message):
        command_text(*arguments)  # type: ignore[arg-type]
