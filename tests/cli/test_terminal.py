"""What a person sees on a terminal, and what a pipe does not get."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.cli.terminal import escape_controls
from tests.client.scripted_server import ScriptedServer

from .conftest import PROGRAM, Remsvc, clean_environment

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


def on_terminal(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and everything that appears on a terminal (standard output and error together)."""
    # Not pexpect: it forks in Python, which gRPC's threads in this process do not survive.
    terminal, program_side = os.openpty()
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        env=clean_environment(TERM="xterm-256color", COLUMNS="60", LINES="24", **environment),
        stdin=program_side,
        stdout=program_side,
        stderr=program_side,
        start_new_session=True,
    ) as process:
        os.close(program_side)
        shown = b""
        try:
            while chunk := os.read(terminal, 4096):
                shown += chunk
        except OSError as error:  # how Linux says that the other side is closed
            if error.errno != errno.EIO:
                raise
        os.close(terminal)
    return process.returncode, shown.decode()


def test_an_error_is_coloured_on_a_terminal_only(remsvc: Remsvc) -> None:
    code, text = on_terminal("status", "-s", "127.0.0.1:1")
    assert code == 255
    assert "\x1b[1;31mremsvc: \x1b[0m127.0.0.1:1: UNAVAILABLE" in text
    assert "\x1b" not in remsvc("status", "-s", "127.0.0.1:1").stderr


def test_no_color_is_honoured() -> None:
    code, text = on_terminal("status", "-s", "127.0.0.1:1", NO_COLOR="1")
    assert code == 255
    assert "\x1b[" not in text
    assert len(text.splitlines()) == 1, "not broken into lines of the terminal's width"


def test_waiting_shows_a_spinner_that_goes_away(server: ServerProcess) -> None:
    code, text = on_terminal("run", "-s", server.target, "--", "sleep 0.5; echo done; exit 3")
    assert code == 3
    assert f"running on {server.target}" in text
    assert "\x1b[?25h" in text, "the cursor is shown again"
    assert text.endswith("done\r\n")


def test_an_error_cannot_steer_the_terminal(scripted: Callable[..., ScriptedServer]) -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "\x1b]0;owned\x07 [red]no[/red] \x9b31m")

    target = scripted(status=refuse).target
    _, text = on_terminal("status", "-s", target)
    assert r"\x1b]0;owned\x07 [red]no[/red] \x9b31m" in text
    assert "\x1b]0;" not in text


@given(st.text())
def test_escaped_text_is_one_line_without_controls(text: str) -> None:
    escaped = escape_controls(text)
    assert len(escaped.splitlines()) <= 1
    assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in escaped)
    escaped.encode("utf-8")


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert escape_controls(text) == text
