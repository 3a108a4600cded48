"""``CreateJob``: what it checks, in which order, and what the job says afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from remsvc_proto.remsvc.jobs.v1 import jobs_pb2

from .commands import posix_only
from .jobs import JobClient, crc32, new_request_id, refused, spec, state

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = posix_only

INVALID, DENIED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED

CONFIG = r"""
[denylist]
1 = rm\s+-rf\s+/
2 = (?i)forbidden
[allowlist]
1 = ^(echo|cat|sleep|rm|/bin/|true|printf|forbidden)
[jobs]
time_limit_ms = 60000
kill_grace_ms = 1500
output_limit_bytes = 1000000
max_output_limit_bytes = 2000000
"""


@pytest.fixture(scope="module")
def channel(serve_module: Callable[..., ServerProcess]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(serve_module(CONFIG).target) as channel:
        yield channel


@pytest.fixture(scope="module")
def jobs(channel: grpc.Channel) -> JobClient:
    return JobClient(channel)


def test_a_job_as_it_was_created(jobs: JobClient) -> None:
    job = jobs.create(
        spec(
            "echo é",
            working_directory="/tmp",
            environment={"A": "b"},
            labels={"dag": "nightly"},
            source="here",
            standard_input=b"secret",
            output_limit=5,
            kill_grace=0.25,
            time_limit=2.5,
            lease=100,
        ),
        "as it was created",
    )
    assert job.request_id == "as it was created"
    assert job.identity == "anonymous"
    assert state(job) == "RUNNING"
    assert job.id
    assert job.create_time.seconds > 1_600_000_000
    assert not job.HasField("end_time")
    assert not job.HasField("expire_time")
    assert not job.HasField("exit_code")
    created = job.spec
    assert (created.shell_command, created.working_directory, created.source) == ("echo é", "/tmp", "here")
    assert (dict(created.environment), dict(created.labels)) == ({"A": "b"}, {"dag": "nightly"})
    assert (created.output_limit, created.standard_input) == (5, b"")
    assert created.kill_grace.ToMilliseconds() == 250
    assert created.time_limit.ToMilliseconds() == 2500
    assert created.lease.ToMilliseconds() == 100_000
    ended = jobs.watch(job.id).job
    assert ended.spec == created
    assert (ended.id, ended.create_time) == (job.id, job.create_time)
    assert (state(ended), ended.exit_code, ended.HasField("exit_code")) == ("SUCCEEDED", 0, True)
    assert (
        ended.create_time.ToNanoseconds()
        <= ended.start_time.ToNanoseconds()
        <= ended.end_time.ToNanoseconds()
    )
    assert ended.expire_time.seconds - ended.end_time.seconds in (7 * 86400, 7 * 86400 + 1)


def test_defaults_are_filled_in(jobs: JobClient) -> None:
    created = jobs.create(spec(None, "/bin/echo", "a")).spec
    assert list(created.argv.args) == ["/bin/echo", "a"]
    assert created.WhichOneof("program") == "argv"
    assert created.time_limit.seconds == 60
    assert created.kill_grace.ToMilliseconds() == 1500
    assert created.output_limit == 1_000_000
    assert created.shell_type == jobs_pb2.SHELL_TYPE_NATIVE
    assert not created.HasField("lease")


def test_no_more_output_is_kept_than_the_server_allows(jobs: JobClient) -> None:
    asked = spec("true", output_limit=2**63 - 1)
    created = jobs.create(asked, "much output")
    assert created.spec.output_limit == 2_000_000
    assert jobs.create(asked, "much output").id == created.id


def test_without_a_time_limit_there_is_none(serve: Callable[..., ServerProcess]) -> None:
    with grpc.insecure_channel(serve().target) as channel:
        created = JobClient(channel).create(spec("true")).spec
    assert not created.HasField("time_limit")
    assert created.kill_grace.seconds == 10


BAD_SPECS = {
    "nothing to run": (jobs_pb2.JobSpec(), "spec: expected shell_command or argv"),
    "blank": (spec(" \t\n"), "shell_command: must not be blank"),
    "NUL": (spec("echo \0"), "shell_command: must not contain a NUL"),
    "too long": (spec("echo " + "x" * 131_072), "shell_command: expected at most 131071 bytes, not 131077"),
    "empty argv": (jobs_pb2.JobSpec(argv=jobs_pb2.Argv()), "argv: expected a program"),
    "empty program": (spec(None, "", "a"), "argv: expected a program"),
    "NUL in argv": (spec(None, "/bin/echo", "\0"), "argv: must not contain a NUL"),
    "shell type": (spec("true", shell_type=7), "shell_type: 7"),
    "NUL in user": (spec("true", user="a\0"), "user: must not contain a NUL"),
    "relative folder": (
        spec("true", working_directory="tmp"),
        "working_directory: 'tmp': expected",
    ),
    "NUL in folder": (spec("true", working_directory="/\0"), "working_directory: must not contain a NUL"),
    "NUL in source": (spec("true", source="\0"), "source: must not contain a NUL"),
    "variable without a name": (spec("true", environment={"": "a"}), "environment: ''"),
    "= in a name": (spec("true", environment={"A=B": "a"}), "environment: 'A=B'"),
    "NUL in a value": (spec("true", environment={"A": "\0"}), "environment: 'A'"),
    "the server's own variable": (
        spec("true", environment={"REMSVC_COMMAND_ID": "x"}),
        "environment: REMSVC_COMMAND_ID",
    ),
    "long input": (
        spec("true", standard_input=bytes(1024 * 1024 + 1)),
        "standard_input: expected at most",
    ),
    "no time": (spec("true", time_limit=0), "time_limit: expected a duration"),
    "negative time": (spec("true", time_limit=-1), "time_limit: expected a duration"),
    "negative grace": (spec("true", kill_grace=-0.5), "kill_grace: expected a duration"),
    "no lease": (spec("true", lease=0), "lease: expected a duration"),
    "negative output": (spec("true", output_limit=-1), "output_limit: must not be negative"),
    "many labels": (spec("true", labels={str(n): "" for n in range(33)}), "labels: expected at most 32"),
    "label without a name": (spec("true", labels={"": "a"}), "labels: ''"),
    "long label": (spec("true", labels={"a" * 64: "a"}), "labels: 'aaa"),
    "long value": (spec("true", labels={"a": "a" * 256}), "labels: 'a'"),
    "NUL in a label": (spec("true", labels={"a": "\0"}), "labels: 'a'"),
}


@pytest.mark.parametrize("name", BAD_SPECS)
def test_a_malformed_job_is_refused(jobs: JobClient, name: str) -> None:
    message, text = BAD_SPECS[name]
    request_id = new_request_id()
    with refused(INVALID, text):
        jobs.create(message, request_id)
    with refused(grpc.StatusCode.NOT_FOUND):
        jobs.get(request_id=request_id)


@pytest.mark.parametrize("request_id", ["", "a" * 129, "a\nb", "é", "\x7f", "a\0"])
def test_a_malformed_request_id_is_refused(jobs: JobClient, request_id: str) -> None:
    with refused(INVALID, "request_id: expected 1 to 128 printable ASCII characters"):
        jobs.create(spec("true"), request_id)


@pytest.mark.parametrize("request_id", ["a", "~" * 128, " ", "dag/task [3] \"x\" 'y' %00 \\"])
def test_any_printable_request_id_will_do(jobs: JobClient, request_id: str) -> None:
    job = jobs.create(spec("true"), request_id)
    assert jobs.get(request_id=request_id).id == job.id


def test_the_largest_of_everything(jobs: JobClient) -> None:
    data = os.urandom(1024 * 1024)
    labels = {f"{n:063}": "v" * 255 for n in range(32)}
    job = jobs.create(spec("cat", standard_input=data, labels=labels, output_limit=2_000_000))
    assert jobs.watch(job.id).stdout == data
    assert dict(jobs.get(job.id).spec.labels) == labels


@pytest.mark.parametrize("method", ["CreateJob", "GetJob", "ListJobs", "CancelJob", "WatchJob"])
def test_bytes_that_are_no_request(channel: grpc.Channel, method: str) -> None:
    kind: Any = channel.unary_stream if method == "WatchJob" else channel.unary_unary
    with refused(INVALID, "not a valid remsvc.jobs.v1."):
        list(kind(f"/remsvc.jobs.v1.JobService/{method}")(b"\xff\xff\xff", timeout=30))


# Policy and hash


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (spec("rm  -rf /"), "command denied by denylist"),
        (spec(None, "rm", "-rf", "/"), "command denied by denylist"),
        (spec(None, "/bin/echo", "ForBidden"), "command denied by denylist"),
        (spec("whoami"), "command not permitted by allowlist"),
        (spec(None, "/usr/bin/whoami"), "command not permitted by allowlist"),
        # Whatever is denied is refused first, also where it is not permitted either.
        (spec("x forbidden"), "command denied by denylist"),
    ],
)
def test_policy_sees_shell_text_and_arguments(jobs: JobClient, message: Any, text: str) -> None:
    request_id = new_request_id()
    with refused(DENIED, text):
        jobs.create(message, request_id)
    with refused(grpc.StatusCode.NOT_FOUND):
        jobs.get(request_id=request_id)


@pytest.mark.parametrize(
    ("message", "content"),
    [
        (spec("echo é"), "echo é"),
        (spec(None, "/bin/echo", "a b", "", "é"), ["/bin/echo", "a b", "", "é"]),
    ],
)
def test_the_hash(jobs: JobClient, message: Any, content: Any) -> None:
    assert jobs.create(message, digest=crc32(content)).id
    assert jobs.create(message, digest="").id
    for wrong in (crc32("something else"), crc32(content).upper() + "x", "0"):
        with refused(INVALID, "hash mismatch: command integrity check failed"):
            jobs.create(message, digest=wrong)


def test_the_order_of_the_checks(jobs: JobClient) -> None:
    """The request's form, then policy, then hash."""
    with refused(INVALID, "output_limit"):
        jobs.create(spec("forbidden", output_limit=-1), digest="wrong")
    with refused(DENIED, "command denied by denylist"):
        jobs.create(spec("forbidden"), digest="wrong")


# The same request again


def test_the_same_request_gives_the_same_job(jobs: JobClient, tmp_path: Path) -> None:
    message = spec(f"echo run >> {tmp_path}/log; cat", standard_input=b"in")
    first = jobs.create(message, "twice")
    again = jobs.create(message, "twice")
    assert again.id == first.id
    ended = jobs.watch(first.id).job
    assert jobs.create(message, "twice", digest=crc32(message.shell_command)) == ended
    assert (tmp_path / "log").read_text() == "run\n"


def test_defaults_that_are_named_are_other_content_than_none(jobs: JobClient) -> None:
    """What counts is what was asked for: a changed configuration makes no request another one."""
    jobs.create(spec("true"), "defaults")
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        jobs.create(spec("true", time_limit=60), "defaults")


@pytest.mark.parametrize(
    "other",
    [
        spec("echo b", standard_input=b"in"),
        spec("echo a", standard_input=b"other"),
        spec("echo a"),
        spec(None, "echo", "a", standard_input=b"in"),
        spec("echo a", standard_input=b"in", labels={"a": "b"}),
        spec("echo a", standard_input=b"in", source="elsewhere"),
        spec("echo a", standard_input=b"in", shell_type=jobs_pb2.SHELL_TYPE_POWERSHELL),
    ],
)
def test_the_same_request_id_with_other_content(jobs: JobClient, other: Any) -> None:
    message = spec("echo a", standard_input=b"in")
    request_id = new_request_id()
    first = jobs.create(message, request_id)
    with refused(grpc.StatusCode.ALREADY_EXISTS, "the request id was used for job") as refusal:
        jobs.create(other, request_id)
    assert refusal.error_info.reason == "REQUEST_ID_REUSED"
    assert refusal.error_info.domain == "remsvc.jobs.v1"
    assert dict(refusal.error_info.metadata) == {"job": first.id}
    assert jobs.create(message, request_id).id == first.id


def test_native_and_unspecified_are_the_same(jobs: JobClient) -> None:
    request_id = new_request_id()
    first = jobs.create(spec("true"), request_id)
    assert jobs.create(spec("true", shell_type=jobs_pb2.SHELL_TYPE_NATIVE), request_id).id == first.id
