"""Encrypts the secrets among a trigger's arguments, which Airflow stores, and decrypts them again.

The key is Airflow's own (``[core] fernet_key``), which workers and triggerers have. Airflow encrypts a
trigger's arguments as well, but the API of 3.1 shows them, decrypted, to whoever may see the task.

Where Airflow has no key, it stores nothing encrypted. A token is then not stored at all: the task runs
in its worker. Secrets in commands are stored as plain text, as Airflow stores the commands themselves.
"""

from __future__ import annotations

import json
from typing import Any

from remsvc_provider.version_compat import AirflowException


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
