"""Listing jobs page by page: what to ask for next, and when a server's list is no list any more.

Nothing here does input or output: both clients drive a :class:`Listing`, each in its own way of waiting.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from remsvc.client import job_protocol
from remsvc.client.jobs import Job, JobState
from remsvc.errors import InvalidCommandError, ProtocolError
from remsvc.validation import PAGE_TOKEN

MOST_JOBS = 1_000_000
"""No server keeps so many. A list that is longer is one without an end."""

_MOST_EMPTY_PAGES = 1_000
"""In a row: a server may look through some of its jobs, find none, and have the rest asked for."""


class Listing:
    """Where a list of jobs stands.

    Args:
        states, labels, created_after, page_size: see ``list_jobs`` of the clients.

    Attributes:
        complete: whether there are no more pages.
    """

    def __init__(
        self,
        states: Collection[JobState],
        labels: Mapping[str, str] | None,
        created_after: datetime | None,
        page_size: int,
    ) -> None:
        self._states = states
        self._labels = labels
        self._created_after = created_after
        self._page_size = page_size
        self._token = ""
        self._jobs = 0
        self._empty_pages = 0
        self.complete = False

    def request(self) -> bytes:
        """What asks for the next page. Raises :class:`InvalidCommandError`."""
        return job_protocol.encode_list(
            self._states, self._labels, self._created_after, self._page_size, self._token
        )

    def receive(self, answer: bytes) -> list[Job]:
        """The jobs of a page.

        Raises:
            ProtocolError: it cannot be read, or the list has no end.
        """
        jobs, token = job_protocol.decode_list(answer, self._page_size)
        self.complete = not token
        self._jobs += len(jobs)
        self._empty_pages = 0 if jobs else self._empty_pages + 1
        try:
            PAGE_TOKEN.check(token)  # it could not be sent back
        except InvalidCommandError as error:
            raise ProtocolError(f"the server's {error}") from None
        if token and token == self._token:
            raise ProtocolError("the server's list of jobs does not end: a page leads to itself")
        if self._empty_pages > _MOST_EMPTY_PAGES:
            raise ProtocolError(
                f"the server's list of jobs does not end: {self._empty_pages} pages in a row are empty"
            )
        if self._jobs > MOST_JOBS:
            raise ProtocolError(f"the server's list of jobs does not end: there are over {MOST_JOBS}")
        self._token = token
        return jobs
