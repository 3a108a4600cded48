"""The table of limits: each field at its limit is taken; one more is refused, by name, in both services."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remsvc.command import Command
from remsvc.errors import InvalidCommandError
from remsvc.validation import LIMITS, Limit
from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc

from .client import DEADLINE
from .commands import posix_only
from .jobs import new_request_id
from .wire import inside

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = posix_only

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ROOT = Path(__file__).parents[2]
# What else than these statuses comes back was taken: nobody has a user, or a job, of such a name.
TAKEN = (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND)


@pytest.fixture(scope="module")
def channel(serve_module: Callable[..., ServerProcess]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(serve_module("[log]\nlevel = error\n").target) as channel:
        yield channel


# One character of each length in UTF-8.
CHARACTERS = "xéあ\U0001f600"


def text(size: int, character: str = "x") -> str:
    """So many bytes of UTF-8."""
    width = len(character.encode())
    return character * (size // width) + "x" * (size % width)


def of_unit(limit: Limit, more: int, character: str) -> Any:
    """A text that has as much as permitted, and ``more``."""
    size = limit.most + more
    return character * size if limit.unit == "characters" else text(size, character)


def command(**fields: Any) -> tuple[str, Any]:
    return "RemCmd", RemSvc_pb2.RemCmdMsg(**{"cmd": "true", **fields})


def job(**fields: Any) -> tuple[str, Any]:
    hash = fields.pop("hash", "")  # noqa: A001
    request_id = fields.pop("request_id", None) or new_request_id()
    fields = {"working_directory": "/", **fields}
    program = {} if "argv" in fields else {"shell_command": "true"}
    spec = jobs_pb2.JobSpec(**{**program, **fields})
    return "CreateJob", jobs_pb2.CreateJobRequest(request_id=request_id, spec=spec, hash=hash)


def arguments(count: int, size: int = 1) -> Any:
    return jobs_pb2.Argv(args=["/bin/true", *(["x" * size] * (count - 1))])


def all_together(limit: Limit, more: int, _: str) -> tuple[str, Any]:
    program, size = "/bin/true", 100_000
    argv = [program, *["x" * size] * ((limit.most - len(program)) // size)]
    argv.append("x" * (limit.most - sum(map(len, argv)) + more))
    return job(argv=jobs_pb2.Argv(args=argv))


Make = Callable[[Limit, int, str], tuple[str, Any]]

# How to fill each field: as much as is permitted, and so much more.
FIELDS: dict[tuple[str, str], Make] = {
    ("RemCmdMsg", "cmd"): lambda limit, more, c: command(cmd=": " + text(limit.most + more - 2, c)),
    ("RemCmdMsg", "cmdusr"): lambda limit, more, c: command(cmdusr=of_unit(limit, more, c)),
    ("RemCmdMsg", "src"): lambda limit, more, c: command(src=of_unit(limit, more, c)),
    ("PingMsg", "data"): lambda limit, more, c: ("Ping", RemSvc_pb2.PingMsg(data=bytes(limit.most + more))),
    ("JobSpec", "shell_command"): lambda limit, more, c: job(
        shell_command=": " + text(limit.most + more - 2, c)
    ),
    ("JobSpec", "argv"): lambda limit, more, c: job(argv=arguments(limit.most + more)),
    ("JobSpec", "an argument in argv"): lambda limit, more, c: job(
        argv=jobs_pb2.Argv(args=["/bin/true", text(limit.most + more, c)])
    ),
    ("JobSpec", "environment"): lambda limit, more, c: job(
        environment={f"V{number}": "" for number in range(limit.most + more)}
    ),
    ("JobSpec", "the name of a variable in environment"): lambda limit, more, c: job(
        environment={of_unit(limit, more, c): ""}
    ),
    ("JobSpec", "a variable in environment"): lambda limit, more, c: job(
        environment={"V": text(limit.most + more - 2, c)}
    ),
    ("JobSpec", "arguments and variables together"): all_together,
    ("JobSpec", "user"): lambda limit, more, c: job(user=of_unit(limit, more, c)),
    ("JobSpec", "working_directory"): lambda limit, more, c: job(
        working_directory="/" + text(limit.most + more - 1, c)
    ),
    ("JobSpec", "source"): lambda limit, more, c: job(source=of_unit(limit, more, c)),
    ("JobSpec", "standard_input"): lambda limit, more, c: job(standard_input=bytes(limit.most + more)),
    ("JobSpec", "labels"): lambda limit, more, c: job(
        labels={str(number): "" for number in range(limit.most + more)}
    ),
    ("JobSpec", "the key of a label"): lambda limit, more, c: job(labels={of_unit(limit, more, c): ""}),
    ("JobSpec", "the value of a label"): lambda limit, more, c: job(labels={"k": of_unit(limit, more, c)}),
    ("CreateJobRequest", "request_id"): lambda limit, more, c: job(
        request_id=new_request_id().ljust(limit.most + more, "x")
    ),
    ("GetJobRequest", "id"): lambda limit, more, c: (
        "GetJob",
        jobs_pb2.GetJobRequest(id=of_unit(limit, more, c)),
    ),
    ("GetJobRequest", "request_id"): lambda limit, more, c: (
        "GetJob",
        jobs_pb2.GetJobRequest(request_id=of_unit(limit, more, c)),
    ),
    ("ListJobsRequest", "page_token"): lambda limit, more, c: (
        "ListJobs",
        jobs_pb2.ListJobsRequest(page_token="9" * (limit.most + more)),
    ),
    ("ListJobsRequest", "states"): lambda limit, more, c: (
        "ListJobs",
        jobs_pb2.ListJobsRequest(states=[1] * (limit.most + more)),
    ),
    ("ListJobsRequest", "labels"): lambda limit, more, c: (
        "ListJobs",
        jobs_pb2.ListJobsRequest(labels={str(number): c for number in range(limit.most + more)}),
    ),
    ("ListJobsRequest", "the key of a label"): lambda limit, more, c: (
        "ListJobs",
        jobs_pb2.ListJobsRequest(labels={of_unit(limit, more, c): ""}),
    ),
    ("ListJobsRequest", "the value of a label"): lambda limit, more, c: (
        "ListJobs",
        jobs_pb2.ListJobsRequest(labels={"k": of_unit(limit, more, c)}),
    ),
    ("CancelJobRequest", "id"): lambda limit, more, c: (
        "CancelJob",
        jobs_pb2.CancelJobRequest(id=of_unit(limit, more, c)),
    ),
    ("CancelJobRequest", "reason"): lambda limit, more, c: (
        "CancelJob",
        jobs_pb2.CancelJobRequest(id="none", reason=of_unit(limit, more, c)),
    ),
    ("WatchJobRequest", "id"): lambda limit, more, c: (
        "WatchJob",
        jobs_pb2.WatchJobRequest(id=of_unit(limit, more, c)),
    ),
}
TABLE = {(kind, limit.field): limit for kind, limits in LIMITS.items() for limit in limits}
# As error texts name them: the name of the field in the proto file is always part of it.
NAMED = {
    "an argument in argv": "argv",
    "the name of a variable in environment": "environment",
    "a variable in environment": "environment",
    "arguments and variables together": "arguments and variables",
    "the key of a label": "labels",
    "the value of a label": "labels",
}


def call(channel: grpc.Channel, method: str, request: Any) -> tuple[grpc.StatusCode, str]:
    """Its status, and what is said of it."""
    jobs, version_1 = jobs_pb2_grpc.JobServiceStub(channel), RemSvc_pb2_grpc.RemSvcStub(channel)
    stub = getattr(version_1 if hasattr(version_1, method) else jobs, method)
    try:
        answer = stub(request, timeout=DEADLINE)
        if method == "WatchJob":
            list(answer)
    except grpc.RpcError as error:
        refused = error
    else:
        return grpc.StatusCode.OK, ""
    assert trailers_bytes(refused) < 8 * 1024
    return refused.code(), refused.details()


def trailers_bytes(error: Any) -> int:
    """As they travel, at the least."""
    details = "".join(c if " " <= c <= "~" and c != "%" else "%%%" * len(c.encode()) for c in error.details())
    return len(details) + sum(
        len(key) + len(value) * 4 // 3 + 32 for key, value in error.trailing_metadata() or ()
    )


def test_every_field_of_the_table_is_tried() -> None:
    assert set(FIELDS) == set(TABLE)


def test_every_field_that_may_be_large_is_in_the_table() -> None:
    """Whatever the protocols have of texts, bytes, lists and maps."""
    requests = [RemSvc_pb2.PingMsg, RemSvc_pb2.RemCmdMsg, jobs_pb2.JobSpec]
    requests += [getattr(jobs_pb2, kind) for kind in LIMITS if kind.endswith("Request")]
    for request in requests:
        kind = request.DESCRIPTOR
        named = " ".join(limit.field for limit in LIMITS[kind.name])
        for field in kind.fields:
            large = field.type in (field.TYPE_STRING, field.TYPE_BYTES) or field.is_repeated
            assert not large or field.name in (*named.split(), "hsh", "hash"), f"{kind.name}.{field.name}"


@pytest.mark.parametrize("field", FIELDS, ids=".".join)
@settings(max_examples=6)
@given(over=st.integers(1, 50), character=st.sampled_from(CHARACTERS))
def test_as_much_as_permitted_is_taken_and_no_more(
    channel: grpc.Channel, field: tuple[str, str], over: int, character: str
) -> None:
    limit = TABLE[field]
    method, request = FIELDS[field](limit, 0, character)
    code, details = call(channel, method, request)
    assert code in TAKEN, details
    method, request = FIELDS[field](limit, over, character)
    code, details = call(channel, method, request)
    assert code is INVALID, details
    assert NAMED.get(limit.field, limit.field) in details
    assert re.search(rf"\b{limit.most}\b", details), details


@pytest.mark.parametrize("size", [9, 100_000])
def test_a_hash_of_any_other_length_is_a_wrong_one(channel: grpc.Channel, size: int) -> None:
    for request in (command(hsh="0" * size), job(hash="0" * size)):
        assert call(channel, *request) == (INVALID, "hash mismatch: command integrity check failed")


def test_a_stream_is_held_to_the_same(channel: grpc.Channel) -> None:
    stub = RemSvc_pb2_grpc.RemSvcStub(channel)
    requests = [RemSvc_pb2.RemCmdMsg(cmd="true", src="x" * size) for size in (4096, 4097)]
    answers = stub.RemCmdStrm(iter(requests), timeout=DEADLINE)
    assert next(answers).rc == 0
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is INVALID
    assert caught.value.details() == "src: expected at most 4096 bytes, not 4097"


# Whole messages


_ROOM = 4 * 1024**2 - 100  # of a CreateJobRequest
COUNTED = {
    "argv": ("CreateJob", inside(2, inside(2, b"\x0a\x00" * (_ROOM // 2)))),
    "environment": (
        "CreateJob",
        inside(2, b"".join(inside(6, inside(1, b"%x" % n)) for n in range(_ROOM // 11))),
    ),
    "labels": (
        "CreateJob",
        inside(2, b"".join(inside(11, inside(1, b"%x" % n)) for n in range(_ROOM // 11))),
    ),
    "fields": ("CreateJob", b"\xf8\x07\x01" * (_ROOM // 3)),
    "states": ("ListJobs", inside(3, b"\x01" * 120_000)),
    "page_token": ("ListJobs", inside(2, b"9" * 1_000_000)),
    "user": ("CreateJob", inside(1, b"r") + inside(2, inside(1, b"true") + inside(4, b"x" * 4_190_000))),
    "cmd": ("RemCmd", inside(1, b"x" * 3_000_000)),
    "data": ("Ping", inside(3, bytes(3_000_000))),
    "reason": ("CancelJob", inside(2, b"x" * 3_000_000)),
    "id": ("WatchJob", inside(1, b"x" * 3_000_000)),
}


@pytest.mark.parametrize("field", COUNTED)
def test_what_is_far_too_large_is_refused_by_its_name(channel: grpc.Channel, field: str) -> None:
    """Whatever is wrong with it: the same status, and the field's name."""
    method, data = COUNTED[field]
    service = "RS.RemSvc" if method in ("RemCmd", "Ping") else "remsvc.jobs.v1.JobService"
    kind: Any = channel.unary_stream if method == "WatchJob" else channel.unary_unary
    with pytest.raises(grpc.RpcError) as caught:
        list(kind(f"/{service}/{method}")(data, timeout=DEADLINE))
    assert caught.value.code() is INVALID, caught.value.details()
    assert field in caught.value.details()


# Without a server


@given(st.data())
def test_a_limit_counts_what_it_says(data: st.DataObject) -> None:
    limit = Limit("f", data.draw(st.integers(0, 40)), data.draw(st.sampled_from(["bytes", "characters"])), "")
    value = data.draw(st.text(max_size=60))
    size = len(value.encode("utf-8", "surrogatepass")) if limit.unit == "bytes" else len(value)
    if size <= limit.most:
        limit.check(value)
    else:
        with pytest.raises(InvalidCommandError, match=f"^f: expected at most {limit.most} {limit.unit}, not"):
            limit.check(value)


def test_a_client_refuses_before_it_sends() -> None:
    for name in ("cmd", "cmdusr", "src"):
        limit = TABLE["RemCmdMsg", name]
        Command(**{"cmd": "x", name: "x" * limit.most}).validate()
        with pytest.raises(InvalidCommandError, match=f"^{name}: expected at most {limit.most} bytes"):
            Command(**{"cmd": "x", name: "x" * (limit.most + 1)}).validate()


def test_the_documentation_has_the_same_table() -> None:
    page = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| ([\d,]+) (\w+) \| (.+?) \|$", page, re.MULTILINE)
    told = {
        (kind, field.strip("`")): (int(most.replace(",", "")), unit) for kind, field, most, unit, _ in rows
    }
    assert told == {field: (limit.most, limit.unit) for field, limit in TABLE.items()}
    assert {why for *_, why in rows} == {limit.why for limit in TABLE.values()}
