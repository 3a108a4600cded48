"""``cmdusr``: running a command as another user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .client import Client, command
from .commands import COMMANDS, PLATFORM, posix_only, windows_only

if PLATFORM == "posix":
    import pwd

IS_ROOT = PLATFORM == "posix" and os.geteuid() == 0

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may run commands as another user")


def users_with_groups() -> list[str]:
    """An ordinary user, and one with supplementary groups where there is one."""
    if not IS_ROOT:
        return ["nobody"]
    ordinary = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    ordinary.sort(key=lambda entry: len(os.getgrouplist(entry.pw_name, entry.pw_gid)))
    return list(dict.fromkeys(["nobody", ordinary[-1].pw_name]))


@needs_root
@pytest.mark.parametrize("name", users_with_groups())
def test_a_command_runs_as_the_user_it_names(client: Client, name: str) -> None:
    """run as that user, with its uid, gid and supplementary groups"""
    user = pwd.getpwnam(name)
    result = client.run("id -u; id -ru; id -g; id -rg; id -G", cmdusr=name)
    assert result.err == ""
    *ids, groups = result.out.splitlines()
    assert ids == [str(user.pw_uid)] * 2 + [str(user.pw_gid)] * 2
    assert set(map(int, groups.split())) == set(os.getgrouplist(name, user.pw_gid))


@needs_root
def test_root_may_not_be_regained(client: Client) -> None:
    """run as that user: real, effective and saved ids are all its own."""
    result = client.run("grep -E '^(Uid|Gid|CapEff|CapPrm):' /proc/self/status", cmdusr="nobody")
    user = pwd.getpwnam("nobody")
    lines = {line.split()[0]: line.split()[1:] for line in result.out.splitlines()}
    assert set(lines["Uid:"]) == {str(user.pw_uid)}
    assert set(lines["Gid:"]) == {str(user.pw_gid)}
    assert {int(lines[key][0], 16) for key in ("CapEff:", "CapPrm:")} == {0}


@needs_root
def test_the_environment_is_that_users(client: Client) -> None:
    """run as that user: HOME, USER, LOGNAME are its own too."""
    user = pwd.getpwnam("nobody")
    result = client.run('echo "$HOME:$USER:$LOGNAME"', cmdusr="nobody")
    assert result.out == f"{user.pw_dir}:nobody:nobody\n"


@posix_only
@pytest.mark.parametrize("name", ["", pytest.param("nobody", marks=needs_root)])
def test_a_command_starts_in_the_users_home(client: Client, name: str) -> None:
    """run as that user: where a login would begin, or in / where there is no such place"""
    home = pwd.getpwnam(name).pw_dir if name else pwd.getpwuid(os.geteuid()).pw_dir
    expected = os.path.realpath(home) if Path(home).is_dir() else "/"
    assert client.run("pwd -P", cmdusr=name).out == f"{expected}\n"


@needs_root
def test_each_command_of_a_stream_names_its_own_user(client: Client) -> None:
    """cmdusr: run as that user; empty: as the server's own."""
    answers = client.stream(command("id -un", cmdusr=name) for name in ("nobody", "", "root"))
    assert [answer.out for answer in answers] == ["nobody\n", "root\n", "root\n"]


@posix_only
def test_without_a_name_commands_run_as_the_server(client: Client) -> None:
    """cmdusr: run as that user; empty: as the server's own."""
    result = client.run("id -u; id -g")
    assert result.out.split() == [str(os.geteuid()), str(os.getegid())]


@posix_only
@pytest.mark.parametrize("name", ["no-such-user", "0", "root ", "../root", "x" * 10_000, "ünïcödé", "a:b"])
def test_an_unknown_user_is_told(client: Client, name: str) -> None:
    """unknown user: rc 1, err is user not found: NAME"""
    result = client.run("echo not run", cmdusr=name, tid=6)
    assert (result.rc, result.out, result.err, result.tid) == (1, "", f"user not found: {name}", 6)


@posix_only
def test_a_stream_goes_on_after_an_unknown_user(client: Client) -> None:
    """unknown user: rc 1: an answer like any other."""
    answers = client.stream([command("echo 1", cmdusr="no-such-user"), command("echo 2")])
    assert [(answer.rc, answer.out) for answer in answers] == [(1, ""), (0, "2\n")]


def test_a_server_that_may_not_change_users_says_so(serve, connect) -> None:
    """server not privileged enough: rc 1 and a clear err"""
    without_setuid = ("setpriv", "--bounding-set=-setuid,-setgid") if IS_ROOT else ()
    other = "nobody" if IS_ROOT else "root"
    result = connect(serve(wrapper=without_setuid).target).run("echo not run", cmdusr=other)
    assert (result.rc, result.out) == (1, "")
    assert "not privileged" in result.err
    assert len(result.err.splitlines()) == 1


@windows_only
def test_on_windows_the_name_is_ignored(client: Client) -> None:
    """On Windows it is ignored."""
    result = client.run(COMMANDS.echo("ran"), cmdusr="no-such-user")
    assert (result.rc, result.out.strip()) == (0, "ran")
