"""Says which identity a client's certificate stands for, and whether it may still be used.

TLS checks a certificate once, when the connection is made, but a connection may last for months. So each
call checks here whether the certificate has expired since, and whether its authority is still trusted.
"""

from __future__ import annotations

import functools
import hashlib
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_DNS_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_EMAIL = re.compile(r"[!-?A-~]+@(" + _DNS_NAME.pattern + ")")
_LONGEST_CHAIN = 10
_CACHED = 1024


class CertificateError(ValueError):
    """The client's certificate cannot be used; the text says why, for the caller."""


@dataclass(frozen=True, slots=True)
class AlternativeName:
    """A subject alternative name.

    Attributes:
        kind: ``DNS``, ``URI`` or ``email``: a DNS name never stands for a URI of the same letters.
        value: DNS names and the domain of e-mail addresses in lower case.
    """

    kind: str
    value: str


def parse_alternative_name(text: str) -> AlternativeName | None:
    """The name that a key of ``[certificates]`` stands for; None where it is none. Wildcards are none."""
    if _EMAIL.fullmatch(text):
        return _email(text)
    if _DNS_NAME.fullmatch(text):
        return AlternativeName("DNS", text.lower())
    return AlternativeName("URI", text) if _URI.fullmatch(text) else None


def _email(text: str) -> AlternativeName:
    local, _, domain = text.rpartition("@")
    return AlternativeName("email", f"{local}@{domain.lower()}")


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What the server needs to know of a client's certificate.

    Attributes:
        fingerprint: SHA-256 of its DER form, 64 lower-case hex digits.
        common_name: its subject's, or empty.
        names: its subject alternative names of the kinds that can be mapped.
        fault: why its names cannot be used, such as a DNS name that is not ASCII.
        not_before, not_after: Unix times.
        chain: the certificate itself, then the intermediate certificates that the client sent with it.
    """

    fingerprint: str
    common_name: str
    names: frozenset[AlternativeName]
    not_before: float
    not_after: float
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    fault: str = ""


@functools.lru_cache(_CACHED)
def read_certificate(pem: bytes, chain: bytes = b"") -> ClientCertificate:
    """Read a certificate that TLS has accepted, and the chain that came with it.

    Raises:
        CertificateError: it cannot be read.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is merely unusual is not ours to judge
            certificate = x509.load_pem_x509_certificate(pem)
            others = x509.load_pem_x509_certificates(chain) if chain else []
            common_names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            names: frozenset[AlternativeName] = frozenset()
            fault = ""
            try:
                names = frozenset(_names(certificate))
            except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
                fault = "the client certificate's names cannot be read"
            return ClientCertificate(
                hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
                str(common_names[0].value) if common_names else "",
                names,
                certificate.not_valid_before_utc.timestamp(),
                certificate.not_valid_after_utc.timestamp(),
                (certificate, *(other for other in others if other != certificate)),
                fault,
            )
    except (ValueError, TypeError) as error:
        raise CertificateError("the client certificate cannot be read") from error


def _names(certificate: x509.Certificate) -> Iterable[AlternativeName]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return
    for name in extension.value:
        if isinstance(name, x509.DNSName):
            yield AlternativeName("DNS", name.value.lower())
        elif isinstance(name, x509.UniformResourceIdentifier):
            yield AlternativeName("URI", name.value)
        elif isinstance(name, x509.RFC822Name):
            yield _email(name.value)


class CertificateIdentities:
    """Maps clients' certificates to identities.

    Args:
        identities: identity by name; None where there is no ``[certificates]`` section: then the
            identity is the common name.
        authorities: in PEM form, to check each certificate against; None where all connections were checked
            by TLS against the authorities that are configured now, so that no call needs to do it again.
    """

    def __init__(
        self, identities: Mapping[AlternativeName, str] | None, authorities: bytes | None = None
    ) -> None:
        self.mapped = identities is not None
        self._identities = dict(identities or {})
        self._authorities = _certificates(authorities) if authorities is not None else None
        self._trusts = functools.lru_cache(_CACHED)(self._leads_to_authority)

    def may_give(self, identity: str) -> bool:
        """Whether some certificate may stand for an identity.

        Without ``[certificates]`` the answer is always yes: which names the authorities have signed is not
        known here.
        """
        return identity in self._identities.values() if self.mapped else True

    def check(self, certificate: ClientCertificate, now: float) -> None:
        """Check that a certificate may still be used at Unix time ``now``.

        Raises:
            CertificateError: it has expired, or its authority is not trusted any more.
        """
        if not certificate.not_before <= now < certificate.not_after:
            raise CertificateError("the client certificate has expired")
        if self._authorities is not None and not self._trusts(certificate, int(now) // 60):
            raise CertificateError("the client certificate's authority is not trusted")

    def identity(self, certificate: ClientCertificate) -> str | None:
        """The identity that a certificate stands for; None where it stands for none.

        Raises:
            CertificateError: its names stand for different identities, or cannot be read.
        """
        if not self.mapped:
            name = certificate.common_name
            return name if name and name.isprintable() and "\ufffd" not in name else None
        if certificate.fault:
            raise CertificateError(certificate.fault)
        found = {self._identities[name] for name in certificate.names if name in self._identities}
        if len(found) > 1:
            raise CertificateError("the client certificate's names stand for different identities")
        return found.pop() if found else None

    def _leads_to_authority(self, certificate: ClientCertificate, minute: int) -> bool:
        """Whether signatures lead from a certificate to one of the authorities.

        Args:
            minute: the time, in minutes since 1970. Certificates on the way that have expired by then do not
                count. A whole number of minutes lets the cache answer for all calls of the same minute.
        """
        current = certificate.chain[0]
        for _ in range(_LONGEST_CHAIN):
            if _first_issuer(current, self._authorities or (), minute * 60):
                return True
            # Anybody's certificate can come with it: only an authority's vouches for others.
            authorities = filter(_is_authority, certificate.chain[1:])
            issuer = _first_issuer(current, authorities, minute * 60)
            if issuer is None:
                return False
            current = issuer
        return False


def _is_authority(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _first_issuer(
    certificate: x509.Certificate, candidates: Iterable[x509.Certificate], now: float
) -> x509.Certificate | None:
    from cryptography.exceptions import InvalidSignature

    for candidate in candidates:
        if now >= candidate.not_valid_after_utc.timestamp():
            continue
        try:
            certificate.verify_directly_issued_by(candidate)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return candidate
    return None


def _certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    from cryptography import x509

    return tuple(x509.load_pem_x509_certificates(pem))
