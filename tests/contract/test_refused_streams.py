"""A stream that is refused while its caller is still sending: the caller learns the true reason.

As seen by ``grpc.aio``, with which the published provider sends its lists of commands: it takes a
status that comes while it sends for an error of its own, ``INTERNAL``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.conftest import DEADLINE, ServerProcess

from . import wire
from .client import bearer, command
from .commands import posix_only
from .waiting import wait_until

pytestmark = [pytest.mark.timeout(300), posix_only]

RUNS, AT_ONCE = 200, 10
DENIED = "PERMISSION_DENIED: command denied by denylist (rule 1)"
CONFIG = """
[server]
port = 0
[auth]
etl = right
[denylist]
1 = forbidden
[limits]
failed_authentications = 1000000/s
"""


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., ServerProcess]) -> ServerProcess:
    return serve_module(CONFIG)


async def refused_stream(target: str, token: str, texts: Sequence[str], *, half_closes: bool = True) -> str:
    """How a stream ends whose commands are sent one after another, as the published provider sends them."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        method: Any = channel.stream_stream(
            wire.METHODS["RemCmdStrm"].path("RemCmdStrm"),
            request_serializer=wire.message("RemCmdMsg").SerializeToString,
            response_deserializer=wire.message("RemResMsg").FromString,
        )

        async def commands() -> AsyncIterator[Any]:
            for tid, text in enumerate(texts, 1):
                yield command(text, tid=tid)
            if not half_closes:
                await asyncio.sleep(DEADLINE)

        try:
            async for _ in method(commands(), metadata=bearer(token), timeout=DEADLINE):
                pass
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    return "OK"


async def refused_streams(target: str, token: str, texts: Sequence[str]) -> Counter[str]:
    endings: Counter[str] = Counter()

    async def some() -> None:
        for _ in range(RUNS // AT_ONCE):
            endings[await refused_stream(target, token, texts)] += 1

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return endings


@pytest.mark.parametrize(
    ("token", "texts", "ending"),
    [
        ("wrong", ["true"] * 5, "UNAUTHENTICATED: invalid bearer token"),
        ("right", ["forbidden", *["true"] * 5], DENIED),
        ("right", ["true", "true", "forbidden", "true"], DENIED),
        ("right", [f"forbidden {'x' * 20_000}"] * 6, DENIED),
    ],
    ids=["a wrong token", "the first command", "the third command", "long commands"],
)
def test_the_reason_is_told(server: ServerProcess, token: str, texts: list[str], ending: str) -> None:
    assert asyncio.run(refused_streams(server.target, token, texts)) == {ending: RUNS}


@pytest.mark.parametrize("token", ["wrong", "right"])
def test_it_is_told_as_well_to_who_does_not_end_its_side(server: ServerProcess, token: str) -> None:
    ending = asyncio.run(refused_stream(server.target, token, ["forbidden"], half_closes=False))
    assert ending.partition(":")[0] in ("UNAUTHENTICATED", "PERMISSION_DENIED")


def test_it_is_told_as_well_when_the_server_ends(serve: Callable[..., ServerProcess]) -> None:
    """Also in the moment in which the reason is held back for a caller that may be sending."""
    for _ in range(5):
        server = serve(CONFIG)

        async def ends(server: ServerProcess = server) -> str:
            stream = asyncio.ensure_future(
                refused_stream(server.target, "right", ["forbidden"], half_closes=False)
            )
            await asyncio.to_thread(wait_until, lambda: "command refused" in server.log, "the refusal")
            server.process.terminate()
            return await stream

        assert asyncio.run(ends()).startswith("PERMISSION_DENIED")
        assert server.process.wait(DEADLINE) == 0
