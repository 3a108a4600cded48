"""What a person sees on a terminal, and what a pipe does not get."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import pytest

from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.client.scripted_jobs import ScriptedJobs
from tests.client.scripted_server import ScriptedServer

from .conftest import PROGRAM, Remsvc, clean_environment

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


DEADLINE = 60.0


def on_terminal(
    *arguments: str, on_text: Callable[[str], None] = lambda text: None, **environment: str
) -> tuple[int, str]:
    """Exit code and everything that appears on a terminal (standard output and error together).

    ``on_text`` is told what has appeared so far, whenever there is more.
    """
    # Not pexpect: it forks in Python, which gRPC's threads in this process do not survive.
    terminal, program_side = os.openpty()
    with subprocess.Popen(
        [*PROGRAM, *arguments],
        env=clean_environment(**{"TERM": "xterm-256color", "COLUMNS": "60", "LINES": "24", **environment}),
        stdin=program_side,
        stdout=program_side,
        stderr=program_side,
        start_new_session=True,
    ) as process:
        os.close(program_side)
        shown = b""
        kill = threading.Timer(DEADLINE, process.kill)
        kill.start()
        try:
            while chunk := os.read(terminal, 4096):
                shown += chunk
                on_text(shown.decode(errors="ignore"))
        except OSError as error:  # how Linux says that the other side is closed
            if error.errno != errno.EIO:
                raise
        finally:
            kill.cancel()
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


def test_a_job_that_is_queued_is_said_to_be_queued(jobs: ScriptedJobs) -> None:
    """Until it runs, and then that is said."""
    job = jobs.add(state=jobs_pb2.QUEUED, request_id="r")
    queued, running = f"job job1 is queued on {jobs.target}", f"running on {jobs.target}"

    def go_on(text: str) -> None:
        state = job.message.state
        if state == jobs_pb2.QUEUED and queued in text:
            jobs.change(job, jobs_pb2.RUNNING)
        elif state == jobs_pb2.RUNNING and running in text:
            jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)

    code, text = on_terminal("run", "-s", jobs.target, "--request-id", "r", "--", "x", on_text=go_on)
    assert code == 0
    assert 0 <= text.find(queued) < text.find(running)


def test_an_error_cannot_steer_the_terminal(scripted: Callable[..., ScriptedServer]) -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "\x1b]0;owned\x07 [red]no[/red] \x9b31m")

    target = scripted(status=refuse).target
    _, text = on_terminal("status", "-s", target)
    assert r"\x1b]0;owned\x07 [red]no[/red] \x9b31m" in text
    assert "\x1b]0;" not in text


def test_jobs_are_listed_in_a_table(jobs: ScriptedJobs) -> None:
    spec = jobs_pb2.JobSpec(shell_command="printf '\x1b]0;owned\x07 [red]x[/red]'; " + "long " * 100)
    jobs.change(jobs.add(spec=spec), jobs_pb2.FAILED, exit_code=3)
    jobs.add(spec=jobs_pb2.JobSpec(shell_command="sleep 1"))
    code, text = on_terminal("jobs", "list", "-s", jobs.target, COLUMNS="80")
    assert code == 0
    assert "\x1b[36mRUNNING\x1b[0m" in text
    assert "\x1b[31mFAILED" in text
    assert "\x1b]0;" not in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    header, running, failed = plain.splitlines()  # one line each, cut to the terminal's width
    assert header.split() == ["ID", "STATE", "EXIT", "CREATED", "TOOK", "COMMAND"]
    assert running.split()[:2] == ["job2", "RUNNING"]
    assert failed.split()[:3] == ["job1", "FAILED", "3"]
    assert failed.endswith("…")


def test_a_job_is_shown_in_aligned_lines_that_cannot_steer_the_terminal(jobs: ScriptedJobs) -> None:
    jobs.change(
        jobs.add(
            spec=jobs_pb2.JobSpec(shell_command="a\x1b]0;owned\x07\nb", labels={"k": "\x1b[31m\x9b31m"})
        ),
        jobs_pb2.LOST,
        reason="\x1b[2J",
    )
    code, text = on_terminal("jobs", "show", "-s", jobs.target, "job1")
    assert code == 0
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert r"command               a\x1b]0;owned\x07\nb" in text.splitlines()
    assert "\t" not in text


def test_live_output_takes_the_place_of_the_spinner(server: ServerProcess) -> None:
    text = "sleep 0.5; printf 'one\\n'; sleep 0.3; printf 'two\\n' >&2; exit 4"
    code, shown = on_terminal("run", "-s", server.target, "--", text)
    assert code == 4
    assert shown.endswith("one\r\ntwo\r\n"), "nothing is drawn any more"
    assert "running on" in shown


@pytest.mark.parametrize("verb", [("list",), ("show", "job1"), ("wait", "job1"), ("cancel", "job1")])
@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("in_terminal", [False, True])
def test_no_text_of_a_server_reaches_a_terminal_raw(
    jobs: ScriptedJobs, remsvc: Remsvc, verb: tuple[str, ...], as_json: bool, in_terminal: bool
) -> None:
    r"""Every text of a job, from whoever created it: escape sequences, bells, C1 codes, direction marks."""
    evil = "\x1b]0;owned\x07\r\n\x9b31m\x7f\u202e\u2028\x00"
    spec = jobs_pb2.JobSpec(
        shell_command=f"echo {evil}",
        user=f"u{evil}",
        working_directory=f"/{evil}",
        environment={f"K{evil}": evil},
        labels={f"k{evil}": evil},
        source=evil,
    )
    jobs.change(jobs.add(spec=spec), jobs_pb2.FAILED, exit_code=3, reason=evil)
    arguments = ("jobs", *verb, "-s", jobs.target, *(["--json"] if as_json else []))
    if in_terminal:
        shown = on_terminal(*arguments)[1].replace("\r\n", "\n")
        shown = re.sub(r"\x1b\[(\?25[hl]|[0-9;]*m|2K|1A)|\r", "", shown)  # what rich draws
    else:
        result = remsvc(*arguments)
        shown = result.stdout + result.stderr
    assert "owned" in shown or verb[0] in ("cancel", "wait")
    unsafe = [character for character in shown if not character.isprintable() and character not in "\n\t"]
    assert unsafe == []
