"""The few names that Airflow keeps in different places in 3.1 and later."""

from __future__ import annotations

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # Airflow 3.1
    from airflow.exceptions import (  # type: ignore[attr-defined, no-redef]
        AirflowException,
        AirflowFailException,
    )

__all__ = ["AirflowException", "AirflowFailException", "amask_secret"]


async def amask_secret(secret: str) -> None:
    """Have Airflow mask ``secret`` in its logs; for use inside an event loop."""
    try:
        from airflow.sdk.log import amask_secret as mask
    except ImportError:  # Airflow 3.1
        from airflow.sdk.log import mask_secret

        mask_secret(secret)
    else:
        await mask(secret)
