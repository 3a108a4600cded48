"""One ``true`` after another, against OpenSSH: commands per second, and how long one takes.

The server is Debian's ``sshd`` on a port of its own, with key authentication; ours has TLS and a token,
because SSH encrypts as well (and, for comparison, neither). Who is compared with whom:

- ``ssh``, a connection and a process for each command, with ``remsvc run``, which is the same;
- ``ssh`` through the open connection of a ControlMaster, which still is a process for each command, with
  our blocking client on an open connection, which is none: part of that ratio is what a process costs;
- ``asyncssh`` on an open connection with our asyncio client on one: neither starts a process, and both are
  Python.

``sshd`` starts the user's login shell for each command, ours starts ``/bin/sh``. A bash that ``sshd`` starts
reads ``~/.bashrc`` first; that is switched off here, in favour of SSH.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import openssh
from benchmarks.openssh import OpenSSH
from benchmarks.rows import Rounds, Row, empty_rows, percentile
from benchmarks.server import Server
from benchmarks.settings import Settings
from remsvc.client import AsyncClient, Client
from remsvc.client.results import CommandResult
from remsvc.command import Command

GROUP = "ssh"
PROCESS_EACH = "ssh, a connection each"
MASTER = "ssh, warm ControlMaster"
ASYNCSSH = "asyncssh, warm connection"

_TRUE = Command("true")
_PERCENTILES = (50.0, 99.0)
_MASTER_SECONDS = 20.0

_ROWS = (
    Row(GROUP, PROCESS_EACH, "/s"),
    Row(GROUP, "remsvc run, a connection each", "/s", reference=PROCESS_EACH),
    Row(GROUP, MASTER, "/s", note="a process each"),
    Row(GROUP, "our client, warm connection", "/s", reference=MASTER, target=5.0, of_ratio=True),
    Row(GROUP, "our client, warm connection, plaintext", "/s", reference=MASTER),
    Row(GROUP, ASYNCSSH, "/s"),
    Row(GROUP, "our asyncio client, warm connection", "/s", reference=ASYNCSSH, target=2.0, of_ratio=True),
    Row(GROUP, "our asyncio client, warm connection, plaintext", "/s", reference=ASYNCSSH),
)

Work = Callable[[int], list[float]]
"""Runs so many commands, one after another; the seconds that each took. Raises where one fails."""


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    if why := openssh.missing():
        return empty_rows(_ROWS, why)
    rounds = Rounds(GROUP, settings.rounds)
    with ExitStack() as stack:
        # Not in the run's own folder: a socket lies in it, whose path must be short.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="remsvc-ssh-"))
        ssh = stack.enter_context(OpenSSH(Path(folder)))
        secured = stack.enter_context(Server(settings, "ssh", secured=True))
        plain = stack.enter_context(Server(settings, "ssh-plain"))
        stack.enter_context(_master(ssh))
        loop = stack.enter_context(_event_loop())
        works: tuple[tuple[Work, int], ...] = (
            (_process(ssh.ssh("-o", "ControlPath=none", "benchmark", "true")), settings.amount(30, 10)),
            (_process(secured.run_true), settings.amount(30, 10)),
            (_process(ssh.ssh("benchmark", "true")), settings.amount(200, 50)),
            (_client(stack, secured), settings.amount(1000, 200)),
            (_client(stack, plain), settings.amount(1000, 200)),
            (_asyncssh(stack, loop, ssh), settings.amount(400, 100)),
            (_async_client(stack, loop, secured), settings.amount(1000, 200)),
            (_async_client(stack, loop, plain), settings.amount(1000, 200)),
        )
        for row, (work, count) in zip(_ROWS, works, strict=True):
            _add(rounds, row, work, count)
        return rounds.run()


def _add(rounds: Rounds, row: Row, work: Work, count: int) -> None:
    """Commands per second, and percentiles of what single ones took."""
    names = {percent: f"{row.name}: p{percent:g}" for percent in _PERCENTILES}

    def figures() -> dict[str, float]:
        work(1)
        started = time.perf_counter()
        taken = work(count)
        rate = count / (time.perf_counter() - started)
        return {row.name: rate} | {name: percentile(taken, at) * 1000 for at, name in names.items()}

    note = f"of {count} commands a round"
    rounds.add(figures, row, *(Row(GROUP, name, "ms", note=note) for name in names.values()))


def _blocking(run: Callable[[], object]) -> Work:
    def work(count: int) -> list[float]:
        taken = []
        for _ in range(count):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
        return taken

    return work


def _in(loop: asyncio.AbstractEventLoop, run: Callable[[], Awaitable[object]]) -> Work:
    async def work(count: int) -> list[float]:
        taken = []
        for _ in range(count):
            started = time.perf_counter()
            await run()
            taken.append(time.perf_counter() - started)
        return taken

    return lambda count: loop.run_until_complete(work(count))


def _process(command: list[str]) -> Work:
    """A new process for each command, whose output is read."""

    def run() -> None:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if ended.returncode != 0:
            raise RuntimeError(f"{command[0]} ended with {ended.returncode}: {ended.stderr.decode()}")

    return _blocking(run)


@contextmanager
def _master(ssh: OpenSSH) -> Iterator[None]:
    """The process that holds the open connection of ``ssh``."""
    master = subprocess.Popen(ssh.ssh("-M", "-N", "benchmark"), stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _MASTER_SECONDS
        check = ssh.ssh("-O", "check", "benchmark")
        while subprocess.run(check, capture_output=True, check=False).returncode != 0:
            if time.monotonic() > deadline or master.poll() is not None:
                raise RuntimeError("ssh made no ControlMaster")
            time.sleep(0.05)
        yield
    finally:
        master.terminate()
        master.wait()


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        loop.close()


def _client(stack: ExitStack, server: Server) -> Work:
    client = stack.enter_context(Client(server.options))
    return _blocking(lambda: _check(client.run(_TRUE)))


def _async_client(stack: ExitStack, loop: asyncio.AbstractEventLoop, server: Server) -> Work:
    async def opened() -> AsyncClient:
        return AsyncClient(server.options)

    client = loop.run_until_complete(opened())
    stack.callback(lambda: loop.run_until_complete(client.close()))

    async def run() -> None:
        _check(await client.run(_TRUE))

    return _in(loop, run)


def _check(result: CommandResult) -> None:
    if result.rc != 0:
        raise RuntimeError(f"a command ended with {result.rc}: {result.err}")


def _asyncssh(stack: ExitStack, loop: asyncio.AbstractEventLoop, ssh: OpenSSH) -> Work:
    import asyncssh

    asyncssh.set_log_level(logging.WARNING)  # else it tells of each command, where somebody listens
    connection: Any = loop.run_until_complete(
        asyncssh.connect(
            "127.0.0.1",
            ssh.port,
            username=ssh.user,
            client_keys=[str(ssh.key)],
            known_hosts=str(ssh.known_hosts),
            config=None,
            agent_path=None,
        )
    )

    async def close() -> None:
        connection.close()
        await connection.wait_closed()

    stack.callback(lambda: loop.run_until_complete(close()))
    return _in(loop, lambda: connection.run("true", check=True))
