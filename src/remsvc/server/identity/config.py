"""Reads who may call: ``[auth]``, ``[certificates]`` and, of ``[server]``, the token file and the like."""

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
from remsvc.server.identity.token_file import identity_problem, is_hash, parse_hash, read_token_file
from remsvc.server.identity.tokens import Credential, TokenTable, digest_of
from remsvc.server.own_user import OWN_USER
from remsvc.server.settings.files import UntrustedFileError
from remsvc.server.settings.misplaced_secrets import NOT_SHOWN, in_path
from remsvc.server.settings.schema import Key, Kind, Section
from remsvc.server.settings.settings import Settings, Value, expand_variables, is_variable, variables_in
from remsvc.token_text import token_as_meant

IDENTITY_SECTIONS = (
    Section(
        "server",
        (
            Key("token_file", Kind.SECRETS_PATH, reloads=True),
            Key("authentication", reloads=True),
            Key("peer_uid", Kind.TEXT, flag="peer_uid", reloads=True),
        ),
    ),
    Section("auth"),
    Section("certificates"),
)


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
        """All identities that are named. Under mutual TLS without ``[certificates]``, there may be others."""
        names = {credential.identity for credential in self.credentials}
        return frozenset(names.union((self.certificates or {}).values()))

    def authenticator(self, authorities: bytes | None = None) -> Authenticator:
        """What decides who a caller is, by this. ``authorities``: see :class:`CertificateIdentities`."""
        return Authenticator(
            TokenTable(self.credentials) if self.uses_tokens else None,
            CertificateIdentities(self.certificates, authorities),
            self.required,
            anonymous=not (self.uses_tokens or self.asks_for_certificates),
            peer_uids=self.peer_uids,
        )


def read_auth(settings: Settings, *, asks_for_certificates: bool) -> AuthConfig:
    """The settings of authentication. Problems go to ``settings``.

    Args:
        asks_for_certificates: see :class:`AuthConfig`.
    """
    credentials = _read_credentials(settings)
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
        _read_certificates(settings, asks_for_certificates),
        required,
        asks_for_certificates=asks_for_certificates,
        peer_uids=_read_peer_uids(settings),
    )
    _check_required(settings, config)
    return config


def _read_credentials(settings: Settings) -> list[Credential]:
    """The entries of ``[auth]``: a token, or its hash. No message ever shows one."""
    entries = settings.entries("auth")
    tokens = [token_as_meant(expand_variables(entry.value)) for entry in entries]
    # Without any token, anybody could call: whoever names identities does not mean that.
    none_is_fatal = not any(tokens)
    known: set[bytes] = set()
    credentials: list[Credential] = []
    for entry, token in zip(entries, tokens, strict=True):
        where = settings.place_of(entry)
        if variables := variables_in(entry.value):
            where += f" (by the variable {', '.join(variables)})"
        digest = parse_hash(token)
        if not token and not none_is_fatal:
            settings.warnings.append(f"{where}: not used, because its token is empty")
        elif problem := _token_problem(token):
            settings.report_value(Value("", where, entry.line), problem)
        else:
            credential = Credential(entry.key, digest or digest_of(token))
            if credential.digest in known:
                settings.warnings.append(f"{where}: the same token as an identity before it")
            if is_variable(token):
                settings.warnings.append(f"{where}: the variable is not set, so its name itself is the token")
            known.add(credential.digest)
            credentials.append(credential)
    return credentials


def _token_problem(token: str) -> str:
    """What is wrong with a token of ``[auth]``, or with a hash in its place; empty where nothing is."""
    if not token:
        return "expected a token"
    if not token.isascii() or not token.isprintable():
        return f"expected printable ASCII characters {NOT_SHOWN}"
    if is_hash(token) and parse_hash(token) is None:
        return f"expected sha256: and 64 hex digits {NOT_SHOWN}"
    return ""


def _read_token_file(settings: Settings) -> list[Credential] | None:
    value = settings.given("server", "token_file")
    path = settings.path("server", "token_file")
    if value is None or path is None:
        return None
    settings.note_file(path)
    try:
        file = read_token_file(path)
    except UntrustedFileError as error:
        settings.report_value(value, "expected the path of a file" if in_path(value.text) else str(error))
        return []
    for line, problem in file.problems:
        settings.report_value(value, f"{path}:{line}: {problem}" if line else f"{path}: {problem}")
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
        settings.report_value(value, "only Linux tells who is at the other end of a connection")
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
                settings.report_value(
                    value, f"{name!r}: expected the number or the name of a user, or {OWN_USER}"
                )
    return frozenset(uids)


def _read_certificates(settings: Settings, asked_for: bool) -> dict[AlternativeName, str] | None:
    if not settings.has_section("certificates"):
        return None
    identities: dict[AlternativeName, str] = {}
    if not asked_for:
        settings.report_section(
            "certificates", "expected [tls] ca with it: without, clients present no certificate"
        )
    for entry in settings.entries("certificates"):
        value = settings.value_of(entry)
        name = parse_alternative_name(entry.key)
        if name is None:
            settings.report_value(
                value, "expected a DNS name (no wildcard), a URI or an e-mail address before the last ="
            )
        elif problem := identity_problem(entry.value):
            settings.report_value(value, problem)
        elif name in identities:
            settings.report_value(value, "the same name as one before it")
        else:
            identities[name] = entry.value
    return identities


def _check_required(settings: Settings, config: AuthConfig) -> None:
    by_token = config.required in (Required.TOKEN, Required.BOTH)
    by_certificate = config.required in (Required.CERTIFICATE, Required.BOTH)
    if by_token and not config.uses_tokens:
        settings.report("server", "authentication", "expected tokens: [auth] or [server] token_file")
    if by_certificate and not config.asks_for_certificates:
        settings.report("server", "authentication", "expected mutual TLS: [tls] ca")
    if config.required is Required.CERTIFICATE and config.uses_tokens:
        settings.warnings.append("[server] authentication = certificate: tokens are configured, but not used")
    if config.required is Required.TOKEN and config.certificates is not None:
        settings.warnings.append("[server] authentication = token: [certificates] is not used")
    if by_certificate and config.certificates is None:
        settings.warnings.append(
            f"[server] authentication = {config.required.value}: without [certificates], the identity is the "
            "common name of whatever certificate [tls] ca has signed"
        )
