"""Secrets of the operator's ``metadata``, kept out of whatever Airflow stores or shows.

A token belongs into the connection. Where a DAG passes an ``authorization`` entry all the same, it
is hidden from the rendered template view, and it travels to the triggerer encrypted with Airflow's
own key (``[core] fernet_key``), never as plain text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from remsvc_provider.version_compat import AirflowException

Metadata = list[tuple[str, str]]

HIDDEN = "***"
AUTHORIZATION = "authorization"


def is_secret(key: object) -> bool:
    """Whether the value under this metadata key is a credential."""
    return isinstance(key, str) and key.strip().lower() == AUTHORIZATION


def split(metadata: Iterable[tuple[str, str]]) -> tuple[Metadata, Metadata]:
    """The public entries, and the secret ones."""
    pairs = [(key, value) for key, value in metadata]
    return [pair for pair in pairs if not is_secret(pair[0])], [pair for pair in pairs if is_secret(pair[0])]


def can_seal() -> bool:
    """Whether Airflow has a key. The command ``airflow`` makes one when it first writes its configuration."""
    from airflow.models.crypto import get_fernet

    return get_fernet().is_encrypted


def seal(metadata: Metadata) -> str:
    """Encrypt entries.

    Raises:
        AirflowException: Airflow has no key.
    """
    from airflow.models.crypto import get_fernet

    if not can_seal():
        raise AirflowException(
            "metadata has an authorization entry, and without [core] fernet_key it cannot be encrypted: "
            "put the token into the connection's bearer_token"
        )
    return get_fernet().encrypt(json.dumps(metadata).encode()).decode()


def unseal(sealed: str) -> Metadata:
    """Decrypt what :func:`seal` made.

    Raises:
        AirflowException: it was encrypted with another key.
    """
    from airflow.models.crypto import get_fernet
    from cryptography.fernet import InvalidToken

    try:
        return [(key, value) for key, value in json.loads(get_fernet().decrypt(sealed.encode()))]
    except InvalidToken:
        raise AirflowException(
            "the authorization entry of metadata was encrypted with another [core] fernet_key than this "
            "triggerer's: give both the same key, or put the token into the connection's bearer_token"
        ) from None
