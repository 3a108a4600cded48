"""Secrets of an operator's fields, kept out of whatever Airflow stores or shows.

They travel to the triggerer encrypted with Airflow's own key (``[core] fernet_key``). Airflow encrypts a
trigger's arguments as well, but the API of 3.1 shows them to whoever may see the task.

A token belongs into the connection. Where a DAG passes an ``authorization`` entry in ``metadata`` all the
same, it is hidden from the rendered template view, and never travels as plain text. Secrets in commands do
where Airflow has no key: it stores nothing encrypted then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

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


def seal(what: str, value: Any) -> str:
    """Encrypt a JSON value.

    Args:
        what: it is, for an error.
        value: any JSON.

    Raises:
        AirflowException: Airflow has no key.
    """
    from airflow.models.crypto import get_fernet

    if not can_seal():
        raise AirflowException(
            f"{what} cannot be encrypted without [core] fernet_key: put the token into the connection's "
            f"bearer_token"
        )
    return get_fernet().encrypt(json.dumps(value).encode()).decode()


def unseal(what: str, sealed: str) -> Any:
    """Decrypt what :func:`seal` made.

    Raises:
        AirflowException: it was encrypted with another key.
    """
    from airflow.models.crypto import get_fernet
    from cryptography.fernet import InvalidToken

    try:
        return json.loads(get_fernet().decrypt(sealed.encode()))
    except InvalidToken:
        raise AirflowException(
            f"{what} was encrypted with another [core] fernet_key than this triggerer's: give both the same "
            f"key, or put the token into the connection's bearer_token"
        ) from None


def pairs(value: Any) -> Metadata:
    """Metadata as it was before it became JSON."""
    return [(key, text) for key, text in value]
