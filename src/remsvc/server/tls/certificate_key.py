"""Of which kind a certificate's key is, and who can use it."""

from __future__ import annotations

from remsvc.server.tls.certificate import PUBLIC_KEY, certificate_fields, elements

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
