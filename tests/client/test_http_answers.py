"""What a client says where a proxy or web server answers, and no gRPC server: alike on both transports."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from remsvc.client import ConnectionOptions
from remsvc.command import Command
from remsvc.errors import ServerError
from tests.attacks.raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    frame,
    header_block,
)

from .conftest import Connect

Middlebox = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def middlebox() -> Iterator[Middlebox]:
    """Starts what answers each connection as a function does; it is ended after the test."""
    listeners: list[socket.socket] = []

    def start(answer: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                answer(connection)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def page(status: int, content_type: str = "text/html") -> Callable[[socket.socket], None]:
    """Answers each call over HTTP/2 with a page of HTML."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(frame(SETTINGS, 0, 0))
        received = b""
        begun = False
        while piece := connection.recv(65536):
            received += piece
            if not begun and len(received) >= len(PREFACE):
                received, begun = received[len(PREFACE) :], True
            while begun and len(received) >= 9 + int.from_bytes(received[:3], "big"):
                kind, flags, stream = received[3], received[4], int.from_bytes(received[5:9], "big")
                received = received[9 + int.from_bytes(received[:3], "big") :]
                if kind == SETTINGS and not flags & ACK:
                    connection.sendall(frame(SETTINGS, ACK, 0))
                elif kind == HEADERS:
                    block = header_block([(":status", str(status)), ("content-type", content_type)])
                    connection.sendall(
                        frame(HEADERS, END_HEADERS, stream, block)
                        + frame(DATA, END_STREAM, stream, b"<html>no</html>")
                    )

    return answer


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (400, "INTERNAL", "HTTP status 400: it does not understand the call"),
        (401, "UNAUTHENTICATED", "HTTP status 401: it asks for credentials of its own"),
        (403, "PERMISSION_DENIED", "HTTP status 403: it does not let the call through"),
        (404, "UNIMPLEMENTED", "HTTP status 404: it does not know the call's path"),
        (413, "RESOURCE_EXHAUSTED", "HTTP status 413: the request is larger than it permits"),
        (429, "UNAVAILABLE", "HTTP status 429: it takes no more calls for now"),
        (502, "UNAVAILABLE", "HTTP status 502: the server behind it cannot be reached"),
        (503, "UNAVAILABLE", "HTTP status 503: the server behind it is not available"),
        (504, "UNAVAILABLE", "HTTP status 504: the server behind it does not answer in time"),
        (500, "UNKNOWN", "HTTP status 500"),
        (302, "UNKNOWN", "HTTP status 302: it leads somewhere else"),
        (200, "UNKNOWN", "no gRPC server answered"),
    ],
)
def test_a_page_instead_of_an_answer_is_explained(
    middlebox: Middlebox, connect: Connect, transport: str, status: int, code: str, told: str
) -> None:
    target = middlebox(page(status))
    with connect(ConnectionOptions(target)) as client:
        for call in (
            lambda: client.run(Command("true"), timeout=10),
            lambda: client.get_job("x", timeout=10),
        ):
            with pytest.raises(ServerError) as caught:
                call()
            error = str(caught.value)
            if transport == "grpc" and "HTTP status" not in error:
                # gRPC has met the page before it has told the status.
                assert error == f"{target}: UNKNOWN: no gRPC server answered, but a proxy or web server"
            else:
                assert caught.value.code == code
                assert told in error


@pytest.mark.parametrize("status", [400, 413, 502])
def test_a_web_server_of_http_1_is_told(middlebox: Middlebox, connect: Connect, status: int) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 %d Words\r\nContent-Length: 4\r\n\r\npage" % status)
        connection.recv(100)

    with connect(ConnectionOptions(middlebox(answer))) as client, pytest.raises(ServerError) as caught:
        client.run(Command("true"), timeout=10)
    assert caught.value.code == "UNAVAILABLE"
    assert not caught.value.sent
    assert "it speaks HTTP/1" in str(caught.value)
    assert f"HTTP status {status}" in str(caught.value)
