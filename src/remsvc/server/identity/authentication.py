"""Decides who is calling, by what the caller presents: a token, a client certificate, a local user.

This happens before the method that was called is entered, so no method ever sees a token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from remsvc.server.caller import ANONYMOUS, Caller
from remsvc.server.identity.client_certificates import (
    CertificateError,
    CertificateIdentities,
    ClientCertificate,
    read_certificate,
)
from remsvc.server.identity.tokens import Credential, TokenTable, digest_of
from remsvc.token_text import token_as_meant

_SCHEME = "Bearer "
_MISSING = "missing Authorization header"
_OTHER_SCHEME = "Authorization header must use 'Bearer' scheme"
_INVALID = "invalid bearer token"


class Required(Enum):
    """What a caller must show (``[server] authentication``)."""

    ANY = "any"
    TOKEN = "token"  # noqa: S105  not one
    CERTIFICATE = "certificate"
    BOTH = "both"


class AuthenticationError(Exception):
    """The caller has not shown that it may call.

    The text is what the caller is told.

    Attributes:
        reason: for the log: it may say more than the caller is told.
    """

    def __init__(self, text: str, reason: str = "") -> None:
        self.reason = reason or text
        super().__init__(text)


class ShownCertificate(NamedTuple):
    """The client certificate of a connection, read once for all calls on it.

    Attributes:
        certificate: None where the client has presented none, or one that cannot be used.
        fault: why it cannot be used; empty where it can, or where there is none.
    """

    certificate: ClientCertificate | None = None
    fault: str = ""

    @classmethod
    def of(cls, pem: bytes | None, chain: bytes = b"") -> ShownCertificate:
        """Read a certificate in PEM form; ``chain``: all certificates that the client has sent with it."""
        if pem is None:
            return NO_CERTIFICATE
        try:
            return cls(read_certificate(pem, chain))
        except CertificateError as error:
            return cls(fault=str(error))


NO_CERTIFICATE = ShownCertificate()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a caller presents to show who it is. Of a token, only the digest is kept.

    Attributes:
        token: the digest of the token; None where there is none, or where the header is wrong.
        token_fault: what is wrong with the header, as the caller is told.
        certificate: the client's certificate, which TLS has checked.
        certificate_fault: why it cannot be used.
        peer_uid: the user of this host who has connected; None where that is not known.
    """

    token: bytes | None = field(default=None, repr=False)
    token_fault: str = ""
    certificate: ClientCertificate | None = None
    certificate_fault: str = ""
    peer_uid: int | None = None

    @classmethod
    def shown(
        cls,
        authorization: Sequence[str],
        certificate: ShownCertificate = NO_CERTIFICATE,
        peer_uid: int | None = None,
    ) -> Evidence:
        """What the caller of one call presents.

        Args:
            authorization: the values of the call's ``authorization`` metadata.
            certificate: that of the call's connection.
            peer_uid: see the attribute.
        """
        token, fault = None, ""
        if not authorization:
            fault = _MISSING
        elif not authorization[0].startswith(_SCHEME):
            fault = _OTHER_SCHEME
        elif len(authorization) > 1:
            fault = _INVALID
        else:
            token = digest_of(token_as_meant(authorization[0].removeprefix(_SCHEME)))
        return cls(token, fault, certificate.certificate, certificate.fault, peer_uid)


class Authenticator:
    """Decides who a caller is, by one configuration. Never changes: a reload makes another one.

    Args:
        tokens: None where tokens are not configured: then one that is sent is ignored.
        certificates: how certificates give identities.
        required: what a caller must show.
        anonymous: whether a caller that shows nothing is let in.
        peer_uids: the users of this host who may call, whatever else they show; None for anybody.
    """

    def __init__(
        self,
        tokens: TokenTable | None = None,
        certificates: CertificateIdentities | None = None,
        required: Required = Required.ANY,
        *,
        anonymous: bool = True,
        peer_uids: frozenset[int] | None = None,
    ) -> None:
        self._tokens = tokens if required is not Required.CERTIFICATE else None
        self._certificates = certificates or CertificateIdentities(None)
        self._required = required
        self._anonymous = anonymous
        self._peer_uids = peer_uids

    def authenticate(self, shown: Evidence) -> Caller:
        """The caller that ``shown`` proves.

        Raises:
            AuthenticationError: it is not enough, has expired, or is of nobody who may call.
        """
        if self._peer_uids is not None and shown.peer_uid not in self._peer_uids:
            who = "who cannot be told" if shown.peer_uid is None else str(shown.peer_uid)
            raise AuthenticationError(
                "this user of the server's host may not call ([server] peer_uid)",
                f"the connection is of the user {who}",
            )
        now = time.time()
        certificate = shown.certificate
        if shown.certificate_fault:
            raise AuthenticationError(shown.certificate_fault)
        if certificate is not None:
            try:
                self._certificates.check(certificate, now)
            except CertificateError as error:
                raise AuthenticationError(str(error)) from error
        by_token = None
        without_token = certificate is not None and shown.token_fault == _MISSING
        if self._tokens is not None and not (self._may_do_without_token() and without_token):
            by_token = _find_token(self._tokens, shown, now)
        if self._required is Required.TOKEN or (self._required is Required.ANY and by_token is not None):
            identity = by_token.identity if by_token else ANONYMOUS
        else:
            identity = self._by_certificate(certificate)
            if self._required is Required.BOTH and by_token is not None and by_token.identity != identity:
                raise AuthenticationError(
                    "the token and the client certificate are of different identities",
                    f"the token is of {by_token.identity}, the certificate of {identity}",
                )
        expiries = [by_token.expires if by_token else None, certificate.not_after if certificate else None]
        return Caller(
            identity,
            by_token.id if by_token else "",
            certificate.fingerprint if certificate else "",
            min((moment for moment in expiries if moment is not None), default=None),
            self,
        )

    def knows(self, identity: str) -> bool:
        """Whether some caller could be verified as this identity now.

        A token that has expired does not count. Nobody can tell whether a certificate still exists, so it is
        enough that one could stand for the identity.
        """
        by_certificate = not self._anonymous and self._certificates.may_give(identity)
        if self._tokens is None:
            return identity == ANONYMOUS if self._anonymous else by_certificate
        by_token = self._tokens.knows(identity, time.time())
        if self._required is Required.BOTH:
            return by_token and by_certificate
        return by_token or (self._may_do_without_token() and by_certificate)

    def _may_do_without_token(self) -> bool:
        return self._required is Required.ANY and self._certificates.mapped

    def _by_certificate(self, certificate: ClientCertificate | None) -> str:
        strict = self._required is not Required.ANY or self._certificates.mapped
        if certificate is None:
            if strict or not self._anonymous:
                raise AuthenticationError("expected a client certificate")
            return ANONYMOUS
        try:
            identity = self._certificates.identity(certificate)
        except CertificateError as error:
            raise AuthenticationError(str(error)) from error
        if identity is None:
            if strict or certificate.common_name:
                raise AuthenticationError(
                    "the client certificate stands for no identity",
                    f"the client certificate {certificate.fingerprint} stands for no identity",
                )
            return ANONYMOUS
        return identity


def _find_token(tokens: TokenTable, shown: Evidence, now: float) -> Credential:
    if shown.token is None:
        raise AuthenticationError(shown.token_fault)
    found = tokens.find(shown.token)
    if found is None:
        raise AuthenticationError(_INVALID)
    if found.expired(now):
        raise AuthenticationError(_INVALID, f"token {found.id} of {found.identity} has expired")
    return found
