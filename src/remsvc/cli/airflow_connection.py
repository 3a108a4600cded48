"""The Airflow connection that reaches a server: ``remsvc://host:port?extra={JSON}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote

from remsvc.client.target import Target


def connection_uri(target: Target, extra: Mapping[str, object]) -> str:
    """The URI, its JSON percent-encoded. It may hold a token: treat it as a secret."""
    return f"remsvc://{target}?extra={quote(json.dumps(extra, separators=(',', ':')), safe='')}"
