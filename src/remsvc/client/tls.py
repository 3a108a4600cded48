"""Reads and checks the PEM files for TLS: the authorities to trust, and the client's certificate and key.

Both transports need them. They are checked before connecting, because an error that comes up only while
connecting names neither the file at fault nor the reason.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import NamedTuple

from remsvc.client.options import ConnectionOptions
from remsvc.errors import ConfigurationError

_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class ClientPair(NamedTuple):
    """The files of a client's certificate, in PEM form."""

    chain: bytes
    key: bytes


def trusted_authorities(options: ConnectionOptions) -> bytes | None:
    """The authorities to trust, in PEM form; None where the transport has to know them by itself.

    Raises:
        ConfigurationError: a file cannot be read or used; naming option, file and fault.
    """
    return _system_roots() if options.ca_cert is None else _authorities(options.ca_cert)


def client_pair(options: ConnectionOptions) -> ClientPair | None:
    """The client's certificate and key, if any. Raises as :func:`trusted_authorities`."""
    if options.client_cert is None and options.client_key is None:
        return None
    if options.client_key is None:
        raise ConfigurationError([f"client_cert {options.client_cert}: client_key is missing"])
    if options.client_cert is None:
        raise ConfigurationError([f"client_key {options.client_key}: client_cert is missing"])
    pair = ClientPair(_read("client_cert", options.client_cert), _read("client_key", options.client_key))
    _check_pair(options.client_cert, options.client_key)
    return pair


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError([f"{name} {path}: cannot be read: {reason}"]) from error


def _authorities(path: Path) -> bytes:
    pem = _read("ca_cert", path)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pem.decode("ascii", errors="ignore"))
        usable = context.cert_store_stats()["x509"] > 0
    except (ssl.SSLError, ValueError):
        usable = False
    if not usable:
        raise ConfigurationError([f"ca_cert {path}: expected certificates in PEM form"])
    return pem


def _check_pair(cert: Path, key: Path) -> None:
    """Check that both files are usable and belong together."""
    encrypted = False

    def passphrase() -> str:
        nonlocal encrypted
        encrypted = True
        return ""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")  # judging the strength of keys is the server's business
    try:
        context.load_cert_chain(cert, key, passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or ""
        if encrypted:
            problem = f"client_key {key}: is encrypted; expected a private key without a passphrase"
        elif "MISMATCH" in reason:
            problem = f"client_key {key}: does not belong to client_cert {cert}"
        else:
            problem = _faulty_file(cert, key)
        raise ConfigurationError([problem]) from error


def _faulty_file(cert: Path, key: Path) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)
    except (ssl.SSLError, OSError, ValueError):
        return f"client_cert {cert}: expected a certificate in PEM form"
    return f"client_key {key}: expected a private key in PEM form"


def _system_roots() -> bytes | None:
    """The system's authorities; gRPC for Python would use a list of its own. None: leave it to gRPC."""
    if "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" in os.environ:
        return None
    for path in (ssl.get_default_verify_paths().cafile, *_SYSTEM_BUNDLES):
        if path is not None and Path(path).is_file():
            return _read("system trust store", Path(path))
    authorities = ssl.create_default_context().get_ca_certs(binary_form=True)  # Windows: its store
    return "".join(map(ssl.DER_cert_to_PEM_cert, authorities)).encode() or None
