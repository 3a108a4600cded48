"""What becomes of a call whose answering fails in a way that nobody has foreseen."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from remsvc.server.calls.guard import Calls
from remsvc.server.calls.methods import Method
from remsvc.server.http2.answering import Answering
from remsvc.server.http2.call import Http2Call
from remsvc.status import StatusCode
from remsvc_proto import RemSvc_pb2
from tests.server.calls.call_in_hand import CallInHand

METHOD = Method("/test/Fails", RemSvc_pb2.Empty, 0)


class EndedCall(CallInHand):
    """Notes with which status it is ended."""

    status: StatusCode | None = None

    def end(self, status: StatusCode, reason: str = "", metadata: Any = ()) -> None:
        self.status = self.status or status


class FailingCalls:
    """Answers with an error that no status was made of."""

    async def answer(self, call: Http2Call, method: Method) -> None:
        raise ValueError("the making of a status has failed")


async def test_no_caller_is_left_to_wait(caplog: pytest.LogCaptureFixture) -> None:
    call = EndedCall(METHOD.name, RemSvc_pb2.Empty())
    answering = Answering(cast(Calls, FailingCalls()))
    with caplog.at_level(logging.ERROR):
        await answering.answer(cast(Http2Call, call), METHOD)
    assert call.status is StatusCode.UNKNOWN
    assert "the making of a status has failed" in caplog.text
