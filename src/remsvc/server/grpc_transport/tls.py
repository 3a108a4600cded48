"""The server's TLS credentials in gRPC's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from remsvc.server.tls.config import TlsConfig


def server_credentials(current: Callable[[], TlsConfig | None]) -> grpc.ServerCredentials | None:
    """Credentials with which each new connection is made as ``current`` says then; None for plaintext.

    Whether there are client authorities is fixed with the first configuration.
    """
    first = given = current()
    if first is None:
        return None

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # In a thread of gRPC's, before each handshake. None: nothing new.
        nonlocal given
        now = current()
        if now is given or now is None:
            return None
        form = _grpc_form(now)
        given = now
        return form

    fetch_any: Any = fetch  # the stubs do not know of None
    return grpc.dynamic_ssl_server_credentials(
        _grpc_form(first), fetch_any, require_client_authentication=first.ca is not None
    )


def _grpc_form(config: TlsConfig) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(config.key, config.cert)], config.ca)
