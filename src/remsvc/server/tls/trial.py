"""A handshake in memory: that certificate and key can be loaded does not mean that TLS can use them."""

from __future__ import annotations

import ssl

_MOST_STEPS = 10


def handshake_fault(server: ssl.SSLContext) -> str | None:
    """Why no client gets through a handshake with this context, which must not ask for certificates yet.

    None where one does that takes whatever certificate it is shown.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(_MOST_STEPS):
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return error.reason or str(error)
            sides.remove(side)
        if not sides:
            return None
    return "it does not end"
