"""Says which extra of the package to install where a library is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from remsvc.errors import RemSvcError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """A block around imports: for a missing library, an error of one line names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "remsvc":
            raise
        raise RemSvcError(
            f"this needs the library {missing}: pip install 'airflow-provider-remsvc[{extra}]'"
        ) from error
