"""What is serialized by hand is what protobuf would have made of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remsvc.execution.jobs.files import STREAMS, Piece
from remsvc.server.jobs.messages import chunk_bytes
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2


@given(
    stream=st.sampled_from(STREAMS),
    offset=st.integers(0, 2**63 - 1),
    data=st.binary(min_size=1, max_size=300) | st.integers(100, 70_000).map(bytes),
)
def test_a_chunk_is_a_watch_response(stream: str, offset: int, data: bytes) -> None:
    response = jobs_pb2.WatchJobResponse()
    getattr(response, stream).CopyFrom(jobs_pb2.Chunk(offset=offset, data=data))
    assert jobs_pb2.WatchJobResponse.FromString(chunk_bytes(Piece(stream, offset, data))) == response
