"""What other people's programs call does not go away: see ``public_names.py``."""

from __future__ import annotations

import asyncio

import pytest

import remsvc.client
from remsvc import errors
from remsvc.client import AsyncClient, Client, JobState
from remsvc.errors import server_error
from tests.public_api import missing

from . import public_names

PROMISED = [(public_names.BlockingClientApi, Client), (public_names.AsyncClientApi, AsyncClient)]


@pytest.mark.parametrize(("promised", "actual"), PROMISED)
def test_the_clients_have_their_methods_and_parameters(promised: type, actual: type) -> None:
    assert list(missing(promised, actual)) == []


@pytest.mark.parametrize(("promised", "actual"), PROMISED)
@pytest.mark.parametrize("method", ["close", "connect", "ping", "run_many", "create_job", "watch_job"])
def test_a_method_that_went_away_would_be_noticed(promised: type, actual: type, method: str) -> None:
    kept = {name: value for name, value in vars(promised).items() if name != method}
    assert list(missing(promised, type(actual.__name__, (), kept))) == [
        f"{actual.__name__}.{method} is not there any more"
    ]


def test_a_changed_signature_would_be_noticed() -> None:
    class Promised:
        def call(self, first: int, second: int = 2, *, third=3) -> None: ...

    class Changed:
        def call(self, second: int = 2, *, third=4, fourth: int) -> None: ...

    assert list(missing(Promised, Changed)) == [
        "Changed.call: parameter first is not there any more",
        "Changed.call: parameter third: expected third=3 (keyword-only), not third=4 (keyword-only)",
        "Changed.call: expected the order ['self', 'first', 'second'], not ['self', 'second']",
        "Changed.call: parameter fourth is new, and must have a default",
    ]


def test_the_values_are_made_and_read_as_ever() -> None:
    public_names.command()
    public_names.job_spec()
    public_names.events()
    public_names.answers()

    async def make() -> None:  # a client belongs to the event loop in which it was made
        blocking, asynchronous = public_names.clients()
        blocking.close()
        await asynchronous.close()

    asyncio.run(make())


def test_states_and_errors_have_their_names() -> None:
    assert [str(state) for state in public_names.STATES] == [state.name for state in JobState]
    for code, kind in public_names.SERVER_ERRORS.items():
        assert type(server_error(code, "", "")) is kind
        assert issubclass(kind, errors.ServerError)
    assert all(issubclass(kind, errors.RemSvcError) for kind in public_names.OTHER_ERRORS)
    assert public_names.what_errors_tell(
        server_error("INTERNAL", "details", "host:1", sent=False),
        errors.ResourceExhaustedError("RESOURCE_EXHAUSTED", "", ""),
        errors.AlreadyExistsError("ALREADY_EXISTS", "", ""),
        errors.ConfigurationError(["one", "two"]),
        errors.MissingResultsError([1, 2]),
    ) == ("INTERNAL", "details", "host:1", False, None, None, ("one", "two"), (1, 2))


def test_the_package_offers_all_of_them_and_nothing_else() -> None:
    assert set(remsvc.client.__all__) == {
        "AsyncClient",
        "Client",
        "CommandResult",
        "ConnectionOptions",
        "Job",
        "JobSpec",
        "JobState",
        "OutputChunk",
        "OutputSize",
        "Pong",
        "StateChange",
        "Status",
    }
