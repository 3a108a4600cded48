"""A connection's token is replaced while the commands of a task run as durable jobs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_job_log import LogReader, log  # noqa: F401  a fixture
from tests.conftest import Serve, ServerProcess
from triggering import Triggerer, context, fire, results, task_instance, trigger, until

from remsvc.server.identity.token_file import add_token, list_tokens, revoke_token
from remsvc_provider.operators.remsvc import RemSvcOperator


class Rotation:
    """A server, its token file, and the Airflow connection to it."""

    def __init__(self, server: ServerProcess, tokens: Path, connect: Callable[[str], str]) -> None:
        self.server = server
        self._tokens = tokens
        self._connect = connect

    def add(self, identity: str = "airflow") -> str:
        """A new token, which the server knows once it is asked to :meth:`reload`."""
        return add_token(self._tokens, identity, None)[0]

    def revoke_oldest(self) -> None:
        revoke_token(self._tokens, list_tokens(self._tokens)[0].id)

    def use(self, token: str) -> str:
        """The connection has this token from now on; its id."""
        return self._connect(f"remsvc://{self.server.target}?bearer_token={token}")

    async def reload(self) -> None:
        """Returns once the server works with what is in the file."""
        before = self.server.log.count("configuration reloaded")
        self.server.process.send_signal(signal.SIGHUP)
        await until(lambda: self.server.log.count("configuration reloaded") > before, "the reload")

    async def revoke(self) -> None:
        self.revoke_oldest()
        await self.reload()


@pytest.fixture
def rotation(serve: Serve, connect: Callable[[str], str], tmp_path: Path) -> Rotation:
    """Its connection has the one token that the server knows."""
    tokens = tmp_path / "tokens"
    first = add_token(tokens, "airflow", None)[0]
    server = serve(f"[server]\ntoken_file = {tokens}\n", "--host=127.0.0.1")
    rotation = Rotation(server, tokens, connect)
    rotation.use(first)
    return rotation


class Held:
    """A command that says when it runs, and waits until it may end."""

    def __init__(self, folder: Path, name: str = "one") -> None:
        self._trace, self._go = folder / f"{name}.trace", folder / f"{name}.go"
        self.cmd = (
            f"echo x >> {self._trace}; echo before; until [ -e {self._go} ]; do sleep 0.02; done; echo after"
        )

    def runs(self) -> bool:
        return self._trace.exists()

    def end(self) -> None:
        self._go.touch()

    @property
    def times(self) -> int:
        return len(self._trace.read_text().split())


CONN_ID = "remsvc_test"


async def test_a_watch_goes_on_with_the_new_token(rotation, tmp_path, log: LogReader):  # noqa: F811
    held = Held(tmp_path)
    running = asyncio.create_task(fire(trigger(CONN_ID, held.cmd, "echo next")))
    await until(lambda: log.lines("1 out") == ["before"])
    rotation.use(rotation.add())
    await rotation.revoke()
    await until(lambda: "the connection has other credentials now" in log.text)
    held.end()
    event = await running
    assert event["state"] == "SUCCESS"
    assert [result["out"] for result in results(event)] == ["before\nafter\n", "next\n"]
    assert log.lines("1 out") == ["before", "after"], "nothing twice"
    assert held.times == 1


async def test_rotated_again_and_again(rotation, tmp_path, log: LogReader):  # noqa: F811
    held = Held(tmp_path)
    running = asyncio.create_task(fire(trigger(CONN_ID, held.cmd)))
    await until(held.runs)
    for number in range(1, 4):
        rotation.use(rotation.add())
        await rotation.revoke()
        await until(
            lambda number=number: log.text.count("the connection has other credentials now") == number
        )
    held.end()
    assert results(await running)[0]["out"] == "before\nafter\n"


async def test_commands_side_by_side_all_go_on(rotation, tmp_path, log: LogReader):  # noqa: F811
    held = [Held(tmp_path, str(number)) for number in range(3)]
    running = asyncio.create_task(fire(trigger(CONN_ID, *[one.cmd for one in held], parallel=3)))
    await until(lambda: all(one.runs() for one in held))
    rotation.use(rotation.add())
    await rotation.revoke()
    await until(lambda: "the connection has other credentials now" in log.text)
    for one in held:
        one.end()
    event = await running
    assert event["state"] == "SUCCESS"
    assert [result["out"] for result in results(event)] == ["before\nafter\n"] * 3
    assert log.text.count("the connection has other credentials now") == 1, "read once for all of them"


async def test_it_fails_where_the_new_token_is_refused_as_well(rotation, tmp_path):
    held = Held(tmp_path)
    running = asyncio.create_task(fire(trigger(CONN_ID, held.cmd)))
    await until(held.runs)
    rotation.use("not-a-token-of-this-server")
    rotation.add()
    await rotation.revoke()
    event = await running
    held.end()
    assert event["state"] == "FAILED"
    assert "UNAUTHENTICATED: invalid bearer token" in event["error_msg"]
    assert "may go on" in event["error_msg"]


async def test_it_fails_where_the_connection_still_has_the_old_one(rotation, tmp_path):
    held = Held(tmp_path)
    running = asyncio.create_task(fire(trigger(CONN_ID, held.cmd)))
    await until(held.runs)
    rotation.add()
    await rotation.revoke()
    event = await running
    held.end()
    assert event["state"] == "FAILED"
    assert "UNAUTHENTICATED" in event["error_msg"]


async def test_it_fails_where_the_connection_is_gone(rotation, tmp_path, monkeypatch, log: LogReader):  # noqa: F811
    held = Held(tmp_path)
    running = asyncio.create_task(fire(trigger(CONN_ID, held.cmd)))
    await until(held.runs)
    monkeypatch.delenv("AIRFLOW_CONN_REMSVC_TEST")
    rotation.add()
    await rotation.revoke()
    event = await running
    held.end()
    assert event["state"] == "FAILED"
    assert "UNAUTHENTICATED" in event["error_msg"]
    assert "the connection cannot be read again" in log.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("remsvc://127.0.0.1:1?bearer_token={}", "host and port: was {target}, is 127.0.0.1:1"),
        ("remsvc://{target}?bearer_token={}&use_ssl=1", "use_ssl: was False, is True"),
        (
            "remsvc://{target}?bearer_token={}&use_ssl=1&ca_cert_path=/etc/other-ca.pem",
            "use_ssl: was False, is True, ca_cert_path: was None, is /etc/other-ca.pem",
        ),
    ],
)
async def test_a_token_that_is_for_another_server_is_not_sent_to_this_one(
    rotation,
    connect,
    tmp_path,
    change,
    said,
):
    """The connection leads elsewhere now, or there in another way. The token would be good on the old
    server: only so can it be seen that it was not tried."""
    held = Held(tmp_path)
    running = asyncio.create_task(fire(trigger(CONN_ID, held.cmd)))
    await until(held.runs)
    token = rotation.add()
    connect(change.format(token, target=rotation.server.target))
    await rotation.revoke()
    event = await running
    held.end()
    assert event["state"] == "FAILED"
    # Of its watch, or of the call that begins it.
    assert "UNAUTHENTICATED: " in event["error_msg"]
    assert said.format(target=rotation.server.target) in event["error_msg"]
    assert "is not sent to this server" in event["error_msg"]
    assert token not in event["error_msg"]


async def test_a_kill_after_the_rotation_ends_the_command(rotation, supervisor, tmp_path, log: LogReader):  # noqa: F811
    held = Held(tmp_path)
    one = trigger(CONN_ID, held.cmd)
    triggerer = Triggerer(one)
    await until(held.runs)
    rotation.use(rotation.add())
    await rotation.revoke()
    await until(lambda: "the connection has other credentials now" in log.text)
    supervisor.set(one.task_instance, "failed")
    await triggerer.lose_it()
    await until(lambda: "is cancelled: the Airflow task was killed" in log.text)


@contextmanager
def in_background(function: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function, *arguments)


async def test_a_worker_goes_on_with_the_new_token(rotation, tmp_path, log: LogReader):  # noqa: F811
    """``deferrable=False``."""
    held = Held(tmp_path)
    task = RemSvcOperator(task_id="run", grpc_conn_id=CONN_ID, commands=[{"cmd": held.cmd}], deferrable=False)
    with in_background(task.execute, context(task_instance())) as running:
        await until(held.runs)
        rotation.use(rotation.add())
        await rotation.revoke()
        await until(lambda: "the connection has other credentials now" in log.text)
        held.end()
        xcom = await asyncio.wrap_future(running)
    assert xcom["results"][0]["out"] == "before\nafter\n"
    assert held.times == 1
