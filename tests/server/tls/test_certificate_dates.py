"""From when until when a certificate is valid, and what is said of one that is not."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from remsvc.server.config import check_config
from remsvc.server.tls.certificate import certificate_dates

UTC = datetime.timezone.utc
FIRST = datetime.datetime(2020, 2, 29, 23, 59, 58, tzinfo=UTC)


def certificate(
    directory: Path, first: datetime.datetime, last: datetime.datetime, *, rsa_key: bool = False
) -> bytes:
    """Its PEM form; also in ``cert.pem``, with the key in ``key.pem``."""
    key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
    # Long enough that lengths take one, two and three bytes.
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "n" * 60)])
    names = x509.SubjectAlternativeName([x509.DNSName(f"host{number}.example.org") for number in range(50)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(names, critical=False)
    signed = builder.not_valid_before(first).not_valid_after(last).sign(key, hashes.SHA256())
    pem = signed.public_bytes(serialization.Encoding.PEM)
    (directory / "cert.pem").write_bytes(pem)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key.pem").touch(mode=0o600)
    (directory / "key.pem").write_bytes(key.private_bytes(*form))
    return pem


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (FIRST, datetime.datetime(2030, 12, 31, 0, 0, 1, tzinfo=UTC)),
        (datetime.datetime(1950, 1, 1, tzinfo=UTC), datetime.datetime(1999, 12, 31, tzinfo=UTC)),
        (FIRST, datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (FIRST, datetime.datetime(2050, 1, 1, tzinfo=UTC)),
        (datetime.datetime(2051, 6, 7, 8, 9, 10, tzinfo=UTC), datetime.datetime(9999, 12, 31, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("rsa_key", [False, True])
def test_the_dates(tmp_path: Path, first: datetime.datetime, last: datetime.datetime, rsa_key: bool) -> None:
    pem = certificate(tmp_path, first, last, rsa_key=rsa_key)
    assert certificate_dates(pem) == (first, last)
    other = certificate(tmp_path, FIRST, FIRST + datetime.timedelta(1))
    assert certificate_dates(b"subject=CN = n\r\n" + pem.replace(b"\n", b"\r\n") + other) == (first, last)


def test_what_is_no_certificate(tmp_path: Path) -> None:
    pem = certificate(tmp_path, FIRST, FIRST + datetime.timedelta(1))
    lines = pem.splitlines(keepends=True)
    for length in range(len(lines)):
        cut = b"".join(lines[:length])
        for text in (cut, cut + lines[-1]):
            try:  # all of the dates may stand in what is left
                assert certificate_dates(text)[0] == FIRST
            except ValueError:
                continue
    with pytest.raises(ValueError, match="no certificate"):
        certificate_dates(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


@pytest.mark.parametrize(
    ("days", "warning"),
    [
        ((-2, -1), "the certificate expired on {last:%Y-%m-%d}"),
        ((2, 3), "the certificate is not valid before {first:%Y-%m-%d}"),
        ((-1, 1), None),
    ],
)
def test_a_certificate_out_of_its_time_is_warned_of(
    tmp_path: Path, days: tuple[int, int], warning: str | None
) -> None:
    now = datetime.datetime.now(UTC)
    first, last = (now + datetime.timedelta(number) for number in days)
    certificate(tmp_path, first, last)
    config = tmp_path / "server.ini"
    text = f"[tls]\nenabled = true\ncert = {tmp_path}/cert.pem\nkey = {tmp_path}/key.pem\n"
    config.write_text(text, encoding="utf-8")
    problems, warnings = check_config(config)
    assert problems == []
    about_dates = [line for line in warnings if "the certificate" in line]
    expected = [] if warning is None else [f"{tmp_path}/cert.pem: {warning.format(first=first, last=last)}"]
    assert about_dates == expected
