"""Reads ``[tls]``: the server's certificate, its key, and the authorities of clients' certificates.

All of them are checked, and tried in a handshake, before the server starts or takes a change over.
"""

from __future__ import annotations

import codecs
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from remsvc.server.settings.schema import Key, Kind, Section
from remsvc.server.settings.settings import Settings
from remsvc.server.tls.certificate import FOR_EVERYBODY, certificate_dates, key_kind
from remsvc.server.tls.trial import handshake_fault
from remsvc.server.transport_kinds import GRPC

TLS_SECTION = Section(
    "tls",
    (
        Key("enabled", flag="tls", reloads=True),
        Key("cert", Kind.TEXT, flag="cert", reloads=True),
        Key("key", Kind.TEXT, flag="key", reloads=True),
        Key("ca", Kind.TEXT, flag="ca_cert", reloads=True),
        Key("client_certificates", reloads=True),
    ),
)
_NEED_TLS = ("cert", "key", "ca", "client_certificates")
_REQUIRED, _OPTIONAL = "required", "optional"
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_REMEDY = f"take a key of one of the kinds {', '.join(FOR_EVERYBODY)}"


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """What connections are encrypted with.

    Attributes:
        cert: the certificate chain, in PEM form.
        key: its private key.
        ca: authorities of the clients' certificates; None: clients are asked for none.
        optional: whether a client may present none, with ``ca``. One that is presented is checked.
        context: for Python's ``ssl``, made of the others.
    """

    cert: bytes
    key: bytes = field(repr=False)
    ca: bytes | None
    optional: bool
    context: ssl.SSLContext = field(repr=False, compare=False)


def server_context(cert: Path, key: Path | None) -> ssl.SSLContext:
    """The TLS settings of all connections: TLS 1.2 or later, and HTTP/2 inside.

    Raises:
        EncryptedKeyError: the key asks for a passphrase.
        ssl.SSLError, OSError, ValueError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # of TLS 1.2; those of 1.3 are all good
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(cert, key, password=_no_password)
    return context


def read_tls(settings: Settings, transport: str) -> TlsConfig | None:
    """The ``[tls]`` section, or None where it is not enabled. Problems go to ``settings``."""
    named = [name for name in _NEED_TLS if settings.given("tls", name)]
    if not settings.boolean("tls", "enabled", default=False):
        if settings.given("tls", "enabled") is None:
            for value in filter(None, (settings.given("tls", name) for name in named)):
                if value.is_flag:
                    settings.report_value(value, "expected --tls with it")
                else:
                    settings.warnings.append(f"{value.where}: not used, because [tls] enabled is not true")
        return None
    contents: dict[str, bytes | None] = {}
    for name in ("cert", "key", "ca"):
        path = settings.path("tls", name)
        if path is not None:
            settings.note_file(path)
        contents[name] = _read(settings, name, path) if path else None
        if path is None and name != "ca":
            settings.report("tls", name, "expected the path of a PEM file, because [tls] enabled = true")
    cert, key, ca = contents["cert"], contents["key"], contents["ca"]
    optional = _read_optional(settings, transport, with_ca="ca" in named)
    context = None
    if ca is None or _check_authorities(settings, ca):
        context = _context(settings) if cert is not None and key is not None else None
    if cert is not None and context is not None:
        _check_validity(settings, cert)
        if _check_kind(settings, cert, context, transport) and transport == GRPC:
            _check_with_grpc(settings, cert, key or b"", ca)
        _check_unchanged(settings, contents)
        if ca is not None:
            context.load_verify_locations(cadata=ca.decode("ascii"))
            context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    return TlsConfig(
        cert or b"",
        key or b"",
        ca if "ca" in named else None,
        optional,
        context or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
    )


def _read_optional(settings: Settings, transport: str, *, with_ca: bool) -> bool:
    value = settings.given("tls", "client_certificates")
    optional = settings.choice("tls", "client_certificates", _REQUIRED, (_REQUIRED, _OPTIONAL)) == _OPTIONAL
    if value is not None and not with_ca:
        settings.report_value(value, "expected [tls] ca with it: the authorities that check them")
    elif optional and transport == GRPC:
        settings.report(
            "tls",
            "client_certificates",
            f"expected {_REQUIRED}: with [server] transport = {GRPC}, it cannot be left to clients",
        )
    return optional


def _read(settings: Settings, name: str, path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        settings.report("tls", name, f"cannot be read: {error.strerror}: {path}")
        return None
    if content.startswith(_MARKS):
        settings.report(
            "tls",
            name,
            f"begins with a byte order mark, with which TLS cannot read it: save it as plain ASCII: {path}",
        )
        return None
    if b"-----BEGIN " not in content:
        settings.report("tls", name, f"expected a PEM file: {path}")
        return None
    if name == "key" and os.name == "posix" and path.stat().st_mode & 0o077:
        settings.warnings.append(f"[tls] key: {path} can be read by others than its owner (chmod 600)")
    return content


def _context(settings: Settings) -> ssl.SSLContext | None:
    cert, key = settings.path("tls", "cert"), settings.path("tls", "key")
    if cert is None:
        return None
    try:
        return server_context(cert, key)
    except EncryptedKeyError:
        settings.report("tls", "key", "expected a private key that is not encrypted")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or str(error)
        settings.report(
            "tls",
            "cert",
            f"expected a certificate and its own private key: {reason}",
        )
    return None


def _check_unchanged(settings: Settings, contents: Mapping[str, bytes | None]) -> None:
    """Check that the files still hold what was checked: they are often renewed one after the other."""
    for name in ("cert", "key"):
        path = settings.path("tls", name)
        if path is not None and _read(settings, name, path) != contents[name]:
            settings.report("tls", name, f"changed while it was read: {path}")


def _check_kind(settings: Settings, cert: bytes, context: ssl.SSLContext, transport: str) -> bool:
    """Check that TLS can use the key.

    OpenSSL loads some kinds of keys with which no handshake succeeds, and gRPC's own library supports fewer
    kinds than OpenSSL.

    Returns:
        Whether the key is of a kind that every client supports.
    """
    try:
        kind = key_kind(cert)
    except ValueError as error:
        kind = f"that cannot be told ({error})"
    if fault := handshake_fault(context):
        settings.report("tls", "cert", f"TLS cannot use its key, of the kind {kind} ({fault}): {_REMEDY}")
    elif kind in FOR_EVERYBODY:
        return True
    elif transport == GRPC:
        settings.report(
            "tls", "cert", f"[server] transport = {GRPC} cannot use its key, of the kind {kind}: {_REMEDY}"
        )
    else:
        settings.warnings.append(
            f"{settings.path('tls', 'cert')}: its key is of the kind {kind}: clients by gRPC's own "
            f"library cannot connect, Airflow without the extra [http2] among them; {_REMEDY}"
        )
    return False


def _check_with_grpc(settings: Settings, cert: bytes, key: bytes, ca: bytes | None) -> None:
    from remsvc.server.tls.grpc_trial import UntriedError, grpc_fault

    try:
        fault = grpc_fault(cert, key, ca)
    except UntriedError as error:
        settings.warnings.append(f"[tls] cert: whether gRPC's library can use it could not be tried: {error}")
        return
    if fault is not None:
        name, reason = fault
        remedy = f"{_REMEDY}, as openssl makes it by default" if name == "cert" else "write them anew"
        settings.report(
            "tls",
            name,
            f"[server] transport = {GRPC}: gRPC's own library cannot use it ({reason}): {remedy}",
        )


def _check_validity(settings: Settings, cert: bytes) -> None:
    where = f"{settings.path('tls', 'cert')}: the certificate"
    try:
        first, last = certificate_dates(cert)
    except ValueError as error:
        settings.warnings.append(f"{where}: when it is valid cannot be read: {error}")
        return
    now = datetime.now(timezone.utc)
    if now > last:
        settings.warnings.append(f"{where} expired on {last:%Y-%m-%d}")
    elif now < first:
        settings.warnings.append(f"{where} is not valid before {first:%Y-%m-%d}")


class EncryptedKeyError(Exception):
    """The private key needs a passphrase, and there is nobody whom a server could ask for it."""


def _no_password() -> str:
    raise EncryptedKeyError


def _check_authorities(settings: Settings, ca: bytes) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        reason = getattr(error, "reason", None) or str(error)
        settings.report("tls", "ca", f"expected PEM certificates: {reason}")
        return False
    return True
