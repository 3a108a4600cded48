"""What a caller is told of an error that ended its call: one table for the services of both versions.

A service raises what has happened; :class:`~remsvc.server.calls.guard.Calls` makes the call's status of it.
The text of an error may name files of this host, and is then for the log alone: such an error has a text of
its own here. Of an error that is not in the table a caller learns only that the server has failed.

The table is above the audit log and not at the bottom of the server, because it names the errors of all that
is below the services.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from google.rpc import error_details_pb2

from remsvc.errors import ExecutionError, InvalidCommandError
from remsvc.execution.jobs.files import JobFilesError
from remsvc.execution.jobs.journal import JournalError
from remsvc.execution.jobs.model import (
    JobForgottenError,
    QueueFullError,
    RequestReusedError,
    TooManySearchesError,
    WatchStoppedError,
)
from remsvc.server.audit.writer import AuditError
from remsvc.server.caller import CallContext
from remsvc.server.logs import fields
from remsvc.server.refusal import RefusedError, exhausted
from remsvc.status import StatusCode

_logger = logging.getLogger("remsvc.server")
_job_logger = logging.getLogger("remsvc.job")

_RETRY_SECONDS = 1.0
_JOBS_DOMAIN = "remsvc.jobs.v1"


def status_of(error: Exception) -> RefusedError | None:
    """The status that belongs to an error; None where none does: it is a mistake of the server's."""
    if isinstance(error, RefusedError):
        return error
    for kind, status in _STATUSES.items():
        if isinstance(error, kind):
            return status(error)
    return None


def refusal_of(error: Exception, call: CallContext) -> RefusedError:
    """The status with which an error ends a call. What the caller is not told is logged."""
    refused = status_of(error)
    if refused is None:
        about = fields(method=call.method, peer=call.peer)
        _logger.error("a call has failed %s", about, exc_info=error)
        return RefusedError(StatusCode.UNKNOWN, "the server has failed: its log says how")
    if isinstance(error, _LOGGED):
        _job_logger.error("%s", error)
    return refused


def _as_it_says(code: StatusCode) -> Callable[[Exception], RefusedError]:
    return lambda error: RefusedError(code, str(error))


def _not_now(error: Exception) -> RefusedError:
    return exhausted(str(error), _RETRY_SECONDS)


def _of_journal(error: JournalError) -> RefusedError:
    return exhausted(error.told, _RETRY_SECONDS)


def _of_files(error: JobFilesError) -> RefusedError:
    return RefusedError(StatusCode.UNAVAILABLE, error.told)


def _of_execution(_: ExecutionError) -> RefusedError:
    reason = "the server could not follow the command: whether it ran to its end is not known"
    return RefusedError(StatusCode.INTERNAL, reason)


def _of_reused_request(error: RequestReusedError) -> RefusedError:
    info = error_details_pb2.ErrorInfo(
        reason="REQUEST_ID_REUSED", domain=_JOBS_DOMAIN, metadata={"job": error.job_id}
    )
    return RefusedError(StatusCode.ALREADY_EXISTS, str(error), info)


# A kind of error comes before those that it is one of.
_STATUSES: dict[type[Exception], Callable[[Any], RefusedError]] = {
    InvalidCommandError: _as_it_says(StatusCode.INVALID_ARGUMENT),
    AuditError: _as_it_says(StatusCode.UNAVAILABLE),
    JobForgottenError: _as_it_says(StatusCode.NOT_FOUND),
    WatchStoppedError: _as_it_says(StatusCode.UNAVAILABLE),
    RequestReusedError: _of_reused_request,
    QueueFullError: _not_now,
    TooManySearchesError: _not_now,
    JournalError: _of_journal,
    JobFilesError: _of_files,
    ExecutionError: _of_execution,
}
# An administrator has to learn of these as well. ExecutionError is not among them: the service of the command
# has logged it.
_LOGGED = (QueueFullError, JournalError, JobFilesError)
