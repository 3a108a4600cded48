"""A job belongs to the identity that created it; for everyone else it does not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc
import pytest

from .client import bearer
from .commands import posix_only
from .jobs import JobClient, refused, spec, state

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = posix_only

CONFIG = """
[auth]
alice = token-of-alice
bob = token-of-bob
root = token-of-root
[jobs]
admins = root, nobody-else
"""


@pytest.fixture(scope="module")
def channel(serve_module: Callable[..., ServerProcess]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(serve_module(CONFIG).target) as channel:
        yield channel


@pytest.fixture
def alice(channel: grpc.Channel) -> JobClient:
    return JobClient(channel, bearer("token-of-alice"))


@pytest.fixture
def bob(channel: grpc.Channel) -> JobClient:
    return JobClient(channel, bearer("token-of-bob"))


@pytest.fixture
def root(channel: grpc.Channel) -> JobClient:
    return JobClient(channel, bearer("token-of-root"))


def test_without_a_token_nothing_can_be_done(channel: grpc.Channel, alice: JobClient) -> None:
    job = alice.create(spec("true"))
    nobody = JobClient(channel)
    for call in (
        lambda: nobody.create(spec("true")),
        lambda: nobody.create(spec("")),
        lambda: nobody.get(job.id),
        lambda: nobody.list(),
        lambda: nobody.cancel(job.id),
        lambda: list(nobody.open_watch(job.id)),
    ):
        with refused(grpc.StatusCode.UNAUTHENTICATED, "missing Authorization header"):
            call()
    with refused(grpc.StatusCode.UNAUTHENTICATED, "invalid bearer token"):
        JobClient(channel, bearer("wrong")).create(spec("true"))


def test_others_do_not_see_it(alice: JobClient, bob: JobClient) -> None:
    job = alice.create(spec("exec sleep 1000"), "hers")
    assert job.identity == "alice"
    for call in (
        lambda: bob.get(job.id),
        lambda: bob.get(request_id="hers"),
        lambda: bob.cancel(job.id),
        lambda: list(bob.open_watch(job.id)),
    ):
        with refused(grpc.StatusCode.NOT_FOUND, "there is no job"):
            call()
    assert job.id not in [other.id for other in bob.list().jobs]
    assert job.id in [other.id for other in alice.list().jobs]
    assert state(alice.get(job.id)) == "RUNNING"
    alice.cancel(job.id, kill=True)
    ended = alice.watch(job.id).job
    assert ended.reason == "cancelled by alice"
    with refused(grpc.StatusCode.NOT_FOUND, "there is no job"):
        bob.get(job.id)


def test_request_ids_do_not_meet(alice: JobClient, bob: JobClient) -> None:
    hers = alice.create(spec("echo hers"), "shared")
    his = bob.create(spec("echo his"), "shared")
    assert hers.id != his.id
    assert alice.get(request_id="shared").id == hers.id
    assert bob.get(request_id="shared").id == his.id
    assert bob.watch(his.id).stdout == b"his\n"


def test_an_admin_sees_and_cancels_everything(alice: JobClient, bob: JobClient, root: JobClient) -> None:
    job = alice.create(spec("echo seen; exec sleep 1000"))
    other = bob.create(spec("true"))
    assert {job.id, other.id} <= {found.id for found in root.list().jobs}
    assert root.get(job.id).identity == "alice"
    with refused(grpc.StatusCode.NOT_FOUND):
        root.get(request_id=job.request_id)  # request ids belong to their identity
    watching = root.open_watch(job.id)
    assert any(message.WhichOneof("event") == "stdout" for message in watching)
    watching.cancel()
    root.cancel(job.id)
    watched = root.watch(job.id)
    assert watched.stdout == b"seen\n"
    assert (state(watched.job), watched.job.reason) == ("CANCELLED", "cancelled by root")
    assert alice.get(job.id) == watched.job
