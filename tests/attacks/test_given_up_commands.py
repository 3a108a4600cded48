"""Nothing runs for callers who have gone, whatever was being done for them when they went."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from remsvc_proto import RemSvc_pb2
from tests.attacks.conftest import AUTH, TOKEN, eventually, raw
from tests.attacks.raw_http2 import (
    ACK,
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    call_headers,
    frame,
    header_block,
    message,
)
from tests.conftest import Serve, ServerProcess

_COMMAND = ["sleep", "98765"]


def running(server: ServerProcess) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(server.process.pid).children(recursive=True):
        with suppress(psutil.Error):  # ended meanwhile
            if child.cmdline() == _COMMAND:
                found.append(child)
    return found


@pytest.mark.parametrize("user", ["", "root"], ids=["audited", "as a user"])
def test_commands_that_are_given_up_while_they_are_being_permitted(
    serve: Serve, tmp_path: Path, user: str
) -> None:
    """Their permission waits for a file or for the system's list of users; a cancellation that comes together
    with the end of such a wait must not be lost."""
    if user and psutil.Process().uids().effective != 0:
        pytest.skip("only root may run commands as a user")
    server = serve(f"{AUTH}[audit]\nfile = {tmp_path}/audit.jsonl\n")
    headers = header_block(call_headers("/RS.RemSvc/RemCmd", ("authorization", f"Bearer {TOKEN}")))
    command = RemSvc_pb2.RemCmdMsg(cmd="exec sleep 98765", cmdusr=user).SerializeToString()
    moments = random.Random(7)
    for _ in range(15):
        with raw(server) as peer:
            peer.greet()
            peer.send(frame(SETTINGS, ACK, 0))
            for stream in range(1, 81, 2):
                peer.send(
                    frame(HEADERS, END_HEADERS, stream, headers),
                    frame(DATA, END_STREAM, stream, message(command)),
                )
                time.sleep(moments.random() * 0.003)
                peer.send(frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
            eventually(lambda: peer.discard() is None)
    eventually(lambda: not running(server))
