"""Commands that mean to outlive their end, or to spoil another's, without and with control groups."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from remsvc.execution.engine import Engine, Process, ProcessSpec
from remsvc.execution.posix import PosixEngine
from remsvc.execution.supervisor.cgroup import GroupParent, find_parent
from remsvc.execution.supervisor.protocol import Credentials
from tests.execution.processes import eventually, processes_with

NOBODY = Credentials(65534, 65534, (65534,))
OTHER = Credentials(65533, 65533, (65533,))

# Clears the mark of its environment, leaves its session, outputs and parent, and changes what limit it can.
ESCAPE = """
import os, resource, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
resource.setrlimit(resource.RLIMIT_RTTIME, (123456, resource.getrlimit(resource.RLIMIT_RTTIME)[1]))
null = os.open("/dev/null", os.O_RDWR)
for number in range(3): os.dup2(null, number)
os.execve("/bin/sleep", ["sleep", sys.argv[1]], {})
"""

# Each link forks the next one and ends, in a session of its own and with nothing that marks it. Each leaves
# a byte in a file.
CHAIN = r"""
#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
extern char **environ;
int main(int count, char **arguments) {
    if (count == 2) {
        char *next[] = {arguments[0], arguments[1], "chain", 0}, *nothing[] = {0};
        execve(arguments[0], next, nothing);
    }
    int trace = open(arguments[1], O_WRONLY | O_CREAT | O_APPEND, 0666);
    for (int number = 0; number < 3; number++) close(number);
    struct rlimit limit;
    getrlimit(RLIMIT_RTTIME, &limit);
    limit.rlim_cur = 123456;
    setrlimit(RLIMIT_RTTIME, &limit);
    for (time_t ends = time(0) + 90; time(0) < ends;) { // for whoever kills the test
        pid_t child = fork();
        if (child > 0) _exit(0);
        if (child == 0) { setsid(); write(trace, "x", 1); }
    }
    _exit(0);
}
"""

Start = Callable[..., Process]


@pytest.fixture(params=["parentage", "cgroup"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[PosixEngine]:
    groups: GroupParent | None = None
    if request.param == "cgroup" and (groups := find_parent("")) is None:
        pytest.skip("no control groups can be had here")
    engine = PosixEngine(groups=groups)
    await engine.open()
    assert engine.trees == request.param
    yield engine
    await engine.close()


@pytest.fixture
def start(engine: Engine) -> Start:
    numbers = iter(range(1000))

    def start(*argv: str, user: Credentials | None = None, time_limit: float | None = None) -> Process:
        env = {"PATH": os.environ["PATH"], "REMSVC_COMMAND_ID": f"hostile-{os.getpid()}-{next(numbers)}"}
        return engine.start(ProcessSpec(argv, env, "/", user, time_limit))

    return start


def escaping(duration: str) -> tuple[str, ...]:
    text = f"{sys.executable} -c '{ESCAPE}' {duration}; sleep {duration}"
    return ("/bin/sh", "-c", text)


@dataclass(frozen=True)
class Chain:
    """Starts a chain of forks, and sees whether it goes on."""

    folder: Path

    def command(self, duration: str) -> tuple[str, ...]:
        return ("/bin/sh", "-c", f"{self.folder}/chain {self.folder}/{duration} & sleep 1000")

    def links(self, duration: str) -> int:
        trace = self.folder / duration
        return trace.stat().st_size if trace.exists() else 0


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: nothing else forks quickly enough")
    with tempfile.TemporaryDirectory() as name:  # which others can get into, unlike pytest's
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "chain.c").write_text(CHAIN)
        subprocess.run([compiler, "-O2", "-o", folder / "chain", folder / "chain.c"], check=True)
        (folder / "chain").chmod(0o755)
        yield Chain(folder)


async def test_one_that_left_everything_behind_is_ended_with_its_command(start: Start, duration: str) -> None:
    process = start(*escaping(duration))
    await eventually(lambda: len(processes_with(duration)) == 2, "it has escaped")
    process.end()
    await asyncio.wait_for(process.wait(), 30)
    assert not processes_with(duration)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start commands as others")
async def test_another_users_command_does_not_hinder_that(start: Start, duration: str) -> None:
    other = start("/bin/sleep", f"1{duration}", user=OTHER)
    process = start(
        "/bin/sh",
        "-c",
        f"(env -i setsid sleep {duration} </dev/null >/dev/null 2>&1 &) ; sleep {duration}",
        user=NOBODY,
    )
    await eventually(lambda: len(processes_with(duration)) == 2, "it has escaped")
    process.end()
    await asyncio.wait_for(process.wait(), 30)
    assert not processes_with(duration)
    assert processes_with(f"1{duration}")
    other.end()
    await other.wait()


async def test_a_command_of_the_same_user_keeps_what_it_left_behind(start: Start, duration: str) -> None:
    """Without groups, nothing tells whose it is: then it is left alone."""
    other = start(
        "/bin/sh", "-c", f"(env -i setsid sleep {duration} </dev/null >/dev/null 2>&1 &) ; sleep 1{duration}"
    )
    await eventually(lambda: processes_with(duration), "it has left something behind")
    process = start("/bin/sleep", f"2{duration}")
    process.end()
    await asyncio.wait_for(process.wait(), 30)
    assert len(processes_with(duration)) == 1
    other.end()
    await asyncio.wait_for(other.wait(), 30)
    await asyncio.sleep(0)
    for pid in processes_with(duration):
        os.kill(pid, 9)


async def test_what_was_there_before_a_command_is_not_ended_with_it(start: Start, duration: str) -> None:
    before = start("/bin/sh", "-c", f"env -i setsid sleep {duration} </dev/null >/dev/null 2>&1 &")
    await before.wait()
    await eventually(lambda: processes_with(duration), "it has left something behind")
    await asyncio.sleep(0.05)  # start times are in hundredths of a second
    process = start("/bin/sleep", f"2{duration}")
    process.end()
    await asyncio.wait_for(process.wait(), 30)
    (pid,) = processes_with(duration)
    os.kill(pid, 9)


@pytest.mark.parametrize("user", [None, NOBODY], ids=["own", "another"])
async def test_a_chain_of_forks_is_caught(
    start: Start, chain: Chain, duration: str, user: Credentials | None
) -> None:
    if user is not None and os.geteuid() != 0:
        pytest.skip("only root can start commands as others")
    process = start(*chain.command(duration), user=user)
    await eventually(lambda: chain.links(duration) > 100, "it forks")
    process.end()
    await asyncio.wait_for(process.wait(), 30)
    links = chain.links(duration)
    await asyncio.sleep(0.1)
    assert chain.links(duration) == links, "it goes on"


async def test_a_crowd_that_is_ended_holds_up_nobody(start: Start, duration: str) -> None:
    crowd = start(
        "/bin/sh", "-c", f"n=0; while [ $n -lt 2000 ]; do n=$((n+1)); setsid sleep {duration} & done; wait"
    )
    await eventually(lambda: len(processes_with(duration)) == 2000, "all of it runs")
    crowd.end()
    ended = asyncio.ensure_future(crowd.wait())
    served = 0
    while not ended.done():
        await start("/bin/true").wait()
        served += 1
    await ended
    assert not processes_with(duration)
    assert served > 5, "others had turns meanwhile"
