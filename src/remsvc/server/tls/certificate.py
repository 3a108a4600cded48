"""Reads the dates and the kind of key from the server's own certificate.

Python's ``ssl`` does not tell them. A library that does would take more memory than all the rest of TLS,
for as long as the server runs. The fields of a certificate and their order: RFC 5280, section 4.1.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from datetime import datetime, timezone

_UTC_TIME = 0x17


def certificate_dates(pem: bytes) -> tuple[datetime, datetime]:
    """The first and the last second at which the first certificate in ``pem`` is valid.

    Raises:
        ValueError: there is no certificate in it, or none that can be read.
    """
    validity = certificate_fields(pem)[VALIDITY]
    try:
        first, last = (_time(tag, content.decode("ascii")) for tag, content in elements(validity))
    except IndexError as error:
        raise ValueError("the certificate is cut off") from error
    return first, last


def _time(tag: int, text: str) -> datetime:
    if tag == _UTC_TIME:  # two digits of the year
        text = ("19" if text >= "50" else "20") + text
    month, day, hour, minute, second = (int(text[place : place + 2]) for place in range(4, 14, 2))
    return datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=timezone.utc)


FOR_EVERYBODY = ("P-256", "P-384", "RSA")
"""The kinds with which gRPC's library, BoringSSL, can connect and can serve: tried one by one."""
_OBJECT_IDENTIFIER = 0x06
_CURVES = "1.2.840.10045.2.1"
_KINDS = {
    "1.2.840.113549.1.1.1": "RSA",
    "1.2.840.113549.1.1.10": "RSA-PSS",
    "1.2.840.10040.4.1": "DSA",
    "1.2.840.10045.3.1.7": "P-256",
    "1.3.132.0.10": "secp256k1",
    "1.3.132.0.33": "P-224",
    "1.3.132.0.34": "P-384",
    "1.3.132.0.35": "P-521",
    "1.3.36.3.3.2.8.1.1.7": "brainpoolP256r1",
    "1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
    "1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
    "1.3.101.112": "Ed25519",
    "1.3.101.113": "Ed448",
}


def key_kind(pem: bytes) -> str:
    """The kind of the first certificate's key, such as ``P-256``; of one not known here, its identifier.

    Raises:
        ValueError: there is no certificate in ``pem``, or none that can be read.
    """
    try:
        _, algorithm = next(elements(certificate_fields(pem)[PUBLIC_KEY]))
        found = [_dotted(content) for tag, content in elements(algorithm) if tag == _OBJECT_IDENTIFIER]
        kind = found[0] if found[0] != _CURVES else found[1]
    except (IndexError, StopIteration) as error:
        raise ValueError("its key is cut off, or of a curve without a name") from error
    return _KINDS.get(kind, kind)


def _dotted(identifier: bytes) -> str:
    numbers, number = [], 0
    for octet in identifier:
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


_PEM = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----(.+?)-----END ", re.DOTALL)
_VERSION = 0xA0

SERIAL_NUMBER, SIGNATURE, ISSUER, VALIDITY, SUBJECT, PUBLIC_KEY = range(6)


def certificate_fields(pem: bytes) -> list[bytes]:
    """The contents of the fields of the first certificate in ``pem``, without its version.

    Raises:
        ValueError: there is no certificate in it, or none that can be read.
    """
    encoded = _PEM.search(pem)
    if encoded is None:
        raise ValueError("there is no certificate")
    try:
        ((_, certificate),) = elements(binascii.a2b_base64(encoded[1]))
        _, signed = next(elements(certificate))
        fields = [content for tag, content in elements(signed) if tag != _VERSION]
    except (IndexError, StopIteration) as error:
        raise ValueError("the certificate is cut off") from error
    if len(fields) <= PUBLIC_KEY:
        raise ValueError("the certificate is cut off")
    return fields


def elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element. Raises ``IndexError`` where there is less than one."""
    while der:
        tag, length, start = der[0], der[1], 2
        if length & 0x80:  # then it is the length of the length
            start += length & 0x7F
            length = int.from_bytes(der[2:start], "big")
        yield tag, der[start : start + length]
        der = der[start + length :]
