"""The client of the verbs about jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from remsvc.cli.connection import open_client
from remsvc.errors import RemSvcError, UnimplementedError

if TYPE_CHECKING:
    from remsvc.client import Client, ConnectionOptions


@contextmanager
def job_client(options: ConnectionOptions) -> Iterator[Client]:
    """A client of a server that has jobs.

    Raises:
        RemSvcError: on use, where it has none.
    """
    try:
        with open_client(options.for_jobs()) as client:
            yield client
    except UnimplementedError:
        raise RemSvcError(
            f"{options.target} has no durable jobs: it speaks protocol version 1 alone"
        ) from None
