"""What DAGs call, and what stored triggers are made with, does not go away: see ``public_names.py``."""

from __future__ import annotations

import public_names
import pytest
from tests.public_api import missing

from remsvc_provider.hooks.remsvc import RemSvcHook
from remsvc_provider.operators.remsvc import RemSvcOperator, RemSvcResult
from remsvc_provider.triggers.remsvc import RemSvcTrigger


@pytest.mark.parametrize(
    ("promised", "actual"),
    [
        (public_names.HookApi, RemSvcHook),
        (public_names.MakesHook, RemSvcHook),
        (public_names.OperatorApi, RemSvcOperator),
        (public_names.MakesTrigger, RemSvcTrigger),
        (public_names.TriggerApi, RemSvcTrigger),
    ],
)
def test_classes_have_their_methods_and_parameters(promised: type, actual: type) -> None:
    assert list(missing(promised, actual)) == []


def test_the_operator_takes_all_its_parameters() -> None:
    """Of them, Airflow itself takes the id of the task, and puts a function of its own around the rest."""
    assert list(missing(public_names.MakesOperator, RemSvcOperator)) == [
        "RemSvcOperator.__init__: parameter task_id is not there any more"
    ]


def test_a_parameter_of_a_stored_trigger_that_went_away_would_be_noticed() -> None:
    class RemSvcTrigger:
        def __init__(self, *, commands: list[dict[str, object]]) -> None: ...

    gone = list(missing(public_names.MakesTrigger, RemSvcTrigger))
    assert "RemSvcTrigger.__init__: parameter sealed_commands is not there any more" in gone
    assert len(gone) == 16


def test_values_have_their_names() -> None:
    assert [state.value for state in public_names.STATES] == ["SUCCESS", "FAILED", "CANCELLED"]
    assert public_names.HASH("true") == "fdfc4c8d"
    assert public_names.INFO()["package-name"] == "airflow-provider-remsvc"
    assert public_names.result_fields(RemSvcResult("SUCCESS", [], None)) == ("SUCCESS", [], None)
