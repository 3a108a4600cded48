"""From when until when a certificate is valid (RFC 5280, section 4.1).

Python's ``ssl`` does not tell that of a server's own certificate, and a library that does would take
more memory than all the rest of TLS, for as long as the server runs.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from datetime import datetime, timezone

_PEM = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----(.+?)-----END ", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17


def certificate_dates(pem: bytes) -> tuple[datetime, datetime]:
    """The first and the last second at which the first certificate in ``pem`` is valid.

    Raises:
        ValueError: there is no certificate in it, or none that can be read.
    """
    encoded = _PEM.search(pem)
    if encoded is None:
        raise ValueError("there is no certificate")
    try:
        ((_, certificate),) = _elements(binascii.a2b_base64(encoded[1]))
        _, signed = next(_elements(certificate))
        fields = [content for tag, content in _elements(signed) if tag != _VERSION]
        _serial_number, _algorithm, _issuer, validity = fields[:4]
        first, last = (_time(tag, content.decode("ascii")) for tag, content in _elements(validity))
    except (IndexError, StopIteration) as error:
        raise ValueError("the certificate is cut off") from error
    return first, last


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element."""
    while der:
        tag, length, start = der[0], der[1], 2
        if length & 0x80:  # then it is the length of the length
            start += length & 0x7F
            length = int.from_bytes(der[2:start], "big")
        yield tag, der[start : start + length]
        der = der[start + length :]


def _time(tag: int, text: str) -> datetime:
    if tag == _UTC_TIME:  # two digits of the year
        text = ("19" if text >= "50" else "20") + text
    month, day, hour, minute, second = (int(text[place : place + 2]) for place in range(4, 14, 2))
    return datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=timezone.utc)
