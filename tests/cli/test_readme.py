"""The README's first steps, run as they are printed: a server, a command from a shell, a program."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import DEADLINE, PROGRAM, clean_environment
from tests.conftest import Serve

README = Path(__file__).resolve().parents[2] / "README.md"
FOLDER, ADDRESS = "/etc/remsvc", "127.0.0.1:50051"


def block(title: str) -> str:
    """The first block of code after a title in bold letters."""
    _, found, rest = README.read_text(encoding="utf-8").partition(f"\n**{title}")
    block = re.search(r"^```\w*\n(.*?)^```$", rest, re.DOTALL | re.MULTILINE)
    assert found, title
    assert block, title
    return block[1]


def run(*command: str) -> str:
    process = subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_a_server_as_it_is_made_there_serves_the_shell_and_the_program(serve: Serve, tmp_path: Path) -> None:
    """Only the folder and the port are others."""
    made_in = tmp_path / "remsvc"
    shell = f'remsvc() {{ {shlex.join(PROGRAM)} "$@"; }}\n'
    _, init, start = block("A server").replace(FOLDER, str(made_in)).splitlines()
    run("bash", "-ec", shell + init)
    configuration = made_in / "server.ini"
    assert start.split("#")[0].split() == ["remsvc", "serve", "--config", str(configuration)]
    server = serve("", "--config", str(configuration))

    def as_printed(title: str) -> str:
        printed = block(title)
        assert FOLDER in printed, "it has to name the authority and the token"
        assert ADDRESS in printed
        return printed.replace(FOLDER, str(made_in)).replace(ADDRESS, server.target)

    assert "load average" in run("bash", "-ec", shell + as_printed("A command"))
    assert "load average" in run(sys.executable, "-c", as_printed("A program"))
