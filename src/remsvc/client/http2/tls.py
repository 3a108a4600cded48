"""The TLS settings of a client's connection: TLS 1.2 or later, only HTTP/2, and a checked certificate."""

from __future__ import annotations

import os
import ssl

from remsvc.client.options import ConnectionOptions
from remsvc.client.tls import client_pair, trusted_authorities
from remsvc.errors import ConfigurationError

PROTOCOL = "h2"
NO_HTTP2 = "the server does not speak HTTP/2: Cannot check peer: missing selected ALPN property."


def tls_context(options: ConnectionOptions) -> ssl.SSLContext:
    """The TLS context for a connection with these options.

    Raises:
        ConfigurationError: a file cannot be read or used; naming option, file and fault.
    """
    roots, pair = trusted_authorities(options), client_pair(options)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([PROTOCOL])
    # As with gRPC, an authority that is named is trusted though its own issuer is not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if roots is not None:
        context.load_verify_locations(cadata=roots.decode("ascii", errors="ignore"))
    elif named := os.environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        try:
            context.load_verify_locations(named)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                [f"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH {named}: expected certificates in PEM form: {error}"]
            ) from error
    else:
        context.load_default_certs()
    if pair is not None:
        assert options.client_cert is not None
        try:
            context.load_cert_chain(options.client_cert, options.client_key)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ConfigurationError(
                [f"client_cert {options.client_cert}: cannot be used: {error}"]
            ) from error
    return context


def handshake_reason(error: Exception) -> str:
    """Why a TLS handshake has failed, in the words that :mod:`remsvc.client.failures` explains."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"CERTIFICATE_VERIFY_FAILED: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
            return f"WRONG_VERSION_NUMBER: {error}"
        return f"Socket closed: {error}"
    return f"Socket closed: {error}" if str(error) else "Socket closed"
