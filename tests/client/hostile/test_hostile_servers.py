"""A hostile server harms only its own calls, whatever it answers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from remsvc.client import ConnectionOptions
from remsvc.command import Command
from remsvc.errors import RemSvcError
from tests.client.conftest import Connect
from tests.conftest import Serve

from .answers import FLOODS, KINDS
from .neighbours import beside, hostile_servers

TIMEOUT = 0.5
# Where nobody else is looked at: many of the servers never answer, and each call waits so long for that.
SHORT_TIMEOUT = 0.2
# Of a machine that is busy with other tests; benchmarks/hostile_server.py measures what it really is.
GENEROUS = 1.0
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def hostile() -> Iterator[dict[str, str]]:
    with hostile_servers() as targets:
        yield targets


@pytest.fixture(scope="module")
def good_target(serve_module: Serve) -> str:
    return serve_module().target


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_else_notices(hostile: dict[str, str], good_target: str, kind: str) -> None:
    options = ConnectionOptions(hostile[kind], transport="http2", keepalive=0.5)
    noticed = await beside(options, ConnectionOptions(good_target, transport="http2"), TIMEOUT)
    assert all(noticed.errors), noticed.errors
    assert noticed.took < TIMEOUT + 10, "the calls went on after their time was up"
    assert noticed.calls > 0
    assert noticed.longest_wait < GENEROUS
    assert noticed.lag < GENEROUS
    for error in noticed.errors:
        assert not _CONTROLS.search(error), error


@pytest.mark.parametrize("kind", KINDS)
def test_every_client_tells_in_one_line_that_it_failed(
    hostile: dict[str, str], connect: Connect, kind: str, transport: str
) -> None:
    if transport == "grpc" and kind in FLOODS:
        pytest.skip("gRPC is known to stand them, and takes up to 20 s to close")
    with connect(ConnectionOptions(hostile[kind])) as client:
        for call in (
            lambda: client.ping(timeout=SHORT_TIMEOUT),
            lambda: client.run(Command("true"), timeout=SHORT_TIMEOUT),
        ):
            with pytest.raises(RemSvcError) as caught:
                call()
            assert not _CONTROLS.search(str(caught.value))
