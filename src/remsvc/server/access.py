"""Lets TLS and authentication follow the configuration: who may connect, and who may call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from remsvc.errors import ConfigurationError
from remsvc.server.calls.verification import CallVerification
from remsvc.server.config import ServerConfig
from remsvc.server.identity.failed_authentication import FailedAuthentications
from remsvc.server.tls.config import TlsConfig

_EXPIRY_SECONDS = 1.0


class Access:
    """The TLS settings of connections, and the authentication of calls, by the configuration in force.

    Args:
        config: what the server is started with.
        on_refusal: see :class:`CallVerification`.

    Attributes:
        verification: guards every method.
    """

    def __init__(self, config: ServerConfig, on_refusal: Callable[[str, str, str], None]) -> None:
        failures = FailedAuthentications(config.limits.failed_authentications)
        self.verification = CallVerification(config.auth.authenticator(), on_refusal, failures)
        self._tls = config.tls
        self._first_ca, self._optional = _client_certificates(config)
        self._any_user = config.auth.peer_uids is None
        self._ca_changed = False

    @property
    def tls(self) -> TlsConfig | None:
        """What the next connection is encrypted with; None for plaintext."""
        return self._tls

    def prepare(self, config: ServerConfig) -> Callable[[], None]:
        """Prepare to follow a configuration; see :data:`~remsvc.server.reload.Prepare`.

        Raises:
            ConfigurationError: TLS or mutual TLS would be switched on or off, or the authorities cannot be
                used.
        """
        tls = config.tls
        ca, optional = _client_certificates(config)
        if (tls is None) != (self._tls is None) or (ca is None) != (self._first_ca is None):
            raise ConfigurationError(
                ["[tls] enabled, ca: TLS and mutual TLS can be switched on or off by a restart only"]
            )
        if optional != self._optional:
            raise ConfigurationError(["[tls] client_certificates: can be changed by a restart only"])
        if (config.auth.peer_uids is None) != self._any_user:
            raise ConfigurationError(["[server] peer_uid: can be switched on or off by a restart only"])
        # Connections made under other authorities stay open: their certificates are checked anew.
        ca_changed = self._ca_changed or ca != self._first_ca
        try:
            authenticator = config.auth.authenticator(ca if ca_changed else None)
        except ValueError as error:
            raise ConfigurationError(
                [f"[tls] ca: expected certificates that can be read: {error}"]
            ) from error

        def commit() -> None:
            self._ca_changed = ca_changed
            self._tls = tls
            self.verification.use(authenticator)

        return commit

    async def end_expired_calls(self) -> NoReturn:
        """Work until cancelled: end calls when what their callers showed expires."""
        while True:
            await asyncio.sleep(_EXPIRY_SECONDS)
            self.verification.end_expired()


def _client_certificates(config: ServerConfig) -> tuple[bytes | None, bool]:
    """The authorities of clients' certificates, and whether a client may have no certificate."""
    return (config.tls.ca, config.tls.optional) if config.tls is not None else (None, False)
