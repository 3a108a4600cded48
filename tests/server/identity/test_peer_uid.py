"""Which users of its own host a server lets in, and what it says where all of them are root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from remsvc.server.config import check_config
from remsvc_proto import RemSvc_pb2
from tests.attacks.conftest import answer_to, greeted
from tests.attacks.raw_http2 import RawPeer, message
from tests.conftest import Serve, ServerProcess
from tests.contract.client import Client
from tests.contract.waiting import wait_until
from tests.server.identity.conftest import RunningServer

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who is at the other end"),
    pytest.mark.own_http2,
]

NOBODY, OTHER = 65534, 65533
"localhost".encode("idna")  # loads what another user may not be able to read
COMMAND = "/RS.RemSvc/RemCmd"
as_root = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="becomes other users")


@contextmanager
def user(uid: int) -> Iterator[None]:
    """Within, this process is another user, and so are the sockets that it makes."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def run(peer: RawPeer, text: str) -> None:
    request = RemSvc_pb2.RemCmdMsg(cmd=text)
    peer.call(1, COMMAND, body=message(request.SerializeToString()))


def answer(server: ServerProcess, uid: int, text: str = "true") -> bytes:
    """What a user of this host is answered."""
    with user(uid), greeted(server) as peer:
        run(peer, text)
        return answer_to(peer, 1)


@as_root
@pytest.mark.parametrize("listed", ["0", "self", "root", f"0, {OTHER}"])
def test_only_who_is_listed_may_call(serve: Serve, tmp_path: Path, listed: str) -> None:
    server = serve(f"[server]\nport = 0\npeer_uid = {listed}\n")
    assert b"may not call" not in answer(server, 0)
    with grpc.insecure_channel(server.target) as channel:
        assert Client(channel).run("echo x").out == "x\n"
    refusal = answer(server, NOBODY, f"touch {tmp_path}/ran")
    assert b"this user of the server's host may not call" in refusal
    assert (b"may not call" in answer(server, OTHER)) is (str(OTHER) not in listed)
    wait_until(lambda: f"the connection is of the user {NOBODY}" in server.log, "the log's line")
    assert not (tmp_path / "ran").exists()


@as_root
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_each_address(serve: Serve, host: str) -> None:
    server = serve("", "--peer-uid", "self", "--host", host)
    if host == "::1":
        server.host = "::1"
    assert b"may not call" not in answer(server, 0)
    assert b"may not call" in answer(server, NOBODY)


@as_root
def test_who_closes_at_once_is_nobody(serve: Serve, tmp_path: Path) -> None:
    """The kernel says of a socket that nobody holds any more that it is root's."""
    server = serve("[server]\nport = 0\npeer_uid = 0\n")
    for number in range(5):
        # Accepted by the system, and not yet by the server when it is closed.
        server.process.send_signal(signal.SIGSTOP)
        with user(NOBODY):
            peer = greeted(server)
            run(peer, f"touch {tmp_path}/{number}")
            peer.close()
        server.process.send_signal(signal.SIGCONT)
    with grpc.insecure_channel(server.target) as channel:
        assert Client(channel).run("echo x").out == "x\n"
    wait_until(lambda: server.log.count("the user who cannot be told") == 5, "the refusals")
    assert list(tmp_path.glob("[0-9]*")) == []


@as_root
def test_it_comes_beside_tokens(serve: Serve) -> None:
    server = serve("[server]\nport = 0\npeer_uid = 0\n[auth]\netl = right\n")
    with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as caught:
        Client(channel).run("true")
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.details() == "missing Authorization header"


@as_root
def test_a_reload_changes_who_but_not_whether(serve: Serve) -> None:
    server = serve("[server]\nport = 0\npeer_uid = 0\n")
    running = RunningServer(server, server.stderr_path.with_suffix(".ini"))
    running.write(f"[server]\nport = 0\npeer_uid = {NOBODY}\n")
    running.reload()
    assert b"may not call" in answer(server, 0)
    assert b"may not call" not in answer(server, NOBODY)
    running.write("[server]\nport = 0\n")
    running.reload("peer_uid: can be switched on or off by a restart only")
    assert b"may not call" in answer(server, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("peer_uid = nobody-of-this-name-here\n", "expected the number or the name of a user, or self"),
        ("peer_uid = 0,,1\n", "expected the number or the name of a user"),
        ("peer_uid = -1\n", "expected the number or the name of a user"),
        ("peer_uid = 0\nhost = 0.0.0.0\n", "a host that is a loopback address"),
        ("peer_uid = 0\ntransport = grpc\n", "transport = http2"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "server.ini"
    path.write_text(f"[server]\n{text}")
    problems, _ = check_config(path)
    assert any("[server] peer_uid" in line and expected in line for line in problems)


@pytest.mark.parametrize(
    ("config", "flags", "said"),
    [
        ("", (), True),
        ("[server]\nport = 0\n[log]\nlevel = error\n", (), True),
        ("", ("--peer-uid", "self"), False),
        ("[auth]\netl = token\n", (), False),
    ],
)
def test_where_every_local_user_is_root_that_is_said(
    serve: Serve, config: str, flags: tuple[str, ...], said: bool
) -> None:
    server = serve(config, *flags)
    server.terminate()
    assert ("EVERY user of this host IS ROOT" in server.log) is (said and os.geteuid() == 0)


@as_root
def test_an_ordinary_user_is_not_told_so(tmp_path: Path) -> None:
    """Nor is it refused: the default host stays as it is."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    tmp_path.chmod(0o755)
    command = [sys.executable, "-m", "remsvc", "serve", "--port", "0", "--state-dir", str(state)]
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, user=NOBODY, cwd="/"
        )
    except PermissionError:
        pytest.skip("another user cannot run this Python")
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    _, log = process.communicate(timeout=60)
    if not line:
        pytest.skip(f"another user cannot run it here: {log[-200:]}")
    assert line.startswith("listening on 127.0.0.1:")
    assert "IS ROOT" not in log
