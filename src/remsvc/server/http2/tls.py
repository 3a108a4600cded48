"""What TLS says of a connection: whether HTTP/2 is spoken, which certificate the client has shown, what it
still has to send."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from remsvc.server.authentication import ShownCertificate

PROTOCOL = "h2"


def speaks_http2(tls: ssl.SSLObject) -> bool:
    """Whether both sides have agreed on HTTP/2; who does not ask for it gets nothing else."""
    return tls.selected_alpn_protocol() == PROTOCOL


def client_certificate(tls: ssl.SSLObject) -> ShownCertificate:
    """The client's certificate, which TLS has checked, and the chain that came with it."""
    der = tls.getpeercert(binary_form=True)
    if der is None:
        return ShownCertificate.of(None)
    return ShownCertificate.of(_pem(der), b"".join(map(_pem, _chain(tls))))


def unsent_below(transport: asyncio.Transport) -> int:
    """Bytes that are encrypted already and were not taken by the peer.

    asyncio leaves them out of what it says of a transport for TLS, and they can be megabytes. Where the
    transport below it is, is not documented.
    """
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return below.get_write_buffer_size() if below is not None else 0


def _pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()


def _chain(tls: Any) -> list[bytes]:
    if hasattr(tls, "get_unverified_chain"):  # Python 3.13
        return list(tls.get_unverified_chain() or ())
    # Before, it is there, and not documented.
    import _ssl

    return [
        certificate.public_bytes(_ssl.ENCODING_DER)
        for certificate in tls._sslobj.get_unverified_chain() or ()
    ]
