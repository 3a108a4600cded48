"""The fields of a certificate, in the order of RFC 5280, section 4.1.

Python's ``ssl`` does not tell what is in a server's own certificate, and a library that does would take
more memory than all the rest of TLS, for as long as the server runs.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

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
