"""Servers to be killed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import end_supervisors

from .server_host import ServerHost


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "REMSVC_FAULT_ROUNDS" in os.environ:
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes long: make faults"))


HostWith = Callable[..., ServerHost]


@pytest.fixture
def host_with(tmp_path: Path) -> Iterator[HostWith]:
    """``host_with(config_text, state_dir=..., source=...)``: a started server; ended after the test with all
    its jobs."""
    hosts: list[ServerHost] = []

    def start(config: str = "", state_dir: Path | None = None, source: Path | None = None) -> ServerHost:
        folder = tmp_path / f"host{len(hosts)}"
        folder.mkdir()
        host = ServerHost(folder, config, state_dir)
        host.source = source
        hosts.append(host)
        host.start()
        return host

    yield start
    for host in hosts:
        host.end()
        end_supervisors(host.state_dir.parent)


@pytest.fixture
def host(host_with: HostWith) -> ServerHost:
    return host_with()


@pytest.fixture
def chance() -> random.Random:
    """Random numbers; the seed is printed, and may be given as ``REMSVC_FAULT_SEED``."""
    seed = int(os.environ.get("REMSVC_FAULT_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"REMSVC_FAULT_SEED={seed}")
    return random.Random(seed)
