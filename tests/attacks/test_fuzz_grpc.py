"""The gRPC surface: arbitrary bytes, and valid messages of arbitrary content, to every method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc_proto import RemSvc_pb2
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from tests.attacks.conftest import METADATA, TOKEN, raw
from tests.attacks.fuzzing import corpus, fuzz
from tests.attacks.raw_http2 import ACK, PREFACE, SETTINGS, RawPeer, frame
from tests.conftest import DEADLINE, Serve, ServerProcess

_JOB_SERVICE = jobs_pb2.DESCRIPTOR.services_by_name["JobService"]
REMSVC, JOBS = "/RS.RemSvc/", f"/{_JOB_SERVICE.full_name}"
METHODS = [
    *(REMSVC + name for name in ("Ping", "GetStatus", "RemCmd", "RemCmdStrm", "Nothing")),
    *(f"{JOBS}/{method.name}" for method in _JOB_SERVICE.methods),
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/",
    "//",
    "/../Ping",
]
# What a caller may be told about bad input. Never INTERNAL or UNKNOWN: those are mistakes of ours.
REFUSALS = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> ServerProcess:
    """One that permits no command."""
    return serve_module(f"[auth]\ngood = {TOKEN}\n[allowlist]\nnothing = ^$\n[jobs]\nmax_queued = 10\n")


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as channel:
        yield channel


@contextmanager
def unharmed(server: ServerProcess) -> Iterator[None]:
    before = len(server.log)
    yield
    assert server.process.poll() is None
    assert "Traceback" not in server.log[before:], server.log[before:]


def send(channel: grpc.Channel, method: str, *messages: bytes) -> grpc.StatusCode:
    call = channel.stream_stream(method)(iter(messages), metadata=METADATA, timeout=DEADLINE)
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error.code()  # type: ignore[no-any-return]
    return grpc.StatusCode.OK


@fuzz
@given(method=st.sampled_from(METHODS), messages=st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_arbitrary_bytes(
    server: ServerProcess, channel: grpc.Channel, method: str, messages: list[bytes]
) -> None:
    with unharmed(server):
        assert send(channel, method, *messages) in REFUSALS


@pytest.mark.parametrize("content", **corpus("messages"))
def test_the_corpus_of_messages(server: ServerProcess, channel: grpc.Channel, content: bytes) -> None:
    with unharmed(server):
        for method in METHODS:
            assert send(channel, method, content) in REFUSALS, method


_TEXT = st.text(max_size=60) | st.sampled_from(
    ["", "\0", "\n", "\x1b[2J", "\u2028", "../../etc/passwd", "%s%n", "'; drop table jobs; --", "a" * 100_000]
)
_INT32 = st.integers(-(2**31), 2**31 - 1)


@fuzz
@given(cmd=_TEXT, cmdtyp=_INT32, cmdusr=_TEXT, tid=_INT32, src=_TEXT, hsh=_TEXT, stream=st.booleans())
def test_commands_of_any_content(  # type: ignore[no-untyped-def]
    server: ServerProcess, channel: grpc.Channel, stream: bool, **values
) -> None:
    request = RemSvc_pb2.RemCmdMsg(**values).SerializeToString()
    with unharmed(server):
        assert send(channel, REMSVC + ("RemCmdStrm" if stream else "RemCmd"), request) in REFUSALS


@fuzz
@given(
    request_id=_TEXT,
    shell_command=_TEXT,
    argv=st.lists(_TEXT, max_size=3),
    shell_type=_INT32,
    user=_TEXT,
    folder=_TEXT,
    variables=st.dictionaries(_TEXT, _TEXT, max_size=3),
    stdin=st.binary(max_size=100),
    seconds=st.integers(-(2**63), 2**63 - 1),
    nanos=_INT32,
    output_limit=st.integers(-(2**63), 2**63 - 1),
    labels=st.dictionaries(_TEXT, _TEXT, max_size=3),
    hash=_TEXT,
)
def test_jobs_of_any_content(  # type: ignore[no-untyped-def]
    server: ServerProcess, channel: grpc.Channel, **values
) -> None:
    request = jobs_pb2.CreateJobRequest(request_id=values["request_id"], hash=values["hash"])
    spec = request.spec
    if values["argv"]:
        spec.argv.args.extend(values["argv"])
    else:
        spec.shell_command = values["shell_command"]
    spec.shell_type = values["shell_type"]
    spec.user, spec.source, spec.working_directory = values["user"], values["user"], values["folder"]
    spec.environment.update(values["variables"])
    spec.labels.update(values["labels"])
    spec.standard_input = values["stdin"]
    spec.output_limit = values["output_limit"]
    for duration in (spec.time_limit, spec.kill_grace, spec.lease):
        duration.seconds, duration.nanos = values["seconds"], values["nanos"]
    with unharmed(server):
        assert send(channel, f"{JOBS}/CreateJob", request.SerializeToString()) in REFUSALS


@fuzz
@given(job=_TEXT, token=_TEXT, size=_INT32, offset=st.integers(-(2**63), 2**63 - 1))
def test_questions_about_jobs(
    server: ServerProcess, channel: grpc.Channel, job: str, token: str, size: int, offset: int
) -> None:
    with unharmed(server):
        for method, request in (
            ("GetJob", jobs_pb2.GetJobRequest(id=job)),
            ("GetJob", jobs_pb2.GetJobRequest(request_id=job)),
            ("CancelJob", jobs_pb2.CancelJobRequest(id=job, reason=token)),
            ("WatchJob", jobs_pb2.WatchJobRequest(id=job, stdout_offset=offset, stderr_offset=offset)),
            ("ListJobs", jobs_pb2.ListJobsRequest(page_size=size, page_token=token, labels={job: token})),
        ):
            assert send(channel, f"{JOBS}/{method}", request.SerializeToString()) in REFUSALS


@fuzz
@given(
    key=st.from_regex(r"\A[a-z0-9_.-]{1,20}\Z").filter(lambda key: not key.startswith("grpc-")),
    value=st.binary(max_size=300),
)
def test_metadata_of_any_content(
    server: ServerProcess, channel: grpc.Channel, key: str, value: bytes
) -> None:
    metadata = ((f"{key}-bin", value), *METADATA)
    with unharmed(server):
        call = channel.unary_unary(REMSVC + "Ping")
        assert call(b"", metadata=metadata, timeout=DEADLINE) == b""


@fuzz
@given(header=st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_authorization_of_any_content(server: ServerProcess, channel: grpc.Channel, header: str) -> None:
    # Blanks around a value break a rule of HTTP/2 already: RFC 9113, section 8.2.1.
    text = "".join(character for character in header if " " <= character <= "~").strip()
    with unharmed(server), pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(REMSVC + "Ping")(b"", metadata=(("authorization", text),), timeout=DEADLINE)
    assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED)


def converse(server: ServerProcess, *pieces: bytes) -> None:
    with raw(server) as peer:
        try:
            peer.send(*pieces)
            peer.socket.shutdown(1)
            peer.wait_closed()
        except OSError:
            pass  # closed before it had heard all


_FRAMES = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.integers(0, 255),
        st.sampled_from([0, 1, 2, 3, 2**31 - 1]),
        st.binary(max_size=80),
    ),
    max_size=12,
)


@fuzz
@given(frames=_FRAMES, greeting=st.booleans())
def test_arbitrary_frames(
    server: ServerProcess, channel: grpc.Channel, frames: list[tuple[int, int, int, bytes]], greeting: bool
) -> None:
    start = PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0) if greeting else b""
    with unharmed(server):
        converse(server, start, *(frame(*parts) for parts in frames))


@pytest.mark.parametrize("octets", **corpus("connections"))
def test_the_corpus_of_connections(server: ServerProcess, channel: grpc.Channel, octets: bytes) -> None:
    with unharmed(server):
        converse(server, octets)
        assert send(channel, REMSVC + "Ping", b"") is grpc.StatusCode.OK


def test_a_raw_peer_is_understood_where_it_keeps_to_the_rules(server: ServerProcess) -> None:
    """That the attacks of this folder fail is not because nothing of theirs is understood."""
    with raw(server) as peer:
        _ping(peer)


def _ping(peer: RawPeer) -> None:
    from tests.attacks.conftest import answer_to
    from tests.attacks.raw_http2 import message

    peer.greet()
    peer.send(frame(SETTINGS, ACK, 0))
    peer.call(1, REMSVC + "Ping", ("authorization", f"Bearer {TOKEN}"), body=message(b"\x08\x07"))
    assert b"grpc-status: 0\n" in answer_to(peer, 1)
