"""Starting and idling: how soon a server answers, and what it takes while nobody asks for anything.

Start-up is from the start of the process to the answer of its first ``Ping`` over a new connection, with a
state directory that has never been used. References: the same interpreter doing nothing, and importing gRPC
alone. Beside them stands ``remsvc run -- true``, a process of its own with a connection of its own, on a
server that is there: most of its time, too, is loading. Then a server is left alone: after two seconds what
is resident of it and of its supervisors is read (PSS: a page that both have counts half for each), and the
processor time that they take in the five seconds that follow.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

from benchmarks.rows import Measurement, Rounds, Row
from benchmarks.server import Server
from benchmarks.settings import Settings
from remsvc.client import Client

GROUP = "startup"
_PYTHON, _GRPC = "Python doing nothing", "Python importing gRPC"
_MOST_MS, _MOST_MB = 400.0, 37.0
_SETTLE_SECONDS, _IDLE_SECONDS = 2.0, 5.0


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    rounds = Rounds(GROUP, settings.rounds)
    rounds.add(_run("pass"), Row(GROUP, _PYTHON, "ms"))
    rounds.add(_run("import grpc, grpc.aio"), Row(GROUP, _GRPC, "ms"))
    for name, secured in (("plaintext", False), ("TLS and token", True)):
        row = Row(
            GROUP,
            f"start-up to first answer, {name}",
            "ms",
            reference=_GRPC,
            target=_MOST_MS,
            target_is="at most",
        )
        rounds.add(_start(settings, secured), row)
    row = Row(GROUP, "start-up to first answer, plaintext, gRPC's server", "ms", reference=_GRPC)
    rounds.add(_start(settings, False, "transport = grpc"), row)
    for name, secured in (("plaintext", False), ("TLS and token", True)):
        run = Row(GROUP, f"remsvc run -- true, {name}", "ms", reference=_GRPC)
        cpu = Row(GROUP, f"remsvc run -- true, {name}: CPU", "ms")
        rounds.add(_run_true(settings, secured, run, cpu), run, cpu)
    idle = Rounds(GROUP, settings.amount(2, 1))
    for name, secured in (("plaintext", False), ("TLS and token", True)):
        memory, server, supervisors = (
            Row(GROUP, f"idle memory, {name}", "MB", target=_MOST_MB, target_is="at most"),
            Row(GROUP, f"idle memory, {name}: the server's", "MB"),
            Row(GROUP, f"idle memory, {name}: the supervisors'", "MB"),
        )
        cpu = Row(GROUP, f"idle CPU, {name}", "ms/s")
        idle.add(
            _idle(settings, secured, memory, server, supervisors, cpu),
            memory,
            server,
            supervisors,
            cpu,
        )
    return [*rounds.run(), *idle.run()]


def _run(program: str) -> Measurement:
    def measurement() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
        return (time.perf_counter() - started) * 1000

    return measurement


def _start(settings: Settings, secured: bool, server_keys: str = "") -> Measurement:
    def measurement() -> float:
        # Certificates are made here, before.
        server = Server(settings, "start", secured=secured, server_keys=server_keys)
        started = time.perf_counter()
        with server, Client(server.options) as client:
            client.ping()
            return (time.perf_counter() - started) * 1000

    return measurement


def _run_true(settings: Settings, secured: bool, run: Row, cpu: Row) -> Measurement:
    def measurement() -> dict[str, float]:
        with Server(settings, "run", secured=secured) as server:
            # As where it is installed: with the modules' bytecode, which the first time writes.
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
            subprocess.run(server.run_true, env=environment, check=True, timeout=30)
            cpu_before, started = _childrens_cpu(), time.perf_counter()
            subprocess.run(server.run_true, env=environment, check=True, timeout=30)
            took, taken = time.perf_counter() - started, _childrens_cpu() - cpu_before
        return {run.name: took * 1000, cpu.name: taken * 1000}

    return measurement


def _childrens_cpu() -> float:
    """Seconds that the processes took that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _idle(
    settings: Settings, secured: bool, memory: Row, server: Row, supervisors: Row, cpu: Row
) -> Measurement:
    def measurement() -> dict[str, float]:
        with Server(settings, "idle", secured=secured) as running:
            with Client(running.options) as client:
                client.ping()
            time.sleep(_SETTLE_SECONDS)
            found, before = running.pss(), running.cpu_seconds()
            time.sleep(_IDLE_SECONDS)
            taken = (running.cpu_seconds() - before) * 1000 / _IDLE_SECONDS
        return {
            memory.name: found.total,
            server.name: found.server,
            supervisors.name: found.supervisors,
            cpu.name: taken,
        }

    return measurement
