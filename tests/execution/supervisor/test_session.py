"""What a command gets new, as after a login."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remsvc.execution.engine import Engine, Process, ProcessSpec
from remsvc.execution.engine_choice import create_engine
from remsvc.execution.login import login
from remsvc.execution.shell import shell_argv
from remsvc.execution.supervisor.protocol import Credentials
from tests.execution.processes import DEADLINE, children, processes_with

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do that")

# keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, false), where this machine has it
_KEYRING = """
import ctypes, os
call = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine, -1)
print(ctypes.CDLL(None).syscall(call, 0, -3, 0))
"""


def _keyring_of(engine: Engine, mark: str, credentials: Credentials | None) -> Process:
    argv = (sys.executable, "-I", "-S", "-c", _KEYRING)
    return engine.start(ProcessSpec(argv, {"REMSVC_COMMAND_ID": mark}, "/", credentials))


@pytest.mark.parametrize("as_user", [False, pytest.param(True, marks=needs_root)])
async def test_each_command_has_a_session_keyring_of_its_own(engine: Engine, as_user: bool) -> None:
    credentials = Credentials(0, 0, (0,)) if as_user else None
    processes = [_keyring_of(engine, f"keyring-{number}", credentials) for number in range(4)]
    keyrings = [int((await process.wait()).stdout.head) for process in processes]
    if -1 in keyrings:
        pytest.skip("there are no keyrings here")
    assert len(set(keyrings)) == len(keyrings)


@pytest.fixture
def protected() -> Iterator[None]:
    """This process, and what it starts, is not what the OOM killer takes."""
    score = Path("/proc/self/oom_score_adj")
    before = score.read_text()
    try:
        score.write_text("-500")
    except PermissionError:
        pytest.skip("not privileged to protect a process from the OOM killer (CAP_SYS_RESOURCE)")
    yield
    score.write_text(before)


@needs_root
@pytest.mark.parametrize("credentials", [None, Credentials(65534, 65534, (65534,))])
async def test_the_servers_protection_from_the_oom_killer_is_not_its_commands(
    protected: None, credentials: Credentials | None
) -> None:
    engine = create_engine()
    await engine.open()
    try:
        (supervisor,) = children(os.getpid()) & processes_with("-I")
        text = "cat /proc/self/oom_score_adj; echo -500 > /proc/self/oom_score_adj || echo denied"
        spec = ProcessSpec(("/bin/sh", "-c", text), {"PATH": os.environ["PATH"]}, "/", credentials)
        outcome = await engine.start(spec).wait()
        assert outcome.stdout.head == (b"0\n" if credentials is None else b"0\ndenied\n")
        assert Path(f"/proc/{supervisor}/oom_score_adj").read_text() == "-500\n"
    finally:
        await engine.close()


@pytest.mark.parametrize("text", ["-x; echo hi", "--; echo hi", "+x; echo hi", "-"])
async def test_a_text_that_looks_like_an_option_is_a_text(engine: Engine, text: str) -> None:
    spec = ProcessSpec(shell_argv(text, 0, ""), {"PATH": os.environ["PATH"]}, "/")
    outcome = await engine.start(spec).wait()
    assert outcome.stdout.head == (b"hi\n" if "echo" in text else b"")
    assert b"not found" in outcome.stderr.head


def test_the_shell_of_a_user_who_has_none_is_the_system_s() -> None:
    users = [user for user in pwd.getpwall() if user.pw_shell.endswith(("/nologin", "/false"))]
    if not users or os.geteuid() != 0:
        pytest.skip("needs such a user, and root")
    assert login(users[0].pw_name).env["SHELL"] == "/bin/sh"
    assert login("root").env["SHELL"] == (pwd.getpwnam("root").pw_shell or "/bin/sh")


@needs_root
def test_the_runtime_directory_is_told_while_it_is_there() -> None:
    user = pwd.getpwnam("nobody")
    folder = Path("/run/user", str(user.pw_uid))
    if folder.exists():
        pytest.skip("that user is logged in")
    surroundings = login(user.pw_name)
    assert "XDG_RUNTIME_DIR" not in surroundings.variables()
    made = [path for path in (folder, folder.parent) if not path.exists()]
    folder.mkdir(parents=True)
    try:
        assert surroundings.variables()["XDG_RUNTIME_DIR"] == str(folder)
    finally:
        for path in made:
            path.rmdir()


@needs_root
def test_without_proc_the_server_says_so_in_one_line(tmp_path: Path) -> None:
    serve = (sys.executable, "-m", "remsvc", "serve", "--port", "0", "--state-dir", str(tmp_path / "state"))
    text = 'umount -l /proc || exit 99; exec "$@"'
    command = ("unshare", "--mount", "/bin/sh", "-c", text, "sh", *serve)
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    if done.returncode in (1, 99):
        pytest.skip(f"/proc cannot be taken away here: {done.stderr}")
    *_, line = done.stderr.splitlines()
    assert line == "remsvc: there is no /proc here, which commands cannot do without: mount it first"
    assert "Traceback" not in done.stderr
