"""Who is calling: decided before any handler runs, and no handler ever sees a token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from remsvc.server.client_certificates import (
    CertificateError,
    CertificateIdentities,
    ClientCertificate,
    read_certificate,
)
from remsvc.server.tokens import TokenTable, digest_of

ANONYMOUS = "anonymous"
_HEADER = "authorization"
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
    """The caller is not who it has to be.

    Attributes:
        reason: for the log, more than the caller is told.

    The text is what the caller is told.
    """

    def __init__(self, text: str, reason: str = "") -> None:
        self.reason = reason or text
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as far as it was verified.

    Attributes:
        identity: the token's or the client certificate's; ``anonymous`` where none is asked for.
        token_id: which of the identity's tokens, as ``remsvc token list`` shows it; empty where no
            token was asked for, or where it is one of ``[auth]``.
        fingerprint: SHA-256 of the client's certificate (DER), 64 lower-case hex digits; empty
            without mutual TLS. It is there whether or not the certificate gave the identity.
        expires: Unix time at which what was shown expires; None for never.
    """

    identity: str = ANONYMOUS
    token_id: str = ""
    fingerprint: str = ""
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a caller shows of itself. The token itself is not in it.

    Attributes:
        token: the digest of the token; None where there is none.
        token_fault: what is wrong with the header, as the caller is told.
        certificate: the client's certificate, which TLS has checked.
        certificate_fault: why it cannot be used.
    """

    token: bytes | None = field(default=None, repr=False)
    token_fault: str = ""
    certificate: ClientCertificate | None = None
    certificate_fault: str = ""

    @classmethod
    def of_metadata(cls, metadata: Sequence[tuple[str, str | bytes]]) -> Evidence:
        """Of a call's metadata alone."""
        headers = [value for key, value in metadata if key == _HEADER]
        if not headers:
            return cls(token_fault=_MISSING)
        header = headers[0] if isinstance(headers[0], str) else headers[0].decode(errors="replace")
        if not header.startswith(_SCHEME):
            return cls(token_fault=_OTHER_SCHEME)
        if len(headers) > 1:
            return cls(token_fault=_INVALID)
        return cls(digest_of(header.removeprefix(_SCHEME)))

    @classmethod
    def of_call(cls, context: Any) -> Evidence:
        """Of a call: its metadata and its connection's client certificate."""
        shown = cls.of_metadata(context.invocation_metadata())
        properties = context.auth_context()
        if not (pem := properties.get("x509_pem_cert")):
            return shown
        chain = b"".join(properties.get("x509_pem_cert_chain", ()))
        try:
            certificate = read_certificate(pem[0], chain)
        except CertificateError as error:
            return cls(shown.token, shown.token_fault, certificate_fault=str(error))
        return cls(shown.token, shown.token_fault, certificate)


class Authenticator:
    """Decides who a caller is, by one state of the configuration. Does not change.

    Args:
        tokens: None where tokens are not configured: one that is sent is ignored then.
        certificates: how certificates give identities.
        required: what a caller must show.
    """

    def __init__(
        self,
        tokens: TokenTable | None = None,
        certificates: CertificateIdentities | None = None,
        required: Required = Required.ANY,
    ) -> None:
        self._tokens = tokens if required is not Required.CERTIFICATE else None
        self._certificates = certificates or CertificateIdentities(None)
        self._required = required

    def authenticate(self, shown: Evidence) -> Caller:
        """Who it is. Raises :class:`AuthenticationError`."""
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
        if self._tokens is not None and not (self._may_do_without_token() and shown.token_fault == _MISSING):
            by_token = self._by_token(shown, now)
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
            by_token.token_id if by_token else "",
            certificate.fingerprint if certificate else "",
            min((moment for moment in expiries if moment is not None), default=None),
        )

    def _may_do_without_token(self) -> bool:
        return self._required is Required.ANY and self._certificates.mapped

    def _by_token(self, shown: Evidence, now: float) -> Caller:
        assert self._tokens is not None
        if shown.token is None:
            raise AuthenticationError(shown.token_fault)
        found = self._tokens.find(shown.token)
        if found is None:
            raise AuthenticationError(_INVALID)
        if found.expired(now):
            raise AuthenticationError(_INVALID, f"token {found.id} of {found.identity} has expired")
        return Caller(found.identity, found.id, expires=found.expires)

    def _by_certificate(self, certificate: ClientCertificate | None) -> str:
        strict = self._required is not Required.ANY or self._certificates.mapped
        if certificate is None:
            if strict:
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


class CallContext:
    """A call as its handler sees it: gRPC's context without the token, plus the verified caller."""

    def __init__(self, context: Any, caller: Caller) -> None:
        self._context = context
        self.caller = caller

    @property
    def identity(self) -> str:
        """``caller.identity``."""
        return self.caller.identity

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return tuple((key, value) for key, value in self._context.invocation_metadata() if key != _HEADER)
