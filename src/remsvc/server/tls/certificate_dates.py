"""From when until when a certificate is valid (RFC 5280, section 4.1.2.5)."""

from __future__ import annotations

from datetime import datetime, timezone

from remsvc.server.tls.certificate import VALIDITY, certificate_fields, elements

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
