"""What a caller of the durable jobs is told instead of a job."""

from __future__ import annotations

from remsvc.errors import RemSvcError


class RequestReusedError(RemSvcError):
    """The request id was used before, with other content.

    Attributes:
        job_id: of the job that it made.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"the request id was used for job {job_id}, with other content")


class QueueFullError(RemSvcError):
    """As many jobs wait as may wait."""


class TooManySearchesError(RemSvcError):
    """As many searches of one identity are under way as may be."""


class WatchStoppedError(RemSvcError):
    """The watch ends before its job does: the server is shutting down."""


class JobForgottenError(RemSvcError):
    """The job ended so long ago that it is not kept any more."""
