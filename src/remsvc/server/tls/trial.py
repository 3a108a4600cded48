"""Tries a certificate and its key in a handshake, in memory.

That OpenSSL can load them does not mean that a handshake with them succeeds.
"""

from __future__ import annotations

import ssl

_MOST_STEPS = 10


def handshake_fault(server: ssl.SSLContext) -> str | None:
    """Why every handshake with this context fails; None where one succeeds.

    The client in it accepts any certificate. The context must not ask clients for certificates yet.
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
