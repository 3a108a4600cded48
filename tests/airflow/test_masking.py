"""What Airflow masks on a worker is masked in the triggerer: log, failure, XCom, and what is stored."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from airflow.sdk._shared.secrets_masker import reset_secrets_masker
from airflow.sdk.log import mask_secret
from hypothesis import given
from hypothesis import strategies as st
from test_job_log import LogReader, log  # noqa: F401  a fixture
from triggering import context, deferral, fire, restored, results, task_instance, until

from conftest import answer, in_a_thread
from remsvc.client.jobs import OutputChunk
from remsvc.command import crc32hex
from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from remsvc_provider import sealing
from remsvc_provider.log.job_output import LoggedOutput
from remsvc_provider.masking import MASK, Masking, secrets_in
from remsvc_provider.operators.remsvc import RemSvcOperator
from remsvc_provider.triggers.remsvc import RemSvcTrigger

SECRET = "s3cr3t-of-a-variable"


@pytest.fixture
def masker():
    """What Airflow knows in this process; afterwards as little as before."""
    reset_secrets_masker()
    yield
    reset_secrets_masker()


def deferred(commands: list[dict[str, Any]], **options: Any) -> RemSvcTrigger:
    """What a worker that knows the secret hands over to a triggerer that knows none."""
    mask_secret(SECRET)
    ti = task_instance()
    task = RemSvcOperator(task_id="run", grpc_conn_id="remsvc_test", commands=commands, **options)
    trigger = restored(deferral(task.execute, context(ti)).trigger, ti)
    reset_secrets_masker()
    return trigger


def everywhere(event: dict[str, Any], log: LogReader) -> str:  # noqa: F811
    return json.dumps(event) + log.text


async def test_a_triggerer_masks_what_its_worker_knew(masker, conn_id, log: LogReader):  # noqa: F811
    command = f"echo {SECRET}; echo {SECRET} >&2; exit 3"
    event = await fire(deferred([{"cmd": command}]))
    assert SECRET not in everywhere(event, log)
    (result,) = results(event)
    assert result["cmd"] == f"echo {MASK}; echo {MASK} >&2; exit 3"
    assert (result["out"], result["err"]) == (f"{MASK}\n", f"{MASK}\n")
    assert result["hsh"] == crc32hex(command), "of what was sent"
    assert event["error_msg"] == f"command 1 (commands[0]) ended with rc 3: {MASK}"
    assert f"Command 1: echo {MASK}; echo {MASK} >&2; exit 3" in log.text
    assert log.lines("1 out") == log.lines("1 err") == [MASK]


async def test_the_command_itself_gets_it(masker, conn_id, tmp_path):
    event = await fire(deferred([{"cmd": f"echo {SECRET} > {tmp_path}/got"}]))
    assert event["state"] == "SUCCESS"
    assert (tmp_path / "got").read_text() == f"{SECRET}\n"


async def test_so_does_one_without_jobs(masker, scripted, connect, log: LogReader):  # noqa: F811
    def handle(requests, _):
        for request in requests:
            yield answer(request, rc=3, out=f"out {SECRET}\n", err=f"err {SECRET}\n")

    server = scripted(handle)
    connect(f"remsvc://{server.target}")
    event = await fire(deferred([{"cmd": f"echo {SECRET}"}]))
    assert server.commands[0].cmd == f"echo {SECRET}"
    assert SECRET not in everywhere(event, log)
    assert results(event)[0]["out"] == f"out {MASK}\n"


def test_a_worker_that_runs_the_commands_masks_its_xcom(masker, conn_id, log: LogReader):  # noqa: F811
    mask_secret(SECRET)
    commands = [{"argv": ["echo", SECRET]}]
    task = RemSvcOperator(task_id="run", grpc_conn_id=conn_id, commands=commands, deferrable=False)
    xcom = in_a_thread(task.execute, context(task_instance()))
    assert SECRET not in everywhere(xcom, log)
    assert xcom["results"][0]["out"] == f"{MASK}\n"


async def test_values_under_a_name_that_says_so(masker, conn_id, log: LogReader):  # noqa: F811
    """As in the rendered template view."""
    command = {"cmd": "echo $DB_PASSWORD $PLAIN", "env": {"DB_PASSWORD": "hunter-two", "PLAIN": "plain-text"}}
    event = await fire(deferred([command]))
    assert results(event)[0]["out"] == f"{MASK} plain-text\n"
    assert "hunter-two" not in everywhere(event, log)


@pytest.mark.parametrize("names", [["x-api-key"], ["X-Token", "x-token"]], ids=str)
async def test_metadata_under_a_name_that_says_so(masker, conn_id, names, log: LogReader):  # noqa: F811
    metadata = [(name, f"hunter-{number}") for number, name in enumerate(names)]
    command = f"echo plain-text {' '.join(value for _, value in metadata)}"
    event = await fire(deferred([{"cmd": command}], metadata=[*metadata, ("x-run", "plain-text")]))
    assert results(event)[0]["out"] == f"plain-text{f' {MASK}' * len(names)}\n"
    assert "hunter-" not in everywhere(event, log)


async def test_a_secret_within_such_a_value(masker, conn_id, log: LogReader):  # noqa: F811
    command = {"cmd": 'echo "${DATABASE_PASSWORD#user:}" $DATABASE_PASSWORD'}
    event = await fire(deferred([command], env={"DATABASE_PASSWORD": f"user:{SECRET}"}))
    assert results(event)[0]["out"] == f"{MASK} {MASK}\n"
    assert SECRET not in everywhere(event, log)


async def test_secrets_of_the_connection(masker, job_server, connect, log: LogReader):  # noqa: F811
    extra = {"bearer_token": "tok-0123456789", "other_secret": "of-an-extra", "plain": "to-be-seen"}
    host, _, port = job_server.target.rpartition(":")
    value = {"conn_type": "remsvc", "host": host, "port": int(port), "password": "pass-word", "extra": extra}
    connect(json.dumps(value))
    event = await fire(deferred([{"cmd": "echo tok-0123456789 of-an-extra to-be-seen pass-word"}]))
    assert results(event)[0]["out"] == f"{MASK} {MASK} to-be-seen {MASK}\n"
    for secret in ("tok-0123456789", "of-an-extra", "pass-word"):
        assert secret not in everywhere(event, log)


async def test_a_secret_across_the_place_where_a_line_is_broken(masker, conn_id, log: LogReader):  # noqa: F811
    command = (
        f"head -c 3990 /dev/zero | tr '\\0' x; printf '%s' {SECRET}; head -c 9000 /dev/zero | tr '\\0' y"
    )
    await fire(deferred([{"cmd": command}]))
    shown = "".join(log.lines("1 out"))
    assert shown == "x" * 3990 + MASK + "y" * 9000


@pytest.mark.parametrize("limit", range(1, 30))
async def test_a_secret_across_the_end_of_a_result(masker, conn_id, limit):
    event = await fire(deferred([{"cmd": f"printf 'a{SECRET}b'"}], max_output_bytes=limit))
    out = results(event)[0]["out"].partition("\n\x01[remSvc")[0]
    assert not any(SECRET[:size] in out for size in range(4, len(SECRET)))


@pytest.mark.parametrize("chunk", [3, 1 << 16])
@pytest.mark.parametrize("place", [0, 1, 4, 5, 8, 11, 12])
async def test_a_secret_across_what_a_server_did_not_keep(masker, scripted_jobs, connect, log, place, chunk):  # noqa: F811
    """Of a long output, a server keeps the beginning and the end."""
    connect(f"remsvc://{scripted_jobs.target}")
    mask_secret(secret := "Q1Z2W3X4K5J6")
    running = asyncio.create_task(fire(deferred([{"cmd": f"a {secret}"}])))
    await until(lambda: scripted_jobs.jobs)
    job = scripted_jobs.jobs["job1"]
    job.chunk = chunk
    job.message.stdout.head_bytes, job.message.stdout.dropped_bytes = 2 + place, 100
    scripted_jobs.write(job, f"a {secret[:place]}{'-' * 100}{secret[place:]} {secret} b".encode())
    scripted_jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)
    shown = everywhere(await running, log)
    assert "100 bytes were not kept" in shown
    assert not [secret[:size] for size in range(4, 13) if secret[:size] in shown or secret[-size:] in shown]


@pytest.mark.parametrize("place", range(1, 12))
@pytest.mark.parametrize("left_out", [b"", b"-" * 40, b"-\n" * 20])
def test_a_secret_across_what_a_log_leaves_out(place, left_out):
    """Where a log stops, and where it goes on with the end of what it has left out."""
    secret, written = "Q1Z2W3X4K5J6", []
    begin = f"a line\nof {secret[:place]}".encode()
    output = LoggedOutput(written.extend, "", "job1", len(begin), Masking([secret]))
    end = f"{secret[place:]} and\na line of {secret}\n".encode()
    whole = begin + left_out + end
    for offset in range(0, len(whole), 7):
        output.feed(OutputChunk("stdout", offset, whole[offset : offset + 7]))
    output.finish(None)
    shown = "\n".join(written)
    assert shown.startswith("a line\nof ")
    pieces = [piece for size in range(4, 13) for piece in (secret[:size], secret[-size:])]
    assert not [piece for piece in pieces if piece in shown]


async def test_a_secret_of_several_lines(masker, conn_id, log: LogReader):  # noqa: F811
    mask_secret("-----BEGIN KEY-----\nabcdefgh\nijklmnop\n-----END KEY-----\n")
    task = {"cmd": "cat; exit 1", "input": "-----BEGIN KEY-----\nabcdefgh\nijklmnop\n-----END KEY-----\n"}
    event = await fire(deferred([task]))
    assert "abcdefgh" not in everywhere(event, log)


def test_what_is_stored_does_not_show_it(masker, conn_id):
    """Airflow 3.1 shows a trigger's arguments to whoever may see the task."""
    trigger = deferred([{"cmd": f"echo {SECRET}", "env": {"A_TOKEN": "of-the-name"}, "cwd": "/tmp"}])
    _, arguments = trigger.serialize()
    assert SECRET not in json.dumps(arguments)
    assert "of-the-name" not in json.dumps(arguments)
    assert arguments["commands"] == [{"cmd": f"echo {MASK}", "env": {"A_TOKEN": MASK}, "cwd": "/tmp"}]
    assert restored(trigger).serialize()[1] == arguments


@pytest.mark.parametrize("around", [b"", b"\xff\0"])
async def test_an_input_of_bytes(masker, conn_id, around, log: LogReader):  # noqa: F811
    """A template that is rendered natively may give them."""
    given = around + SECRET.encode() + around
    trigger = deferred([{"cmd": "cat; exit 1", "input": given}])
    _, arguments = trigger.serialize()
    assert arguments["commands"] == [{"cmd": "cat; exit 1", "input": MASK}]
    assert base64.b64encode(given).decode() not in json.dumps(arguments)
    assert restored(trigger).serialize()[1] == arguments
    event = await fire(trigger)
    assert MASK in results(event)[0]["out"]
    assert SECRET not in everywhere(event, log)


def test_an_input_of_bytes_without_a_secret_is_stored_as_it_is(masker, conn_id):
    _, arguments = deferred([{"cmd": f"cat; echo {SECRET}", "input": b"\xff\0"}]).serialize()
    assert arguments["commands"] == [{"cmd": f"cat; echo {MASK}", "input": {"base64": "/wA="}}]


async def test_without_a_key_it_runs_and_masks_all_the_same(masker, conn_id, monkeypatch, log: LogReader):  # noqa: F811
    monkeypatch.setattr(sealing, "can_seal", lambda: False)
    event = await fire(deferred([{"cmd": f"echo {SECRET}"}]))
    assert event["state"] == "SUCCESS"
    assert SECRET not in everywhere(event, log)


def test_nothing_more_is_stored_where_there_are_no_secrets(masker, conn_id):
    _, arguments = deferred([{"cmd": "true"}]).serialize()
    assert not {"secrets", "sealed_commands"} & arguments.keys()


@pytest.fixture(params=["_secrets_masker", "should_hide_value_for_key"])
def another_airflow(masker, request, monkeypatch):
    """One in which a name is gone that was never promised."""
    mask_secret(SECRET)
    mask_secret("other-secret")
    monkeypatch.delattr(f"airflow.sdk._shared.secrets_masker.{request.param}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"echo {SECRET}", SECRET),
        (f"{SECRET}:other-secret\n{SECRET}", f"{SECRET} other-secret"),
        (f"a *** b {SECRET}", SECRET),
        ("nothing", ""),
        ("", ""),
    ],
)
def test_an_airflow_that_keeps_its_secrets_elsewhere(another_airflow, text, expected):
    assert set(expected.split()) <= secrets_in([{"cmd": text}])
    shown = Masking(secrets_in([{"cmd": text}]))(expected)
    assert set(shown.split()) <= {MASK}


def test_names_in_such_an_airflow(another_airflow):
    assert "hunter-two" in secrets_in({"env": {"DB_PASSWORD": "hunter-two"}})
    assert not secrets_in({"env": {"PLAIN": "hunter-two"}})


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        ({"PIN_TOKEN": 12345678}, {"12345678"}),
        ({"PIN_TOKEN": {"plain": ["a", {"plain": 1.5}]}}, {"a", "1.5"}),
        ({"PIN_TOKEN": [True, None]}, set()),
        ({"plain": 12345678}, set()),
    ],
)
def test_what_is_below_such_a_name(masker, value, secrets):
    assert secrets_in(value, known=False) == secrets


TEXTS = st.text("abc\n", max_size=30)


@given(secret=st.text("abc", min_size=5, max_size=8), before=TEXTS, after=TEXTS)
def test_no_secret_is_left(secret, before, after):
    masking = Masking([secret])
    assert secret not in masking(before + secret + after)
    assert masking.longest == len(secret)


def test_a_secret_of_short_lines():
    masking = Masking(["abc\ndef"])
    assert masking("a abc\ndef b") == f"a {MASK} b"
    assert masking.begun("a abc") == ("a abc", "")


@given(secrets=st.lists(st.text("abc", min_size=5, max_size=8), max_size=3), text=TEXTS, after=TEXTS)
def test_what_goes_on_is_masked_as_a_whole_would_be(secrets, text, after):
    masking = Masking(secrets)
    text, after = text.replace("\n", ""), after.replace("\n", "")
    begun, rest = masking.begun(text)
    assert begun + masking(rest + after) == masking(text + after)
    assert len(rest) < max(masking.longest, 1)


@given(secret=st.text("abcdef", min_size=5, max_size=12), begin=st.integers(0, 12), end=st.integers(0, 12))
def test_no_piece_of_a_secret_is_left_at_a_cut(secret, begin, end):
    text = secret[begin:] + "--" + secret[:end]
    left = Masking([secret]).cut(text)
    first, _, last = left.partition("--")
    assert first == MASK or len(first) < 4
    assert last == MASK or len(last) < 4
