"""What it costs to carry a call: the server's processor time for an empty one, on each transport.

A ``Ping`` is authenticated, admitted, answered and nothing else. It is made by gRPC's asyncio client, one
after another and by 32 callers over one connection; the processor time of all threads of the server's process
is read before and after, so the client's own need of a core does not count. The same client has ``true`` run,
which says what is left of the difference where a call does something. Then ``h2load``, which takes next to no
time itself, makes as many calls as the server answers; where it is not installed, that row says so.
"""

from __future__ import annotations

import asyncio
import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.rows import Measurement, Rounds, Row
from benchmarks.server import Server
from benchmarks.settings import Settings
from remsvc.client import protocol
from remsvc.command import Command

GROUP = "transport"
_TRANSPORTS = {"http2": "HTTP/2", "grpc": "gRPC's server"}
_SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\0\x04\1\0\0\0\0"
_WARM_UP = 300
_UNIT = "µs of CPU"


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    rounds = Rounds(GROUP, settings.rounds)
    with ExitStack() as stack:
        servers = {
            (transport, secured): stack.enter_context(
                Server(
                    settings,
                    f"transport-{transport}",
                    secured=secured,
                    server_keys=f"transport = {transport}",
                    config="[limits]\nmax_connections = 20000\ncall_rate = 1000000/s\n",
                )
            )
            for transport in reversed(_TRANSPORTS)
            for secured in (False, True)
        }
        for callers, most in ((1, 1 / 3), (32, 1 / 6)):
            _add_cpu(rounds, settings, servers, callers, most)
        for callers, least in ((1, 1.12), (32, 1.3)):
            _add_commands(rounds, settings, servers, callers, least)
        _add_h2load(rounds, settings, servers)
        _add_idle(rounds, settings, servers)
        return rounds.run()


def _add_cpu(
    rounds: Rounds, settings: Settings, servers: dict[tuple[str, bool], Server], callers: int, most: float
) -> None:
    what = "one after another" if callers == 1 else f"{callers} callers"
    number = settings.amount(4000, 1500)
    name = f"empty call, {what}"
    grpcs, secured_end = f"{name}: gRPC's server", ", TLS and token"
    for (transport, secured), server in servers.items():
        if transport == "grpc":
            row = Row(GROUP, grpcs + secured_end * secured, _UNIT)
        elif secured:
            row = _at_most(name + secured_end, name, 1.25)
        else:
            row = _at_most(name, grpcs, most)
        rounds.add(_cpu(server, number, callers), row)


def _at_most(name: str, reference: str, most: float) -> Row:
    return Row(GROUP, name, _UNIT, reference=reference, target=most, target_is="at most", of_ratio=True)


def _cpu(server: Server, number: int, callers: int) -> Measurement:
    async def calls() -> float:
        async with server.async_channel() as channel:
            ping: Callable[..., object] = channel.unary_unary(protocol.PING)
            request, metadata = protocol.encode_ping(), server.metadata

            async def caller(count: int) -> None:
                for _ in range(count):
                    await ping(request, metadata=metadata)  # type: ignore[misc]

            await caller(_WARM_UP)
            before = server.own_cpu_seconds()
            await asyncio.gather(*(caller(number // callers) for _ in range(callers)))
            return (server.own_cpu_seconds() - before) / (number // callers * callers) * 1e6

    return lambda: asyncio.run(calls())


def _add_commands(
    rounds: Rounds, settings: Settings, servers: dict[tuple[str, bool], Server], callers: int, least: float
) -> None:
    name = "true, one after another" if callers == 1 else f"true, {callers} unary callers"
    number = settings.amount(1000, 320)
    grpcs = Row(GROUP, f"{name}: gRPC's server", "/s")
    rounds.add(_rate(servers["grpc", False], number, callers), grpcs)
    row = Row(GROUP, name, "/s", reference=grpcs.name, target=least, of_ratio=True)
    rounds.add(_rate(servers["http2", False], number, callers), row)


def _rate(server: Server, number: int, callers: int) -> Measurement:
    async def calls() -> float:
        async with server.async_channel() as channel:
            run: Callable[..., object] = channel.unary_unary(protocol.RUN)
            request, metadata = protocol.encode_command(Command("true"), 1), server.metadata

            async def caller(count: int) -> None:
                for _ in range(count):
                    await run(request, metadata=metadata)  # type: ignore[misc]

            await asyncio.gather(*(caller(2) for _ in range(callers)))
            started = time.perf_counter()
            await asyncio.gather(*(caller(number // callers) for _ in range(callers)))
            return number // callers * callers / (time.perf_counter() - started)

    return lambda: asyncio.run(calls())


def _add_h2load(rounds: Rounds, settings: Settings, servers: dict[tuple[str, bool], Server]) -> None:
    rows = {
        "grpc": Row(GROUP, "Ping by h2load: gRPC's server", "/s"),
        "http2": Row(
            GROUP,
            "Ping by h2load",
            "/s",
            reference="Ping by h2load: gRPC's server",
            target=3.5,
            of_ratio=True,
        ),
    }
    if shutil.which("h2load") is None:
        rounds.leave_out("h2load is not installed (apt-get install nghttp2-client)", *rows.values())
        return
    number = settings.amount(40_000, 10_000)
    body = settings.folder / "ping"
    body.write_bytes(b"\0\0\0\0\2\x08\7")
    for transport, row in rows.items():
        server = servers[transport, False]
        command = ["h2load", "-n", str(number), "-c", "10", "-m", "20", "-t", "1", "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]

        def measurement(command: list[str] = command, server: Server = server) -> float:
            url = f"http://{server.options.target}{protocol.PING}"
            result = subprocess.run(
                [*command, url], stdout=subprocess.PIPE, text=True, timeout=60, check=True
            )
            if f"{number} succeeded" not in result.stdout:
                raise RuntimeError(result.stdout)
            rate = re.search(r"([\d.]+) req/s", result.stdout)
            assert rate is not None
            return float(rate[1])

        rounds.add(measurement, row)


def _add_idle(rounds: Rounds, settings: Settings, servers: dict[tuple[str, bool], Server]) -> None:
    number = settings.amount(10_000, 500)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket each, in this process as well
    for transport in reversed(_TRANSPORTS):
        end = "" if transport == "http2" else ": gRPC's server"
        memory = Row(GROUP, f"an idle connection, of {number:,}{end}", "kB")
        rounds.add(_idle(servers[transport, False], number), memory)


def _idle(server: Server, number: int) -> Measurement:
    def measurement() -> float:
        host, _, port = server.options.target.rpartition(":")
        with ExitStack() as stack:
            before = server.pss().server
            for _ in range(number):
                peer = stack.enter_context(socket.create_connection((host, int(port)), 10))
                peer.sendall(_SETTINGS)
                peer.recv(1)
            time.sleep(0.2)
            return (server.pss().server - before) * 1000 / number

    return measurement
