"""What a command finds around itself, seen from inside: ``/proc/self`` of commands of a real server."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remsvc.client import Client, ConnectionOptions
from remsvc.client.jobs import JobSpec, OutputChunk
from remsvc.command import Command

if sys.platform == "win32":
    pytest.skip("POSIX", allow_module_level=True)

import pwd

if TYPE_CHECKING:
    from tests.conftest import Serve, ServerProcess

DEADLINE = 60.0
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may become another user")
SECRETS = {
    "REMSVC_TOKEN": secrets.token_hex(16),  # another one for each run: a command sees other runs' servers
    "LC_SECRET": "in-a-locale-variable",
    "LANG_SECRET": "no-locale",
    "BASH_ENV": "/tmp/no-such-file",
    "IFS": "x",
    "AWS_SECRET_ACCESS_KEY": "aws",
}
ALLOWED = {"PATH", "USER", "LOGNAME", "HOME", "SHELL", "REMSVC_COMMAND_ID", "LANG", "LANGUAGE", "TZ"}
ALLOWED |= {"XDG_RUNTIME_DIR"}  # while its user is logged in
ALLOWED |= {"LC_ALL", "LC_CTYPE", "PWD", "OLDPWD", "SHLVL", "_"}  # the last four are made by shells

# Two signals of the C library's own, which its posix_spawn leaves ignored.
LIBRARY_SIGNALS = 1 << 31 | 1 << 32


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    return serve_module("[auth]\nalice = $REMSVC_TOKEN\n", env=SECRETS)


def run_on(server: ServerProcess, kind: str, text: str, user: str = "") -> str:
    """What a command prints: of version 1, a job in a shell, or a job without one."""
    options = ConnectionOptions(server.target, token=SECRETS["REMSVC_TOKEN"])
    with Client(options) as client:
        if kind == "version 1":
            return client.run(Command(text, cmdusr=user), timeout=DEADLINE).out
        if kind == "shell":
            spec = JobSpec(shell_command=text, user=user)
        else:
            spec = JobSpec(argv=["/bin/sh", "-c", text], user=user)
        job = client.create_job(spec, f"{kind} {user} {text}"[:128].replace("\n", " "), timeout=DEADLINE)
        events = client.watch_job(job.id)
        return b"".join(event.data for event in events if isinstance(event, OutputChunk)).decode()


kinds = pytest.mark.parametrize("kind", ["version 1", "shell", "argv"])
users = pytest.mark.parametrize("user", ["", pytest.param("nobody", marks=needs_root)])


@kinds
@users
def test_the_environment_is_made_from_nothing(server: ServerProcess, kind: str, user: str) -> None:
    shown = run_on(server, kind, "tr '\\0' '\\n' </proc/self/environ", user)
    variables = dict(line.split("=", 1) for line in shown.splitlines())
    assert variables.keys() <= ALLOWED
    entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    # Whoever may not log in has a shell all the same, for programs that ask for one.
    shell = entry.pw_shell if entry.pw_shell and not entry.pw_shell.endswith("/nologin") else "/bin/sh"
    assert (variables["USER"], variables["LOGNAME"], variables["HOME"], variables["SHELL"]) == (
        *(entry.pw_name, entry.pw_name, entry.pw_dir),
        shell,
    )
    assert not any(secret in shown for secret in SECRETS.values() if len(secret) > 1)


@kinds
@users
def test_the_process_above_holds_no_secret_either(server: ServerProcess, kind: str, user: str) -> None:
    """A command may read the environment of a process of its own user: that of the supervisor, as well."""
    shown = run_on(server, kind, "cat /proc/$PPID/environ /proc/$PPID/cmdline; echo; ps axwwe -o args", user)
    if user:
        assert SECRETS["REMSVC_TOKEN"] not in shown
        return
    # The server's own environment is its user's to see; there is no second place.
    own = [line for line in shown.splitlines() if SECRETS["REMSVC_TOKEN"] in line]
    assert all("remsvc serve" in line for line in own)


@kinds
@users
def test_no_descriptor_but_the_three_streams(server: ServerProcess, kind: str, user: str) -> None:
    clients = [Client(ConnectionOptions(server.target, token=SECRETS["REMSVC_TOKEN"])) for _ in range(5)]
    for client in clients:
        client.ping(timeout=DEADLINE)  # descriptors of the server
    try:
        shown = run_on(server, kind, "cd /proc/$$/fd && for fd in *; do readlink $fd; done", user)
    finally:
        for client in clients:
            client.close()
    lines = shown.splitlines()
    assert len(lines) == 3, lines
    assert all(line == "/dev/null" or line.startswith("pipe:") for line in lines)


@kinds
@users
def test_identity_capabilities_and_signals(server: ServerProcess, kind: str, user: str) -> None:
    shown = run_on(server, kind, "cat /proc/self/status", user)
    status = {name: value.split() for name, _, value in (line.partition(":") for line in shown.splitlines())}
    entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    assert status["Uid"] == [str(entry.pw_uid)] * 4
    assert status["Gid"] == [str(entry.pw_gid if user else os.getegid())] * 4
    if user:
        assert set(map(int, status["Groups"])) == set(os.getgrouplist(user, entry.pw_gid))
        assert {int(status[name][0], 16) for name in ("CapPrm", "CapEff", "CapAmb")} == {0}
    assert [int(status[name][0], 16) & ~LIBRARY_SIGNALS for name in ("SigBlk", "SigIgn", "CapAmb")] == [0] * 3
    assert status["Umask"] == ["0022"]


@pytest.mark.parametrize("kind", ["version 1", "shell"])
def test_nothing_is_inherited_from_whoever_started_the_server(serve: Serve, kind: str) -> None:
    """Signals that are ignored or blocked, as after nohup, and capabilities that survive exec."""
    wrapper = ["env", "--ignore-signal=HUP,INT,USR1,TSTP", "--block-signal=USR2"]
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("env of this system cannot ignore signals")
    if IS_ROOT:
        wrapper = ["setpriv", "--inh-caps=+kill", "--ambient-caps=+kill", *wrapper]
    server = serve("[auth]\nalice = $REMSVC_TOKEN\n", env=SECRETS, wrapper=wrapper)
    shown = run_on(server, kind, "grep -E '^(SigIgn|SigBlk|CapAmb):' /proc/self/status")
    assert [int(line.split()[1], 16) & ~LIBRARY_SIGNALS for line in shown.splitlines()] == [0] * 3


LIMITS = """[limits]
nofile = 64
nproc = 5000
memory_bytes = 2000000000
cpu_seconds = 100
umask = 0027
no_new_privs = true
"""


@kinds
@users
def test_limits(serve_module: Serve, kind: str, user: str, limited: ServerProcess) -> None:
    shown = run_on(
        limited, kind, "cat /proc/self/limits; grep -E '^(NoNewPrivs|Umask)' /proc/self/status", user
    )
    lines = {" ".join(line.split()) for line in shown.splitlines()}
    assert "Max open files 64 64 files" in lines
    assert "Max processes 5000 5000 processes" in lines
    assert "Max address space 2000000000 2000000000 bytes" in lines
    assert "Max cpu time 100 101 seconds" in lines
    assert {"NoNewPrivs: 1", "Umask: 0027"} <= lines


@pytest.fixture(scope="module")
def limited(serve_module: Serve) -> ServerProcess:
    return serve_module(f"[auth]\nalice = $REMSVC_TOKEN\n{LIMITS}", env=SECRETS)


@users
def test_limits_hold(limited: ServerProcess, user: str) -> None:
    files = 'i=3; while [ $i -lt 70 ]; do eval "exec $i</dev/null" || exit; i=$((i + 1)); done; echo none'
    python = (
        f"{sys.executable} -c 'import resource as r; fds = [open(\"/dev/null\") for _ in range(100)]' 2>&1"
    )
    memory = "head -c 3000000000 /dev/zero | tail >/dev/null; echo $?"
    if not user:
        assert "Too many open files" in run_on(limited, "version 1", python)
    assert "none" not in run_on(limited, "version 1", f"bash -c '{files}' 2>&1", user)
    assert run_on(limited, "version 1", memory, user) != "0\n"
    if user or not IS_ROOT:
        assert "none" not in run_on(limited, "version 1", f"ulimit -n 4096 && {{ {files}; }} 2>&1", user)


def test_processor_time(serve: Serve) -> None:
    server = serve("[auth]\nalice = $REMSVC_TOKEN\n[limits]\ncpu_seconds = 1\n", env=SECRETS)
    with Client(ConnectionOptions(server.target, token=SECRETS["REMSVC_TOKEN"])) as client:
        assert client.run(Command("while :; do :; done"), timeout=DEADLINE).rc == 128 + 24  # SIGXCPU


@needs_root
def test_no_new_privileges(limited: ServerProcess, server: ServerProcess, tmp_path: Path) -> None:
    """A set-user-id program works, but not with no_new_privs."""
    program = Path("/tmp", f"remsvc-setuid-{os.getpid()}")
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    try:
        program.chmod(0o4755)
        assert run_on(server, "version 1", f"{program} -u", "nobody") == "0\n"
        assert run_on(limited, "version 1", f"{program} -u", "nobody") != "0\n"
    finally:
        program.unlink()


@needs_root
def test_a_directory_that_the_user_may_not_enter(server: ServerProcess, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with Client(ConnectionOptions(server.target, token=SECRETS["REMSVC_TOKEN"])) as client:
        job = client.create_job(
            JobSpec(shell_command="pwd", user="nobody", working_directory=str(closed)),
            "closed",
            timeout=DEADLINE,
        )
        list(client.watch_job(job.id))
        job = client.get_job(job.id)
    assert job.state.value == "FAILED"
    assert "the working directory cannot be entered by that user" in job.reason


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("umask = 0999", "expected an octal number from 000 to 777"),
        ("umask = u=rwx", "expected an octal number from 000 to 777"),
        ("nofile = 0", "expected a whole number from 16"),
        ("memory_bytes = 1000", "expected a whole number from 16777216"),
        ("cpu_seconds = 0", "expected a whole number from 1"),
        ("no_new_privs = maybe", "expected true or false"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path: Path, line: str, expected: str) -> None:
    config = tmp_path / "server.ini"
    config.write_text(f"[limits]\n{line}\n")
    command = [sys.executable, "-m", "remsvc", "check-config", str(config)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert result.returncode == 2
    assert f"[limits] {line}: {expected}" in result.stderr


@needs_root
def test_three_capabilities_are_enough_for_commands_of_other_users(serve: Serve, tmp_path: Path) -> None:
    """As in packaging/systemd/other-users.conf: to become a user, and to end all that it runs."""
    bounding = "--bounding-set=-all,+setuid,+setgid,+kill"
    wrapper = ("setpriv", bounding, "--no-new-privs")
    server = serve("[auth]\nalice = $REMSVC_TOKEN\n", env=SECRETS, wrapper=wrapper)
    assert run_on(server, "shell", "id -un; grep CapBnd /proc/self/status", "nobody").split() == [
        *("nobody", "CapBnd:"),
        f"{1 << 5 | 1 << 6 | 1 << 7:016x}",
    ]
    options = ConnectionOptions(server.target, token=SECRETS["REMSVC_TOKEN"])
    seconds = 10**6 + os.getpid()  # tells them from others
    text = f"setsid sleep {seconds} & (setsid sh -c 'sleep {seconds}' &); echo started; exec sleep {seconds}"
    with Client(options) as client:
        job = client.create_job(JobSpec(shell_command=text, user="nobody"), "to be ended", timeout=DEADLINE)
        for event in client.watch_job(job.id):
            if isinstance(event, OutputChunk):
                client.cancel_job(job.id, kill=True)
        assert client.get_job(job.id).state.value == "CANCELLED"
    left = subprocess.run(
        ["ps", "-o", "pid=,args=", "-u", "nobody"], capture_output=True, text=True, check=False
    )
    assert not [line for line in left.stdout.splitlines() if str(seconds) in line]
