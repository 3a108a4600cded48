"""Opens the client that the verbs about jobs use, and says so where a server has no jobs."""

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
    """A block with a client of a server that has jobs.

    Raises:
        RemSvcError: the server has no jobs, as a call in the block has found.
    """
    try:
        with open_client(options.for_jobs()) as client:
            yield client
    except UnimplementedError:
        raise RemSvcError(
            f"{options.target} has no durable jobs: it speaks protocol version 1 alone"
        ) from None
