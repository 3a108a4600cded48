"""``RemCmdStrm``: order, concurrency, how a stream ends."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from .client import Client, command, refused
from .commands import COMMANDS, posix_only


def test_answers_come_in_the_order_of_the_commands(client: Client) -> None:
    """Inside one stream commands run one after another in arrival order and are answered in that order"""
    answers = list(client.stream(command(COMMANDS.echo(f"n{tid}"), tid=tid) for tid in range(1, 41)))
    assert [(answer.tid, answer.out.strip()) for answer in answers] == [(n, f"n{n}") for n in range(1, 41)]


@posix_only
def test_a_command_starts_after_the_one_before_has_ended(client: Client, tmp_path: Path) -> None:
    """Inside one stream commands run one after another"""
    lock = tmp_path / "lock"
    text = f"mkdir {lock} && sleep 0.02 && rmdir {lock}"
    answers = list(client.stream(command(text, tid=tid) for tid in range(20)))
    assert [(answer.rc, answer.err) for answer in answers] == [(0, "")] * 20


def test_the_same_tid_twice_is_no_mistake(client: Client) -> None:
    """tid is echoed: the server gives it no meaning."""
    answers = list(client.stream(command(COMMANDS.echo(text), tid=7) for text in ("a", "b")))
    assert [(answer.tid, answer.out.strip()) for answer in answers] == [(7, "a"), (7, "b")]


def test_a_failing_command_does_not_end_the_stream(client: Client) -> None:
    """The stream ends once all are answered, whatever their exit codes."""
    answers = list(client.stream([command(COMMANDS.exit(3)), command(COMMANDS.echo("next"))]))
    assert [answer.rc for answer in answers] == [3, 0]


def test_each_command_is_answered_before_the_next_is_sent(client: Client) -> None:
    """An answer does not wait for the next command or the half-close."""
    stream = client.open_stream()
    for tid in (1, 2, 3):
        stream.send(COMMANDS.echo("x"), tid=tid)
        assert next(stream).tid == tid
    stream.half_close()
    assert list(stream) == []
    assert stream.call.code() is grpc.StatusCode.OK


def test_half_closing_ends_the_stream_once_all_are_answered(client: Client) -> None:
    """The client half-closing its side ends the stream with OK once all are answered."""
    stream = client.open_stream()
    for tid in (1, 2):
        stream.send(COMMANDS.sleep(1), tid=tid)
    stream.half_close()
    assert [answer.tid for answer in stream] == [1, 2]
    assert stream.call.code() is grpc.StatusCode.OK


def test_a_stream_without_commands_ends_with_ok(client: Client) -> None:
    """The client half-closing its side ends the stream with OK once all are answered: here none."""
    call = client.stream([])
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_other_calls_do_not_wait_for_a_stream(client: Client) -> None:
    """different streams and unary calls run side by side"""
    slow_stream = client.open_stream()
    slow_stream.send(COMMANDS.sleep(300))
    slow_call = client.start(COMMANDS.sleep(300))
    assert client.run(COMMANDS.echo("unary")).out.strip() == "unary"
    assert [a.out.strip() for a in client.stream([command(COMMANDS.echo("stream"))])] == ["stream"]
    assert slow_stream.call.is_active()
    assert not slow_call.done()
    slow_stream.cancel()
    slow_call.cancel()


@posix_only
def test_streams_and_calls_meet_while_they_run(client: Client, tmp_path: Path) -> None:
    """different streams and unary calls run side by side: each of these ends only when all run at once"""
    names = ("a", "b", "c", "d")
    wait_for_all = "; ".join(f"until [ -e {tmp_path}/{name} ]; do sleep 0.02; done" for name in names)
    text = {name: f": >{tmp_path}/{name}; {wait_for_all}; echo met" for name in names}
    streams = [client.stream([command(text[name])]) for name in ("a", "b")]
    calls = [client.start(text[name]) for name in ("c", "d")]
    assert [answer.out for stream in streams for answer in stream] == ["met\n"] * 2
    assert [call.result(30).out for call in calls] == ["met\n"] * 2


REFUSALS = [
    pytest.param({"cmd": "echo x", "hsh": "00000000"}, grpc.StatusCode.INVALID_ARGUMENT, id="hash"),
    pytest.param({"cmd": "echo x", "cmdtyp": 5}, grpc.StatusCode.INVALID_ARGUMENT, id="type"),
    pytest.param({"cmd": "  "}, grpc.StatusCode.INVALID_ARGUMENT, id="blank"),
    pytest.param({"cmd": "echo a\0b"}, grpc.StatusCode.INVALID_ARGUMENT, id="NUL"),
]


@pytest.mark.parametrize(("fields", "code"), REFUSALS)
def test_a_bad_command_ends_the_stream(client: Client, fields: dict, code: grpc.StatusCode) -> None:
    """In a stream a refused command or a mismatch ends the stream with that status"""
    call = client.stream(
        [command(COMMANDS.echo("first"), tid=1), command(tid=2, **fields), command("echo 3")]
    )
    assert next(call).tid == 1, "what ran before the refusal is answered"
    with refused(code):
        next(call)


@posix_only
@pytest.mark.parametrize(("fields", "code"), REFUSALS)
def test_nothing_runs_after_a_bad_command(
    client: Client, tmp_path: Path, fields: dict, code: grpc.StatusCode
) -> None:
    """nothing after it runs"""
    ran = tmp_path / "ran"
    call = client.stream([command(**fields), command(f": >{ran}")])
    with refused(code):
        list(call)
    client.run("sleep 0.1")  # a command sent later has ended: the one before would have run by now
    assert not ran.exists()
