"""Tries a certificate and its key in a handshake with gRPC's own library.

That library uses BoringSSL, which supports less than OpenSSL: a server could start, and then serve nobody.
The trial has a process of its own, because gRPC cannot be unloaded again, and the configuration is also
read by servers that do without it.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

_SECONDS = 30.0
_CHILD = (
    "import json, sys; given = json.load(sys.stdin); sys.path[:] = given['path']; "
    "from remsvc.server.tls import grpc_trial; print(json.dumps(grpc_trial.tried(given)))"
)


class UntriedError(Exception):
    """The trial itself has failed; the text says why."""


@lru_cache(4)
def grpc_fault(cert: bytes, key: bytes, ca: bytes | None) -> tuple[str, str] | None:
    """Which file gRPC cannot use, ``cert`` or ``ca``, and why; None where a handshake succeeds.

    Raises:
        UntriedError: nothing is known, because the trial failed.
    """
    files = {"cert": cert, "key": key, "ca": ca or b""}
    given = {name: base64.b64encode(content).decode() for name, content in files.items()}
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-c", _CHILD],
            input=json.dumps({**given, "path": sys.path}),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
        found = json.loads(child.stdout)
    except subprocess.TimeoutExpired:
        raise UntriedError(f"it did not end within {_SECONDS:g} s") from None
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise UntriedError(str(error)) from error
    return None if found is None else (found[0], found[1])


def tried(given: dict[str, Any]) -> tuple[str, str] | None:
    """What :func:`grpc_fault` returns, found in the process of the trial; ``given``: the files in Base64."""
    import grpc

    cert, key, ca = (base64.b64decode(given[name]) for name in ("cert", "key", "ca"))
    server = grpc.server(ThreadPoolExecutor(1))
    try:
        port = _listen(server, grpc.ssl_server_credentials([(key, cert)]))
    except RuntimeError:
        return "cert", "it does not load certificate and key"
    if ca:
        try:
            _listen(server, grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True))
        except RuntimeError:
            return "ca", "it does not load these certificates"
    server.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection(("127.0.0.1", port), _SECONDS) as plain, context.wrap_socket(plain):
            return None
    except OSError as error:
        return "cert", getattr(error, "reason", None) or "it ends the handshake"
    finally:
        server.stop(None).wait(_SECONDS)


def _listen(server: Any, credentials: Any) -> int:
    """Listen on the loopback interface; the port.

    Raises:
        RuntimeError: gRPC does not accept the credentials.
        OSError: nothing can listen there, whatever the credentials.
    """
    socket.create_server(("127.0.0.1", 0)).close()  # fails where it is not the credentials' fault
    return int(server.add_secure_port("127.0.0.1:0", credentials))
