"""What waits below TLS to be taken, which asyncio keeps where no documentation says: in every Python."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from remsvc.server.http2.tls import unsent_below
from tests.conftest import DEADLINE
from tests.contract.certificates import Authority

_MUCH = 32 * 1024 * 1024
_KERNEL_HOLDS = 16 * 1024 * 1024


class _Server(asyncio.Protocol):
    def __init__(self) -> None:
        self.made = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.set_result(transport)


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.left = _MUCH
        self.all_here = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.left -= len(data)
        if not self.left:
            self.all_here.set_result(None)


async def test_what_a_peer_does_not_take_is_counted_until_it_does(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    identity = authority.issue("server")
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(identity.certificate, identity.key)
    of_client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    of_client.load_verify_locations(authority.certificate)
    loop = asyncio.get_running_loop()
    server, client = _Server(), _Client()
    listening = await loop.create_server(lambda: server, "127.0.0.1", 0, ssl=of_server)
    port = listening.sockets[0].getsockname()[1]
    taking, _ = await loop.create_connection(
        lambda: client, "127.0.0.1", port, ssl=of_client, server_hostname="127.0.0.1"
    )
    giving = await asyncio.wait_for(server.made, DEADLINE)
    try:
        taking.pause_reading()
        assert unsent_below(giving) == 0
        giving.write(bytes(_MUCH))
        assert unsent_below(giving) > _MUCH - _KERNEL_HOLDS
        taking.resume_reading()
        await asyncio.wait_for(client.all_here, DEADLINE)
        assert unsent_below(giving) == 0
    finally:
        taking.abort()
        giving.abort()
        listening.close()
        await listening.wait_closed()
