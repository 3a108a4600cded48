"""Connections that break, stall and vanish between client and server."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remsvc.client import Client, ConnectionOptions
from remsvc.client.jobs import JobSpec
from remsvc.errors import RemSvcError

from .counted_jobs import CountedJob
from .flaky_proxy import FlakyProxy
from .server_host import ServerHost, lines, wait_until
from .test_killed_server import ROUNDS


@pytest.fixture
def proxy(host: ServerHost) -> Iterator[FlakyProxy]:
    proxy = FlakyProxy(("127.0.0.1", host.port))
    yield proxy
    proxy.close()


def through(proxy: FlakyProxy, keepalive: float = 15.0) -> Client:
    return Client(ConnectionOptions(f"127.0.0.1:{proxy.port}", keepalive=keepalive))


@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_connections_reset_at_any_instant(proxy: FlakyProxy, chance: random.Random, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = threading.Event()

    def break_connections() -> None:
        while not done.is_set():
            time.sleep(chance.uniform(0.01, 0.4))
            proxy.reset()

    breaking = threading.Thread(target=break_connections)
    breaking.start()
    try:
        with through(proxy) as client:
            for number in range(ROUNDS):
                CountedJob(f"job{number}", log, pieces=3, pause=0.05).run(client)
    finally:
        done.set()
        breaking.join()
    assert lines(log) == [f"job{number}" for number in range(ROUNDS)]


def test_a_slow_network(proxy: FlakyProxy, tmp_path: Path) -> None:
    proxy.delay = 0.05
    with through(proxy) as client:
        CountedJob("job", tmp_path / "log", pieces=20, pause=0.01).run(client)
    assert lines(tmp_path / "log") == ["job"]


def test_a_create_whose_answer_is_lost(proxy: FlakyProxy, host: ServerHost, tmp_path: Path) -> None:
    """The request arrives, the answer does not: asked again, it is the same job."""
    job = CountedJob("job", tmp_path / "log")
    with through(proxy) as client:
        client.ping()
        creating = threading.Thread(target=lambda: job.create(client))
        proxy.delay = 0.3  # the answer is on its way for that long
        creating.start()
        wait_until(lambda: lines(tmp_path / "log"), "it runs")
        proxy.reset()
        proxy.delay = 0
        job.run(client)
        creating.join()
    with host.client() as client:
        assert len(list(client.list_jobs())) == 1
    assert lines(tmp_path / "log") == ["job"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_network_that_says_nothing_any_more(proxy: FlakyProxy, tmp_path: Path) -> None:
    """Both ends believe in the connection. Keepalive finds out, and the watch goes on with another one."""
    job = CountedJob("job", tmp_path / "log", pieces=40, pause=0.05)
    with through(proxy, keepalive=6.0) as client:
        created = job.create(client)
        watched: list[object] = []
        watching = threading.Thread(target=lambda: watched.append(job.watch(client, created)))
        watching.start()
        wait_until(lambda: proxy.carried > 30_000, "output streams")
        proxy.silence()
        watching.join(120)
        assert watched
    assert lines(tmp_path / "log") == ["job"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_watcher_that_vanished_without_a_word_does_not_renew_a_lease(
    proxy: FlakyProxy, host: ServerHost
) -> None:
    """The server's keepalive finds out that nobody is there, and the lease runs out."""
    client = through(proxy)
    with host.client() as other:
        job = client.create_job(JobSpec(shell_command="exec sleep 1000", lease=2.0), "lease")

        def watch() -> None:
            with contextlib.suppress(RemSvcError):
                list(client.watch_job(job.id))

        watching = threading.Thread(target=watch)
        watching.start()
        time.sleep(4)
        assert not other.get_job(job.id).ended, "it is being watched"
        proxy.silence()
        wait_until(lambda: other.get_job(job.id).ended, "the lease runs out", deadline=200)
        assert other.get_job(job.id).reason.startswith("LEASE_EXPIRED")
    client.close()
    watching.join(60)
