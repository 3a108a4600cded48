"""The few names that Airflow keeps in different places in 3.1 and later."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

try:
    from airflow.sdk.configuration import conf
except ImportError:  # Airflow 3.1
    from airflow.configuration import conf  # type: ignore[no-redef, unused-ignore]

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
except ImportError:  # Airflow 3.1
    from airflow.exceptions import (  # type: ignore[attr-defined, no-redef]
        AirflowException,
        AirflowFailException,
        AirflowSkipException,
    )

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Connection

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowSkipException",
    "aget_connection",
    "amask_secret",
    "conf",
    "masked_parts",
    "names_a_secret",
    "template_environment",
]


async def aget_connection(conn_id: str) -> Connection:
    """Look a connection up without blocking the event loop."""
    try:
        return await BaseHook.aget_connection(conn_id)
    except ImportError:  # Airflow 3.1, outside of its own processes
        return await asyncio.to_thread(BaseHook.get_connection, conn_id)


async def amask_secret(secret: str) -> None:
    """Have Airflow mask ``secret`` in its logs; for use inside an event loop."""
    try:
        from airflow.sdk.log import amask_secret as mask
    except ImportError:  # Airflow 3.1
        from airflow.sdk.log import mask_secret

        mask_secret(secret)
    else:
        await mask(secret)


def masked_parts(text: str) -> set[str]:
    """What Airflow would mask of a text in this process's logs."""
    # Its public functions say what is left, but not what they took out.
    try:
        from airflow.sdk._shared.secrets_masker import _secrets_masker

        pattern = _secrets_masker().replacer
    except (ImportError, AttributeError):
        return _parts_left_out(text, _as_logged("", text))
    return set() if pattern is None else {found.group() for found in pattern.finditer(text)}


def names_a_secret(name: str) -> bool:
    """Whether Airflow hides what stands under this name: of a Variable, or a key in a field."""
    try:
        from airflow.sdk._shared.secrets_masker import should_hide_value_for_key
    except ImportError:
        return _as_logged(name, "") != ""
    return bool(should_hide_value_for_key(name))  # type: ignore[no-untyped-call]


def template_environment(*, native: bool) -> jinja2.Environment:
    """What Airflow 3.3 and later render the templates of a DAG in that defines nothing of its own."""
    from airflow.sdk.definitions._internal.templater import create_template_env

    return create_template_env(native=native)


def _as_logged(name: str, text: str) -> str:
    """What Airflow would log of a text under this name."""
    from airflow.sdk.log import mask_logs

    return str(mask_logs(None, "", {name: text})[name])


def _parts_left_out(text: str, masked: str) -> set[str]:
    """What stands in ``text`` where ``masked`` has ``***``; and all of the text, because with several such
    parts it is not certain where each of them ends."""
    if masked == text:
        return set()
    parts = re.fullmatch("(.+?)".join(map(re.escape, masked.split("***"))), text, re.DOTALL)
    return {text, *(parts.groups() if parts else ())}
