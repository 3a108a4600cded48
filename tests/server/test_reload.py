"""Taking in a changed configuration: all parts change, and what cannot change is told of, key by key."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from remsvc.server.config import ServerConfig, load_config
from remsvc.server.reload import Reloader
from tests.conftest import Serve, ServerProcess
from tests.server.identity.conftest import RunningServer

AT_START = """
[server]
port = 0
cmd_timeout_ms = 1000
[jobs]
max_running = 5
admins = a
[limits]
max_calls = 100
nofile = 100
[log]
level = info
[audit]
redact.one = x
"""
CHANGED = """
[server]
port = 0
max_output_bytes = 1000
[jobs]
max_running = 6
admins = b
time_limit_ms = 5
retention_count = 7
[limits]
max_calls = 101
stream_idle_ms = 5000
nofile = 101
[log]
level = warning
[audit]
redact.one = y
[denylist]
1 = forbidden
"""
TOLD = {
    *("[server] cmd_timeout_ms", "[server] max_output_bytes", "[jobs] max_running", "[jobs] retention_count"),
    *(
        "[limits] max_calls",
        "[limits] stream_idle_ms",
        "[limits] nofile",
        "[log] level",
        "[audit] redact.one",
    ),
}


def test_a_part_that_fails_holds_up_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once every part is prepared all of them change, and so they do the next time."""
    path = tmp_path / "server.ini"
    path.write_text("[denylist]\n1 = old\n")
    taken: dict[str, list[str]] = {name: [] for name in "abc"}

    def part(name: str, done: asyncio.Event | None = None) -> Callable[[ServerConfig], Callable[[], None]]:
        def prepare(config: ServerConfig) -> Callable[[], None]:
            def commit() -> None:
                taken[name].append(config.policy.deny[0].pattern)
                if done is not None:
                    done.set()
                if name == "b":
                    raise RuntimeError("what follows from it fails")

            return commit

        return prepare

    async def reload_twice() -> None:
        reloader = Reloader(load_config(path))
        done = asyncio.Event()
        for name in "abc":
            reloader.add(part(name, done if name == "c" else None))
        running = asyncio.ensure_future(reloader.run())
        for text in ("new", "newer"):
            path.write_text(f"[denylist]\n1 = {text}\n")
            done.clear()
            reloader.ask()
            await asyncio.wait_for(done.wait(), 30)
        await asyncio.sleep(0)
        assert not running.done()
        running.cancel()

    with caplog.at_level(logging.INFO):
        asyncio.run(reload_twice())
    assert taken == {name: ["new", "newer"] for name in "abc"}
    assert "what follows from it fails" in caplog.text
    assert "not all that follows from it was done" in caplog.text


def test_a_part_that_cannot_be_prepared_changes_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "server.ini"
    path.write_text("")
    taken: list[str] = []

    async def reload() -> None:
        reloader = Reloader(load_config(path))
        reloader.add(lambda _: lambda: taken.append("committed"))
        tried = asyncio.Event()
        loop = asyncio.get_running_loop()

        def prepare(_: ServerConfig) -> Callable[[], None]:
            loop.call_soon_threadsafe(tried.set)
            raise ValueError("a defect")

        reloader.add(prepare)
        running = asyncio.ensure_future(reloader.run())
        reloader.ask()
        await asyncio.wait_for(tried.wait(), 30)
        while "NOT reloaded" not in caplog.text:
            await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()

    with caplog.at_level(logging.INFO):
        asyncio.run(reload())
    assert taken == []


def reload(server: ServerProcess, text: str) -> str:
    """Reload, and what the log says of it."""
    before = len(server.log)
    running = RunningServer(server, server.stderr_path.with_suffix(".ini"))
    running.write(text)
    running.reload()
    return server.log[before:]


def told_of(log: str) -> set[str]:
    return set(re.findall(r"(\[\w+\] \S+): a change takes effect at the next start only", log))


@pytest.mark.skipif(os.name != "posix", reason="SIGHUP")
def test_each_key_that_counts_from_the_next_start_is_told_of(serve: Serve) -> None:
    server = serve(AT_START)
    assert told_of(reload(server, CHANGED)) == TOLD
    assert told_of(reload(server, f"{CHANGED}2 = other\n")) == set(), "what was told of is not told again"
    assert told_of(reload(server, AT_START)) == set(), "what is in force again needs no start"
