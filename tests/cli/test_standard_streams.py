"""Started without standard input, output or error, in any locale, and with an output that fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remsvc.cli.outcome import errors_told
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.client.scripted_jobs import ScriptedJobs

from .conftest import PROGRAM, clean_environment

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def redirected(redirection: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``remsvc`` with its descriptors as a shell redirects them."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", *PROGRAM, *arguments],
        env=clean_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=50,
        check=False,
    )


def verbs(target: str, tmp_path: Path) -> dict[str, tuple[list[str], int]]:
    """Each verb with words that it can carry out, and what it exits with."""
    tokens = tmp_path / "tokens"
    tokens.write_text("# none yet\n")
    tokens.chmod(0o600)
    config = tmp_path / "server.ini"
    config.write_text("[server]\nport = 1\n")
    at = ["-s", target]
    return {
        "ping": (["ping", *at, "-c", "1"], 0),
        "status": (["status", *at], 0),
        "run": (["run", *at, "--stdin", "--", "echo out; echo err >&2; exit 3"], 3),
        "run --json": (["run", *at, "--json", "--", "exit 3"], 3),
        "run --detach": (["run", *at, "--detach", "--", "true"], 0),
        "list": (["jobs", "list", *at], 0),
        "show nothing": (["jobs", "show", *at, "nothing"], 255),
        "check-config": (["check-config", str(config)], 0),
        "token": (["token", "list", str(tokens)], 0),
        "policy": (["policy", "test", "--config", str(config), "--", "true"], 0),
        "completion": (["completion", "bash"], 0),
        "help": (["--help"], 0),
        "wrong usage": (["ping", "--nonsense"], 2),
        "nothing": (["status", "-s", "127.0.0.1:1"], 255),
    }


NAMES = [
    *("ping", "status", "run", "run --json", "run --detach", "list", "show nothing", "check-config", "token"),
    *("policy", "completion", "help", "wrong usage", "nothing"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("redirection", CLOSED)
def test_no_verb_minds_what_is_closed(
    server: ServerProcess, tmp_path: Path, redirection: str, name: str
) -> None:
    words, code = verbs(server.target, tmp_path)[name]
    run = redirected(redirection, *words)
    assert run.returncode == code
    assert "Traceback" not in run.stdout + run.stderr
    assert "Exception" not in run.stderr


@FULL
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_a_full_disk_is_told_in_a_line(
    server: ServerProcess, tmp_path: Path, redirection: str, name: str
) -> None:
    words, code = verbs(server.target, tmp_path)[name]
    run = redirected(redirection, *words)
    assert "Traceback" not in run.stdout + run.stderr
    assert "Exception" not in run.stderr
    prints = name not in ("show nothing", "wrong usage", "nothing", "token")
    if redirection.startswith(">") and prints:
        assert run.returncode == 255
        if redirection == ">/dev/full":
            assert run.stderr.splitlines()[-1].startswith("remsvc: ")
            assert run.stderr.endswith("No space left on device\n")
    elif name == "run":
        assert run.returncode == 255  # its standard error is output too
    elif name == "wrong usage":
        assert run.returncode in (2, 255)
    else:
        assert run.returncode == code


@FULL
def test_the_job_can_be_found_again_whose_output_could_not_be_written(jobs: ScriptedJobs) -> None:
    jobs.add(b"out", request_id="r")
    run = redirected(">/dev/full", "run", "-s", jobs.target, "--request-id", "r", "--", "x")
    assert run.returncode == 255
    assert run.stderr.splitlines() == [
        "remsvc: warning: job job1 may still be running: see remsvc jobs show job1",
        "remsvc: standard output cannot be written: No space left on device",
    ]
    run = redirected(">/dev/full", "run", "-s", jobs.target, "--detach", "--request-id", "r", "--", "x")
    assert run.returncode == 255
    assert "job job1 was created and goes on: see remsvc jobs show job1" in run.stderr
    jobs.change(jobs.jobs["job1"], jobs_pb2.SUCCEEDED, exit_code=0)
    run = redirected(">/dev/full", "run", "-s", jobs.target, "--json", "--request-id", "r", "--", "x")
    assert run.returncode == 255
    assert "job job1 has ended, and has the state SUCCEEDED: see remsvc jobs show job1" in run.stderr


def test_a_detached_job_is_named_where_there_is_no_standard_output(jobs: ScriptedJobs) -> None:
    run = redirected(">&-", "run", "-s", jobs.target, "--detach", "--", "x")
    assert (run.returncode, run.stderr) == (
        0,
        "remsvc: warning: there is no standard output, and the job's id is job1\n",
    )


LOCALES = {
    "C": {"LC_ALL": "C"},
    "POSIX": {"LC_ALL": "POSIX"},
    "ASCII": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "strict ASCII": {"PYTHONIOENCODING": "ascii:strict"},
}


@pytest.mark.parametrize("locale", LOCALES)
def test_any_text_can_be_shown_in_any_locale(jobs: ScriptedJobs, locale: str) -> None:
    spec = jobs_pb2.JobSpec(shell_command="echo żółw 🐢 é", labels={"ключ": "значение"})
    jobs.change(jobs.add(spec=spec), jobs_pb2.FAILED, exit_code=1, reason="сломалось")
    for words in (["list"], ["show", "job1"], ["wait", "job1"], ["cancel", "job1"], ["list", "--json"]):
        run = redirected("", "jobs", words[0], "-s", jobs.target, *words[1:], **LOCALES[locale])
        assert run.returncode == (1 if words[0] == "wait" else 0), run.stderr
        assert "Traceback" not in run.stderr
    run = redirected("", "jobs", "show", "-s", jobs.target, "żółw", **LOCALES[locale])
    assert (run.returncode, len(run.stderr.splitlines())) == (255, 1)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("shell", ["sh", "none"])
def test_a_command_reaches_the_shell_as_the_text_that_was_typed(
    server: ServerProcess, locale: str, shell: str
) -> None:
    words = ["printf '%s' \"é🐢 $X\""] if shell == "sh" else ["printf", "%s", "é🐢 ż"]
    arguments = ["run", "-s", server.target, "--shell", shell, "--env", "X=ż", "--", *words]
    run = redirected("", *arguments, **LOCALES[locale])
    assert (run.returncode, run.stdout, run.stderr) == (0, "é🐢 ż", "")


@pytest.mark.parametrize("words", [["-x"], ["--version"], ["-c", "echo no"], ["--"], ["-"]])
def test_a_command_that_begins_with_a_dash_is_a_command(jobs: ScriptedJobs, words: list[str]) -> None:
    run = redirected("", "run", "-s", jobs.target, "--detach", "--", *words)
    assert (run.returncode, run.stderr) == (0, "")
    assert jobs.asked("CreateJob")[-1].spec.shell_command == " ".join(words)


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError("too deep"), MemoryError(), ValueError("a\nb")]
)
def test_a_defect_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended, errors_told():
        fail()
    assert ended.value.code == 255
    said = capsys.readouterr().err
    assert said.startswith(f"remsvc: internal error: {type(error).__name__}: ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run", "--", "echo \udcff"], "shell_command"),
        (["jobs", "show", "\udcff"], "the job's id"),
        (["jobs", "cancel", "x", "--reason", "\udcff"], "reason"),
        (["jobs", "list", "--label", "a=\udcff"], "a label"),
    ],
)
def test_words_that_are_no_text_are_refused(jobs: ScriptedJobs, words: list[str], named: str) -> None:
    run = redirected("", *words, REMSVC_SERVER=jobs.target)
    expected = f"remsvc: {named} is not valid Unicode text: it has a lone surrogate\n"
    assert (run.returncode, run.stderr) == (2, expected)
    assert not jobs.requests
