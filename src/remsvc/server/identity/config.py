"""What of the configuration says who may call: ``[auth]``, the token file, ``[certificates]``."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from remsvc.server.identity.authentication import Authenticator, Required
from remsvc.server.identity.client_certificates import (
    AlternativeName,
    CertificateIdentities,
    parse_alternative_name,
)
from remsvc.server.identity.token_file import identity_problem, read_token_file
from remsvc.server.identity.tokens import Credential, TokenTable
from remsvc.server.policy.section import OWN_USER
from remsvc.server.settings.misplaced_secrets import in_path
from remsvc.server.settings.settings import Settings
from remsvc.server.settings.trusted_file import UntrustedFileError
from remsvc.server.tls.config import TlsConfig


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Who may call.

    Attributes:
        credentials: those of ``[auth]``, then those of the token file; the first of a token counts.
        uses_tokens: whether tokens are configured, even if there is none just now.
        certificates: identity by name; None without a ``[certificates]`` section.
        required: what a caller must show.
        asks_for_certificates: whether TLS asks clients for a certificate; they may have none.
        peer_uids: the users of this host who may call; None for anybody.
    """

    credentials: tuple[Credential, ...] = ()
    uses_tokens: bool = False
    certificates: Mapping[AlternativeName, str] | None = None
    required: Required = Required.ANY
    asks_for_certificates: bool = False
    peer_uids: frozenset[int] | None = None

    @property
    def identities(self) -> frozenset[str]:
        """All that are named; under mutual TLS without ``[certificates]`` there may be others."""
        names = {credential.identity for credential in self.credentials}
        return frozenset(names.union((self.certificates or {}).values()))

    def authenticator(self, authorities: bytes | None = None) -> Authenticator:
        """What decides by this. ``authorities``: see :class:`CertificateIdentities`."""
        return Authenticator(
            TokenTable(self.credentials) if self.uses_tokens else None,
            CertificateIdentities(self.certificates, authorities),
            self.required,
            anonymous=not (self.uses_tokens or self.asks_for_certificates),
            peer_uids=self.peer_uids,
        )


def read_auth(settings: Settings, tls: TlsConfig | None) -> AuthConfig:
    """The settings of authentication. Problems go to ``settings``."""
    credentials = settings.credentials()
    from_file = _read_token_file(settings)
    if from_file is not None:
        elsewhere = {credential.digest: credential.identity for credential in credentials}
        for credential in from_file:
            if credential.digest in elsewhere:
                settings.warnings.append(
                    f"[server] token_file: the token {credential.id} is also in [auth], as that of "
                    f"{elsewhere[credential.digest]}: [auth] counts, and revoking it here is without effect"
                )
        credentials = [*credentials, *from_file]
    required = Required(
        settings.choice("server", "authentication", "any", {kind.value: kind for kind in Required})
    )
    config = AuthConfig(
        tuple(credentials),
        bool(credentials) or from_file is not None,
        _read_certificates(settings, tls),
        required,
        asks_for_certificates=tls is not None and tls.ca is not None,
        peer_uids=_read_peer_uids(settings),
    )
    _check_required(settings, config, tls)
    return config


def _read_token_file(settings: Settings) -> list[Credential] | None:
    value = settings.given("server", "token_file")
    path = settings.path("server", "token_file")
    if value is None or path is None:
        return None
    settings.note_file(path)
    try:
        file = read_token_file(path)
    except UntrustedFileError as error:
        settings.report(value, "", "expected the path of a file" if in_path(value.text) else str(error))
        return []
    for line, problem in file.problems:
        settings.report(value, "", f"{path}:{line}: {problem}" if line else f"{path}: {problem}")
    if file.readable_by_all:
        settings.warnings.append(f"[server] token_file: {path} can be read by everybody (chmod o-r)")
    now = time.time()
    if not any(not credential.expired(now) for credential in file.credentials):
        settings.warnings.append(f"[server] token_file: {path} holds no token that is valid now")
    return file.credentials


def _read_peer_uids(settings: Settings) -> frozenset[int] | None:
    value = settings.given("server", "peer_uid")
    if value is None:
        return None
    if sys.platform != "linux":
        settings.report(value, "", "only Linux tells who is at the other end of a connection")
        return frozenset()
    import pwd

    uids = set()
    for name in (item.strip() for item in value.text.split(",")):
        if re.fullmatch(r"[0-9]{1,10}", name):
            uids.add(int(name))
        elif name == OWN_USER:
            uids.add(os.geteuid())
        else:
            try:
                uids.add(pwd.getpwnam(name).pw_uid)
            except (KeyError, ValueError):
                settings.report(
                    value, "", f"{name!r}: expected the number or the name of a user, or {OWN_USER}"
                )
    return frozenset(uids)


def _read_certificates(settings: Settings, tls: TlsConfig | None) -> dict[AlternativeName, str] | None:
    if not settings.has_section("certificates"):
        return None
    identities: dict[AlternativeName, str] = {}
    if tls is None or tls.ca is None:
        settings.report(
            None,
            "[certificates]",
            "expected [tls] ca with it: without, clients present no certificate",
        )
    for entry in settings.entries("certificates"):
        value = settings.value_of(entry)
        name = parse_alternative_name(entry.key)
        if name is None:
            settings.report(
                value, "", "expected a DNS name (no wildcard), a URI or an e-mail address before the last ="
            )
        elif problem := identity_problem(entry.value):
            settings.report(value, "", problem)
        elif name in identities:
            settings.report(value, "", "the same name as one before it")
        else:
            identities[name] = entry.value
    return identities


def _check_required(settings: Settings, config: AuthConfig, tls: TlsConfig | None) -> None:
    value = settings.given("server", "authentication")
    by_token = config.required in (Required.TOKEN, Required.BOTH)
    by_certificate = config.required in (Required.CERTIFICATE, Required.BOTH)
    if by_token and not config.uses_tokens:
        settings.report(value, "", "expected tokens: [auth] or [server] token_file")
    if by_certificate and (tls is None or tls.ca is None):
        settings.report(value, "", "expected mutual TLS: [tls] ca")
    if config.required is Required.CERTIFICATE and config.uses_tokens:
        settings.warnings.append("[server] authentication = certificate: tokens are configured, but not used")
    if config.required is Required.TOKEN and config.certificates is not None:
        settings.warnings.append("[server] authentication = token: [certificates] is not used")
    if by_certificate and config.certificates is None:
        settings.warnings.append(
            f"[server] authentication = {config.required.value}: without [certificates], the identity is the "
            "common name of whatever certificate [tls] ca has signed"
        )
