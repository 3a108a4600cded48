"""Libraries that come with an extra of the package: say which one where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from remsvc.errors import RemSvcError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around imports: a missing library becomes one clear line."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "remsvc":
            raise
        raise RemSvcError(
            f"this needs the library {missing}: pip install 'airflow-provider-remsvc[{extra}]'"
        ) from error
