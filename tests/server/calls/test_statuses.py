"""What a caller is told of an error, and what only the log is."""

from __future__ import annotations

import inspect
import logging

import pytest

import remsvc.execution.jobs.model as jobs
from remsvc.errors import ExecutionError, InvalidCommandError, RemSvcError
from remsvc.execution.jobs.files import JobFilesError
from remsvc.execution.jobs.journal import JournalError
from remsvc.server.audit.writer import AuditError
from remsvc.server.bounds.rate_limit import Rate
from remsvc.server.calls.admission import Admission
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.calls.guard import Calls
from remsvc.server.calls.methods import Method
from remsvc.server.calls.verification import CallVerification
from remsvc.server.identity.authentication import Authenticator
from remsvc.server.identity.failed_authentication import FailedAuthentications
from remsvc.server.refusal import RefusedError
from remsvc_proto import RemSvc_pb2
from tests.server.calls.call_in_hand import CallInHand

PATH = "/var/lib/remsvc/journal.sqlite"
UNFORESEEN = [FileNotFoundError(2, "not there", PATH), ValueError(PATH)]
ERRORS_OF_JOBS = [
    kind
    for _, kind in inspect.getmembers(jobs, inspect.isclass)
    if issubclass(kind, RemSvcError) and kind.__module__ == jobs.__name__
]


async def refusal(error: Exception) -> RefusedError:
    """How a call ends whose method raises ``error``."""

    async def answer(_: object, __: object) -> None:
        raise error

    authentication = CallVerification(
        Authenticator(), lambda *_: None, FailedAuthentications(Rate(1000, 1.0))
    )
    calls = Calls(authentication, Admission(LimitsConfig()), 60.0)
    method = Method("/test/Fails", RemSvc_pb2.Empty, 0, one=answer)
    with pytest.raises(RefusedError) as caught:
        await calls.answer(CallInHand(method.name, RemSvc_pb2.Empty()), method)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        ExecutionError(PATH),
        JournalError(PATH),
        JobFilesError(FileNotFoundError(2, "not there", PATH)),
        FileNotFoundError(2, "not there", PATH),
        ValueError(PATH),
    ],
)
async def test_no_path_of_the_server_reaches_a_caller(error: Exception) -> None:
    refused = await refusal(error)
    assert PATH not in str(refused)
    assert PATH.encode() not in b"".join(value for _, value in refused.metadata)


@pytest.mark.parametrize(
    "error", [JournalError(PATH), FileNotFoundError(2, "not there", PATH), ValueError(PATH)]
)
async def test_what_the_caller_is_not_told_is_in_the_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        await refusal(error)
    assert PATH in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidCommandError("blank"), "INVALID_ARGUMENT"),
        (AuditError("full"), "UNAVAILABLE"),
        (ExecutionError("lost"), "INTERNAL"),
        (JournalError("broken"), "RESOURCE_EXHAUSTED"),
        (ValueError("a mistake of the server's"), "UNKNOWN"),
    ],
)
async def test_each_error_has_its_status(error: Exception, code: str) -> None:
    assert (await refusal(error)).code.name == code


@pytest.mark.parametrize("kind", ERRORS_OF_JOBS)
async def test_every_error_of_jobs_has_a_status(kind: type[RemSvcError]) -> None:
    """A caller who asks for too much, or for what is gone, is never told that the server has failed."""
    assert (await refusal(kind("j1"))).code.name != "UNKNOWN"


async def test_errors_of_jobs_are_in_the_log_of_jobs(caplog: pytest.LogCaptureFixture) -> None:
    """Alerts on full queues and full disks look for them there, under these words."""
    with caplog.at_level(logging.ERROR):
        await refusal(jobs.QueueFullError("the queue is full"))
    assert caplog.record_tuples == [("remsvc.job", logging.ERROR, "the queue is full")]
