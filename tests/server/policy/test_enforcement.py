"""The policy where it counts: both services of a real server, attacked."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.conftest import Serve, ServerProcess
from tests.contract.client import Client, bearer, command
from tests.contract.jobs import JobClient, refused, spec, state
from tests.contract.waiting import go_file, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="durable jobs are POSIX")

DENIED = grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
TOKENS = "[server]\nport = 0\n[auth]\netl = te\nweb = tw\n"
ECHO = shutil.which("echo") or "/bin/echo"


@dataclass
class Caller:
    """One identity's clients."""

    commands: Client
    jobs: JobClient


Callers = Callable[..., dict[str, Caller]]


@pytest.fixture
def callers() -> Iterator[Callers]:
    """``callers(server)``: a caller for each identity of ``TOKENS``."""
    with contextlib.ExitStack() as stack:

        def connect(server: ServerProcess) -> dict[str, Caller]:
            channel = stack.enter_context(
                grpc.insecure_channel(server.target, (("grpc.use_local_subchannel_pool", 1),))
            )
            return {
                name: Caller(Client(channel, bearer(token)), JobClient(channel, bearer(token)))
                for name, token in (("etl", "te"), ("web", "tw"))
            }

        yield connect


@pytest.fixture
def call(serve: Serve, callers: Callers) -> Callable[[str], dict[str, Caller]]:
    """``call(sections)``: callers of a new server with these sections."""
    return lambda sections: callers(serve(TOKENS + sections))


Call = Callable[[str], dict[str, Caller]]


# --- shells, programs, users ---


def test_without_a_shell_there_is_no_way_to_one(call: Call, tmp_path: Path) -> None:
    folder = tmp_path.resolve() / "bin"
    folder.mkdir()
    (folder / "sh").symlink_to("/bin/sh")
    (folder / "ok").symlink_to("really")
    (folder / "really").write_text("#!/bin/sh\necho it ran $*\n")
    (folder / "really").chmod(0o755)
    (tmp_path / "echo").write_text("#!/bin/sh\necho hijacked\n")
    (tmp_path / "echo").chmod(0o755)
    etl = call(f"[identity etl]\nprograms = {ECHO}, {folder}/\n")["etl"]
    with refused(DENIED, "commands with the shell sh are not permitted"):
        etl.commands.run("echo x")
    with refused(DENIED, "commands with the shell pwsh are not permitted"):
        etl.commands.run("echo x", cmdtyp=1)
    with refused(DENIED, "commands with the shell sh"):
        etl.jobs.create(spec(f"{ECHO} x"))
    for program in (
        *("/bin/sh", f"{folder}/sh", f"{folder}/../echo", f"{ECHO}/../sh", f"{folder}/", "/proc/self/exe"),
        *("echo", "./echo", "sh", "../../bin/sh", f" {ECHO}", f"{ECHO}\n", f"{tmp_path}/echo", "\u00a0"),
    ):
        with refused(DENIED, "program "):
            etl.jobs.create(spec(None, program, "-c", "id", working_directory=str(tmp_path)))
    assert etl.jobs.run(spec(None, ECHO, "a b", "; id")).stdout == b"a b ; id\n"
    assert etl.jobs.run(spec(None, f"/usr/../{ECHO}", "x")).stdout == b"x\n"
    assert etl.jobs.run(spec(None, f"{folder}/./ok", "well")).stdout == b"it ran well\n"
    # Whatever the working directory holds, and whatever comes on standard input: neither was asked for.
    with refused(DENIED, "working directory"):
        etl.jobs.create(spec(None, ECHO, "x", working_directory=str(tmp_path)))
    with refused(DENIED, "standard input may not be given"):
        etl.jobs.create(spec(None, ECHO, "x", standard_input=b"id\n"))


def test_the_path_that_was_decided_on_is_the_one_that_is_started(call: Call, tmp_path: Path) -> None:
    """``link/..`` is not where it looks like: the kernel would follow the link first."""
    for name in ("real", "trap/deep"):
        (tmp_path / name).mkdir(parents=True)
    for folder, word in (("real", "good"), ("trap", "bad")):
        (tmp_path / folder / "tool").write_text(f"#!/bin/sh\necho {word}\n")
        (tmp_path / folder / "tool").chmod(0o755)
    (tmp_path / "real" / "link").symlink_to(tmp_path / "trap" / "deep")
    real = tmp_path / "real"
    etl = call(f"[identity etl]\nprograms = {real}/tool\n")["etl"]
    created = etl.jobs.create(spec(None, f"{real}/link/../tool"))
    assert etl.jobs.watch(created.id).stdout == b"good\n"
    assert list(created.spec.argv.args) == [f"{real}/link/../tool"], "the job says what was asked for"


def test_a_job_that_waited_is_decided_on_as_it_was_asked_for(call: Call, tmp_path: Path) -> None:
    """Patterns speak of the path that the caller writes, programs of its plain form: also after a wait."""
    folder, go = tmp_path.resolve(), tmp_path.resolve() / "go"
    (folder / "tool").write_text(f"#!/bin/sh\n{go_file(go)}\necho $0\n")
    (folder / "tool").chmod(0o755)
    asked = f"{folder}/./tool"
    etl = call(f"[identity etl]\nmax_running = 1\nallow.1 = ^{asked} .$\nprograms = {folder}/tool\n")["etl"]
    jobs = [etl.jobs.create(spec(None, asked, number)) for number in "12"]
    assert [state(job) for job in jobs] == ["RUNNING", "QUEUED"]
    go.touch()
    for job in jobs:
        watched = etl.jobs.watch(job.id)
        assert (watched.states[-1], watched.stdout.decode()) == ("SUCCEEDED", f"{folder}/tool\n")


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_AUDIT", "BASH_ENV", "ENV", "IFS", "GCONV_PATH", "PS4"])
def test_what_decides_what_code_runs_cannot_be_set(call: Call, name: str) -> None:
    etl = call("")["etl"]
    with refused(DENIED, f'environment variable "{name}" may not be set'):
        etl.jobs.create(spec("true", environment={name: "x"}))
    assert (
        etl.jobs.run(spec('echo "$ETL_X$PATH"', environment={"ETL_X": "1", "PATH": "/bin"})).stdout
        == b"1/bin\n"
    )


def test_beside_an_allow_list_nothing_leads_elsewhere(call: Call, tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("#!/bin/sh\necho hijacked\n")
    (tmp_path / "hello").chmod(0o755)
    callers = call("[allowlist]\n1 = ^hello$\n[identity etl]\nenvironment = ETL_*, *\n")
    for caller in callers.values():
        for name in ("PATH", "PYTHONPATH", "PERL5OPT", "LD_LIBRARY_PATH", "BASH_FUNC_hello%%"):
            with refused(DENIED, "environment variable "):
                caller.jobs.create(spec("hello", environment={name: str(tmp_path)}))
            with refused(DENIED, "environment variable "):
                caller.jobs.create(spec(None, "hello", environment={name: str(tmp_path)}))


def test_beside_programs_only_variables_that_are_listed_can_be_set(call: Call) -> None:
    sections = (
        f"[group g]\nmembers = etl, web\nprograms = {shutil.which('env')}\n"
        "[identity etl]\nenvironment = ETL_*, LD_PRELOAD, PATH\n"
    )
    callers = call(sections)
    program = str(shutil.which("env"))
    for name in ("LD_PRELOAD", "PATH", "HOME", "TZ"):
        with refused(DENIED, f'environment variable "{name}"'):
            callers["etl"].jobs.create(spec(None, program, environment={name: "x"}))
    with refused(DENIED, 'environment variable "ETL_X"'):
        callers["web"].jobs.create(spec(None, program, environment={"ETL_X": "x"}))
    assert b"ETL_X=1" in callers["etl"].jobs.run(spec(None, program, environment={"ETL_X": "1"})).stdout


BOUNDING = {
    "allow": "[identity etl]\nallow.1 = ^make all$\n",
    "allow of a group": "[group g]\nmembers = *\nallow.1 = ^make all$\n",
    "[allowlist]": "[allowlist]\n1 = ^make all$\n",
}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("bounding", BOUNDING)
def test_what_is_permitted_takes_no_orders_from_what_its_caller_supplies(
    call: Call, tmp_path: Path, bounding: str
) -> None:
    """make does what GNUMAKEFLAGS says, and what the working directory holds: neither was permitted."""
    (tmp_path / "Makefile").write_text(f"all:\n\t@touch {tmp_path}/hijacked\n")
    (tmp_path / "Makefile").chmod(0o644)
    etl = call(BOUNDING[bounding])["etl"]
    for asked in (
        spec("make all", environment={"GNUMAKEFLAGS": f"--eval=$(shell touch {tmp_path}/hijacked)"}),
        spec("make all", environment={"A_VARIABLE_OF_SOME_PLUGIN": "x"}),
        spec("make all", working_directory=str(tmp_path)),
        spec("make all", standard_input=b"y\n"),
    ):
        with refused(DENIED) as refusal:
            etl.jobs.create(asked)
        name = next(iter(asked.environment), "")
        expected = (name, "environment") if name else ("directories", "may not be chosen")
        if asked.standard_input:
            expected = ("standard input", "input")
        assert all(word in refusal.message for word in expected)
    assert etl.jobs.run(spec("make all")).states[-1] == "FAILED", "there is no Makefile in its home directory"
    assert not (tmp_path / "hijacked").exists()


def test_what_a_section_lists_may_be_supplied(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    callers = call(
        f"[allowlist]\n1 = ^.*$\n[group g]\nmembers = etl\nenvironment = ETL_*, APT_CONFIG\n"
        f"directories = /nowhere, {tmp_path}/\ninput = true\n"
    )
    etl = callers["etl"]
    asked = spec(
        'echo "$ETL_X $APT_CONFIG $PWD"; cat',
        environment={"ETL_X": "1", "APT_CONFIG": "2"},
        working_directory=f"{tmp_path}/in",
        standard_input=b"given\n",
    )
    assert etl.jobs.run(asked).stdout.decode() == f"1 2 {tmp_path}/in\ngiven\n"
    for directory in (f"{tmp_path}/in/../../..", f"{tmp_path}x", "/nowhere/else", f"{tmp_path}//in", "/"):
        with refused(DENIED, "working directory"):
            etl.jobs.create(spec("pwd", working_directory=directory))
    with refused(DENIED, 'environment variable "TZ" may not be set'):
        etl.jobs.create(spec("true", environment={"TZ": "UTC"}))
    with refused(DENIED, "standard input may not be given: [allowlist] bounds what runs"):
        callers["web"].jobs.create(spec("cat", standard_input=b"x"))


def test_an_allow_list_that_is_not_anchored_bounds_nothing(call: Call, tmp_path: Path) -> None:
    """As those of servers of version 1 often are: a guard against mistakes."""
    etl = call("[allowlist]\n1 = ^cat$\n2 = ^echo\n")["etl"]
    asked = spec(
        "echo $PWD $X; cat", environment={"X": "1"}, working_directory=str(tmp_path), standard_input=b"in"
    )
    assert etl.jobs.run(asked).stdout.decode() == f"{tmp_path} 1\nin"
    for name in ("PATH", "APT_CONFIG", "LD_AUDIT"):
        with refused(DENIED, f'environment variable "{name}" may not be set: it decides'):
            etl.jobs.create(spec("echo", environment={name: "x"}))


def test_whom_nothing_bounds_supplies_what_he_likes(call: Call, tmp_path: Path) -> None:
    callers = call("[identity etl]\nusers = self\ndeny.1 = rm\n[identity web]\ninput = false\n")
    asked = spec(
        'echo "$RIPGREP_CONFIG_PATH $PWD"; cat',
        environment={"RIPGREP_CONFIG_PATH": "1"},
        working_directory=str(tmp_path),
        standard_input=b"given\n",
    )
    assert callers["etl"].jobs.run(asked).stdout.decode() == f"1 {tmp_path}\ngiven\n"
    with refused(DENIED, "standard input may not be given: [identity web] input does not permit it"):
        callers["web"].jobs.create(asked)


def test_a_refusal_does_not_tell_what_there_is_on_the_host(call: Call, tmp_path: Path) -> None:
    """Whether there is a program, on PATH or elsewhere, a user or a directory, is no caller's business."""
    folder = tmp_path.resolve() / "bin"
    folder.mkdir()
    (folder / "away").symlink_to("/bin/sh")
    callers = call(
        f"[identity etl]\nusers = nobody\nprograms = {folder}/\n"
        "[identity web]\nallow.1 = ^permitted$\ndirectories = /srv\n"
    )

    def told(name: str, asked: Any) -> str:
        with refused(DENIED) as refusal:
            callers[name].jobs.create(asked)
        return refusal.message

    pairs = [
        ("etl", spec(None, f"{folder}/away", user="nobody"), spec(None, f"{folder}/gone", user="nobody")),
        ("etl", spec(None, "/bin/sh", user="nobody"), spec(None, "/bin/gone", user="nobody")),
        ("etl", spec(None, "/bin/sh", user="root"), spec(None, "/bin/sh", user="gone")),
        ("web", spec("ls"), spec("gone")),
        ("web", spec(None, "ls"), spec(None, "gone")),
        ("web", spec("permitted", working_directory="/root"), spec("permitted", working_directory="/gone")),
    ]
    for name, there, gone in pairs:
        words = [there.user, *there.argv.args, there.shell_command, there.working_directory]
        others = [gone.user, *gone.argv.args, gone.shell_command, gone.working_directory]
        message = told(name, there)
        for word, other in zip(words, others, strict=True):
            message = message.replace(word, other) if word else message
        assert message == told(name, gone)
    with refused(DENIED) as one:
        callers["web"].commands.run("ls", cmdtyp=1)
    with refused(DENIED) as other:
        callers["web"].commands.run("gone", cmdtyp=1)
    assert one.message == other.message


def test_users(call: Call) -> None:
    callers = call("[identity etl]\nusers = nobody\n[identity web]\nusers = self\n")
    for user in ("", "root", "Nobody", " nobody", "nobody ", "self", "0", "65534"):
        with refused(DENIED, "running as "):
            callers["etl"].commands.run("id", cmdusr=user)
        with refused(DENIED, "running as "):
            callers["etl"].jobs.create(spec("id", user=user))
    for user in ("root", "nobody", "self"):
        with refused(DENIED, f'running as user "{user}" is not permitted'):
            callers["web"].commands.run("id", cmdusr=user)
    assert callers["web"].commands.run("echo fine").out == "fine\n"
    if os.geteuid() == 0:
        assert callers["etl"].commands.run("id -un", cmdusr="nobody").out == "nobody\n"
        assert callers["etl"].jobs.run(spec("id -un", user="nobody")).stdout == b"nobody\n"


def test_version_1_is_decided_on_like_a_job(call: Call) -> None:
    callers = call("[identity etl]\nshells = sh\ndeny.1 = forbidden\nallow.1 = ^echo [a-z]+$\n")
    etl = callers["etl"]
    for text in (
        "echo forbidden",
        "echo a; id",
        "echo a\nid",
        "echo a\n",
        "echo\u00a0a",
        "ECHO a",
        "echo  a",
    ):
        with refused(DENIED, "command "):
            etl.commands.run(text)
        with refused(DENIED, "command "):
            etl.jobs.create(spec(text))
    with refused(DENIED, "commands without a shell are not permitted"):
        etl.jobs.create(spec(None, ECHO, "a"))
    assert etl.commands.run("echo a").out == "a\n"
    assert callers["web"].commands.run("echo forbidden; true").rc == 0


def test_everyone_else(call: Call) -> None:
    callers = call("[identity *]\ndeny.all = .\n[identity etl]\nshells = sh\n")
    assert callers["etl"].commands.run("true").rc == 0
    with refused(DENIED, "command denied by denylist (rule [identity *] deny.all)"):
        callers["web"].commands.run("true")


def test_what_a_caller_sends_is_not_echoed_raw_or_long(call: Call) -> None:
    etl = call("[identity etl]\nusers = nobody\nprograms = /bin/echo\n")["etl"]
    with refused(DENIED) as refusal:
        etl.jobs.create(spec(None, "/bin/echo", user="\x1b[2J\n" + "x" * 240))
    assert len(refusal.message) < 1000
    assert refusal.message.isprintable()


# --- limits ---


def test_limits_of_time_and_output(call: Call) -> None:
    etl = call("[identity etl]\ntime_limit_ms = 300\noutput_limit_bytes = 10\n")["etl"]
    answer = etl.commands.run("exec sleep 1000")
    assert (answer.rc, answer.err) == (1, "process timed out")
    answer = etl.commands.run("echo 0123456789012345")
    assert answer.out == "0123456789\n\x01[remSvc: output truncated at 10 bytes]\x01\n"
    asked = spec("trap '' TERM; sleep 1000 & wait; wait", time_limit=900, kill_grace=900, output_limit=1000)
    created = etl.jobs.create(asked)
    assert created.spec.time_limit.ToMilliseconds() == 300
    assert created.spec.kill_grace.ToMilliseconds() == 300
    assert created.spec.output_limit == 10
    assert etl.jobs.watch(created.id).states[-1] == "TIMED_OUT"
    assert etl.jobs.create(spec("true")).spec.time_limit.ToMilliseconds() == 300


def test_the_same_request_is_the_same_whatever_a_policy_makes_of_it(serve: Serve, callers: Callers) -> None:
    """What the caller asked for is compared: not what was made of it, now or then."""
    limited = "[identity etl]\ntime_limit_ms = {0}\noutput_limit_bytes = {0}\n"
    server = serve(TOKENS + limited.format(30_000))
    etl = callers(server)["etl"]
    asked = spec("echo once", time_limit=100, output_limit=10**6)
    job = etl.jobs.create(asked, "once")
    assert job.spec.time_limit.ToMilliseconds() == 30_000
    assert etl.jobs.create(asked, "once").id == job.id
    reload(server, TOKENS + limited.format(20_000))
    assert etl.jobs.create(asked, "once").id == job.id
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        etl.jobs.create(spec("echo once", time_limit=30, output_limit=10**6), "once")


def test_how_many_run(call: Call, tmp_path: Path) -> None:
    callers = call("[identity etl]\nmax_running = 2\nmax_queued = 1\n")
    etl = callers["etl"]
    stream = etl.commands.open_stream()
    stream.send(f"touch {tmp_path}/begun; {go_file(tmp_path / 'go')}")
    wait_until((tmp_path / "begun").exists, "the command to begin")
    running = etl.jobs.create(spec(go_file(tmp_path / "go")))
    waiting = etl.jobs.create(spec("echo at last"), "waiting")
    assert [state(running), state(waiting)] == ["RUNNING", "QUEUED"]
    with refused(EXHAUSTED, "2 commands are running already") as refusal:
        etl.commands.run("true")
    assert refusal.retry_info.retry_delay.ToNanoseconds() > 0
    with refused(EXHAUSTED, "1 jobs of etl are waiting already") as refusal:
        etl.jobs.create(spec("true"), "one too many")
    assert refusal.retry_info.retry_delay.ToNanoseconds() > 0
    # It does not hold up anybody else, and what was created is still found.
    assert callers["web"].jobs.run(spec("echo x")).stdout == b"x\n"
    assert callers["web"].commands.run("true").rc == 0
    assert etl.jobs.create(spec("echo at last"), "waiting").id == waiting.id
    (tmp_path / "go").touch()
    assert etl.jobs.watch(waiting.id).stdout == b"at last\n"
    assert etl.jobs.create(spec("true"), "one too many")
    stream.cancel()


@pytest.mark.parametrize("ends", ["by itself", "its caller goes away"])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_job_that_waits_for_a_version_1_command_starts_when_that_ends(
    call: Call, tmp_path: Path, ends: str, streamed: bool
) -> None:
    """With room for one, nothing else ends that could wake it."""
    etl = call("[identity etl]\nmax_running = 1\n")["etl"]
    text = f"touch {tmp_path}/begun; {go_file(tmp_path / 'go')}"
    if streamed:
        running = etl.commands.open_stream()
        running.send(text)
    else:
        running = etl.commands.start(text)
    wait_until((tmp_path / "begun").exists, "the command to begin")
    waiting = etl.jobs.create(spec("echo at last"))
    assert state(waiting) == "QUEUED"
    if ends == "by itself":
        (tmp_path / "go").touch()
        assert (next(running) if streamed else running.result()).rc == 0
    else:
        running.cancel()
    assert etl.jobs.watch(waiting.id).stdout == b"at last\n"
    if streamed:
        running.cancel()


def test_how_many_are_asked_for(call: Call) -> None:
    callers = call("[identity etl]\nrate = 3/h\ndeny.1 = forbidden\n")
    etl = callers["etl"]
    assert etl.commands.run("true").rc == 0
    with refused(DENIED):
        etl.commands.run("forbidden")  # counts as well
    created = etl.jobs.create(spec("true"), "first")
    for attempt in (lambda: etl.commands.run("true"), lambda: etl.jobs.create(spec("true"), "second")):
        with refused(EXHAUSTED, "more than 3/h commands") as refusal:
            attempt()
        assert 0 < refusal.retry_info.retry_delay.seconds <= 1200
    with refused(EXHAUSTED):
        list(etl.commands.stream([command("true")]))
    # Looking after what runs is not asking for more.
    assert etl.jobs.watch(created.id).states[-1] == "SUCCEEDED"
    assert etl.jobs.get(created.id)
    for _ in range(5):
        assert callers["web"].commands.run("true").rc == 0


# --- a policy that changes ---


def write_config(server: ServerProcess, text: str) -> None:
    """In one step: the server looks by itself, too, and must not find half of it."""
    new = server.stderr_path.with_suffix(".new")
    new.write_text(text)
    new.replace(server.stderr_path.with_suffix(".ini"))


def reload(server: ServerProcess, text: str) -> None:
    write_config(server, text)
    before = server.log.count("configuration reloaded")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.log.count("configuration reloaded") > before, "the reload", 60)


def test_a_job_that_waited_starts_only_if_it_still_may(
    serve: Serve, callers: Callers, tmp_path: Path
) -> None:
    text = f"{TOKENS}[jobs]\nmax_running = 1\n"
    server = serve(text)
    etl = callers(server)["etl"]
    running = etl.jobs.create(spec(go_file(tmp_path / "go")))
    doomed = etl.jobs.create(spec(f"touch {tmp_path}/ran"), "doomed")
    fine = etl.jobs.create(spec("echo fine"))
    assert state(doomed) == "QUEUED"
    reload(server, f"{text}[identity etl]\ndeny.1 = touch\n")
    (tmp_path / "go").touch()
    watched = etl.jobs.watch(doomed.id)
    assert watched.states[-1] == "FAILED"
    assert watched.job.reason.startswith("not permitted any more: command denied by denylist")
    assert etl.jobs.watch(fine.id).stdout == b"fine\n"
    assert etl.jobs.watch(running.id).states[-1] == "SUCCEEDED", "what runs goes on"
    assert not (tmp_path / "ran").exists()
    # Asked for again, it is what it was; asked for with another id, it is refused.
    assert etl.jobs.create(spec(f"touch {tmp_path}/ran"), "doomed").id == doomed.id
    with refused(DENIED):
        etl.jobs.create(spec(f"touch {tmp_path}/ran"), "other")


def test_a_job_with_input_that_waited_starts_only_if_it_still_may(
    serve: Serve, callers: Callers, tmp_path: Path
) -> None:
    text = f"{TOKENS}[jobs]\nmax_running = 1\n"
    server = serve(text)
    etl = callers(server)["etl"]
    running = etl.jobs.create(spec(go_file(tmp_path / "go")))
    doomed = etl.jobs.create(spec("sh", standard_input=f"touch {tmp_path}/ran\n".encode()))
    placed = etl.jobs.create(spec("pwd", working_directory=str(tmp_path)))
    plain = etl.jobs.create(spec("echo fine"))
    reload(server, f"{text}[identity etl]\nallow.1 = .\n")
    (tmp_path / "go").touch()
    for job, why in ((doomed, "standard input may not be given"), (placed, "working directory")):
        watched = etl.jobs.watch(job.id)
        assert watched.states[-1] == "FAILED"
        assert watched.job.reason.startswith(f"not permitted any more: {why}")
    assert etl.jobs.watch(plain.id).stdout == b"fine\n"
    assert etl.jobs.watch(running.id).states[-1] == "SUCCEEDED"
    assert not (tmp_path / "ran").exists()


def test_nor_after_a_restart(serve: Serve, callers: Callers, tmp_path: Path) -> None:
    text = f"{TOKENS}[jobs]\nmax_running = 1\n"
    first = serve(text, "--state-dir", str(tmp_path / "state0"))
    etl = callers(first)["etl"]
    etl.jobs.create(spec(go_file(tmp_path / "go")))
    doomed = etl.jobs.create(spec(f"touch {tmp_path}/ran"))
    first.kill()
    second = serve(f"{text}[identity etl]\ndeny.1 = touch\n", "--state-dir", str(tmp_path / "state0"))
    (tmp_path / "go").touch()
    watched = callers(second)["etl"].jobs.watch(doomed.id)
    assert watched.states[-1] == "FAILED"
    assert watched.job.reason.startswith("not permitted any more")
    assert not (tmp_path / "ran").exists()


def test_a_refused_command_claims_no_request_id(serve: Serve, callers: Callers) -> None:
    server = serve(f"{TOKENS}[identity etl]\ndeny.1 = forbidden\n")
    etl = callers(server)["etl"]
    with refused(DENIED):
        etl.jobs.create(spec("echo forbidden"), "id")
    with refused(grpc.StatusCode.NOT_FOUND):
        etl.jobs.get(request_id="id")
    reload(server, TOKENS)
    assert etl.jobs.watch(etl.jobs.create(spec("echo forbidden"), "id").id).stdout == b"forbidden\n"


def test_what_was_made_is_still_found_when_it_is_not_permitted_any_more(
    serve: Serve, callers: Callers
) -> None:
    server = serve(TOKENS)
    both = callers(server)
    made = both["etl"].jobs.create(spec("echo x"), "id")
    assert both["etl"].jobs.watch(made.id).stdout == b"x\n"
    reload(server, f"{TOKENS}[group all]\nmembers = *\ndeny.1 = echo\n")
    assert both["etl"].jobs.create(spec("echo x"), "id").id == made.id
    with refused(DENIED):
        both["etl"].jobs.create(spec("echo y"), "id")
    with refused(DENIED):
        both["web"].jobs.create(spec("echo x"), "id")


def test_a_broken_policy_keeps_the_old_one(serve: Serve, callers: Callers) -> None:
    server = serve(f"{TOKENS}[identity etl]\ndeny.1 = forbidden\n")
    etl = callers(server)["etl"]
    write_config(server, f"{TOKENS}[identity etl]\ndeny.1 = (\n")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "configuration NOT reloaded" in server.log, "the refusal", 60)
    with refused(DENIED):
        etl.commands.run("forbidden")
