"""The server's certificate, key and client authorities: read and checked before anything starts."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc

from remsvc.server.certificate_dates import certificate_dates
from remsvc.server.settings import Settings


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """PEM contents.

    Attributes:
        cert: the certificate chain.
        key: its private key.
        ca: authorities of the clients' certificates; given, every client must present one.
    """

    cert: bytes
    key: bytes = field(repr=False)
    ca: bytes | None = None


class TlsCredentials:
    """The server's credentials: each new connection is made with what :meth:`use` was given last.

    Whether there are client authorities is fixed with the first configuration.
    """

    def __init__(self, config: TlsConfig) -> None:
        self._current = self._given = config

    def use(self, config: TlsConfig) -> None:
        """From the next connection on; those that are open stay."""
        self._current = config

    def server_credentials(self) -> grpc.ServerCredentials:
        """gRPC's form of it."""
        fetch: Any = self._fetch  # the stubs do not know of None
        return grpc.dynamic_ssl_server_credentials(
            _grpc_form(self._given), fetch, require_client_authentication=self._given.ca is not None
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        # In a thread of gRPC's, before each handshake. None: nothing new.
        current = self._current
        if current is self._given:
            return None
        form = _grpc_form(current)
        self._given = current
        return form


def _grpc_form(config: TlsConfig) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(config.key, config.cert)], config.ca)


def read_tls(settings: Settings) -> TlsConfig | None:
    """The ``[tls]`` section, or None where it is not enabled. Problems go to ``settings``."""
    named = [name for name in ("cert", "key", "ca") if settings.given("tls", name)]
    if not settings.boolean("tls", "enabled", default=False):
        if settings.given("tls", "enabled") is None:
            for value in filter(None, (settings.given("tls", name) for name in named)):
                if value.is_flag:
                    settings.report(value, "", "expected --tls with it")
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
            settings.report(
                None, f"[tls] {name}", "expected the path of a PEM file, because [tls] enabled = true"
            )
    cert, key, ca = contents["cert"], contents["key"], contents["ca"]
    if cert is not None and key is not None and _check_pair(settings):
        _check_validity(settings, cert)
        _check_unchanged(settings, contents)
    if ca is not None:
        _check_authorities(settings, ca)
    return TlsConfig(cert or b"", key or b"", ca if "ca" in named else None)


def _read(settings: Settings, name: str, path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        settings.report(settings.given("tls", name), "", f"cannot be read: {error.strerror}: {path}")
        return None
    if b"-----BEGIN " not in content:
        settings.report(settings.given("tls", name), "", f"expected a PEM file: {path}")
        return None
    if name == "key" and os.name == "posix" and path.stat().st_mode & 0o077:
        settings.warnings.append(f"[tls] key: {path} can be read by others than its owner (chmod 600)")
    return content


def _check_pair(settings: Settings) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert, key = settings.path("tls", "cert"), settings.path("tls", "key")
    assert cert is not None
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except _EncryptedKeyError:
        settings.report(settings.given("tls", "key"), "", "expected a private key that is not encrypted")
        return False
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or str(error)
        settings.report(
            settings.given("tls", "cert"),
            "",
            f"expected a certificate and its own private key: {reason}",
        )
        return False
    return True


def _check_unchanged(settings: Settings, contents: Mapping[str, bytes | None]) -> None:
    """What was checked is what will be used: certificate and key are often renewed one by one."""
    for name in ("cert", "key"):
        path = settings.path("tls", name)
        if path is not None and _read(settings, name, path) != contents[name]:
            settings.report(settings.given("tls", name), "", f"changed while it was read: {path}")


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


class _EncryptedKeyError(Exception):
    pass


def _no_password() -> str:
    raise _EncryptedKeyError


def _check_authorities(settings: Settings, ca: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        reason = getattr(error, "reason", None) or str(error)
        settings.report(settings.given("tls", "ca"), "", f"expected PEM certificates: {reason}")
