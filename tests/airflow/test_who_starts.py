"""Who starts a task: the triggerer, or a worker where the triggerer might do something else."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import jinja2
import pytest
from airflow.sdk import DAG, Asset, Param, task_group
from scheduling import STARTS, needs_start, scheduled, serialized, starts_in_triggerer
from triggering import context, deferral, task_instance

from remsvc_provider.operators.remsvc import RemSvcOperator
from remsvc_provider.start_in_triggerer import MOST_CHARACTERS, MOST_TASKS
from remsvc_provider.version_compat import AirflowException

TRUE = [{"cmd": "true"}]


class Preset(RemSvcOperator):
    """One of those that people write: it starts as the operator does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(commands=[], **kwargs)
        self.commands = [{"cmd": "echo {{ ds }}"}]

    def execute_complete(self, *arguments: Any, **named: Any) -> Any:
        return super().execute_complete(*arguments, **named)


class Prepared(RemSvcOperator):
    """Another one, which does something before it starts."""

    def execute(self, context: Any) -> Any:
        self.commands = [*self.commands, {"cmd": "true"}]
        return super().execute(context)


def make(
    kind: type[RemSvcOperator] = RemSvcOperator, dag: dict[str, Any] | None = None, **parameters: Any
) -> Any:
    with DAG(
        "dag", **{"schedule": None, "start_date": datetime(2030, 1, 1, tzinfo=timezone.utc), **(dag or {})}
    ):
        return kind(task_id="run", **{**({} if kind is Preset else {"commands": TRUE}), **parameters})


@needs_start
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"start_from_trigger": True},
        {"retries": 3, "retry_delay": timedelta(0)},
        {"execution_timeout": timedelta(seconds=9)},
        {"durable": True, "parallel": 2, "on_kill": "leave", "skip_on_exit_code": [3]},
        {"result_handler": lambda results: results},
        {"env": {"PASSWORD": "{{ var.value.password }}"}},
        {"env": {"PASSWORD": " {{ conn['x'].extra_dejson['p'] | trim }} ", "TOKEN": "{{ params.get('x') }}"}},
        {"metadata": [("authorization", "Bearer {{ conn.server.password }}"), ("x", "{{ run_id }}")]},
        {"metadata": (("x", "y"),), "cwd": "/tmp", "grpc_conn_id": "{{ params.conn }}"},
        {"metadata": [("x-api-key", "{{ conn.x.password }}"), ("{{ params.key }}", "{{ params.value }}")]},
        {"env": "{{ dag_run.conf.env }}"},
        {"commands": [{"cmd": "true", "env": "{{ var.json.env }}"}, "{{ params.command }}"]},
        {"on_failure_callback": print, "on_success_callback": print},
        {"kind": Preset},
        {"dag": {"params": {"x": "y"}}},
        {"dag": {"schedule": "@daily"}},
        {"dag": {"render_template_as_native_obj": True}},
        {"dag": {"default_args": {"start_from_trigger": True}}},
        {"stream_timeout": -1},
    ],
    ids=str,
)
def test_the_triggerer_starts(parameters):
    assert starts_in_triggerer(make(**parameters))


@pytest.mark.parametrize(
    "parameters",
    [
        {"start_from_trigger": False},
        {"start_from_trigger": "False"},
        {"deferrable": "no"},
        {"deferrable": False},
        {"dag": {"default_args": {"start_from_trigger": False}}},
        # A secret would be stored as it is.
        {"metadata": [("authorization", "Bearer tok-0123456789")]},
        {"metadata": [("Authorization", "tok-0123456789{{ '' }}")]},
        {"metadata": [("authorization", "Bearer {{ ds }}hunter2{{ ds }}")]},
        {"metadata": [("authorization", "{{ 'hunter2' }}")]},
        {"env": {"PASSWORD": "{{ params.x | default('hunter2') }}"}},
        {"env": {"PASSWORD": "{{ var.value.get('password', 'hunter2') }}"}},
        {"env": {"PASSWORD": "{{ 12345 }}"}},
        {"env": {"PASSWORD": "{{ params.x }}{# hunter2 #}{{ params.x }}"}},
        {"env": {"PASSWORD": "it-stands-here"}},
        {"env": {"PASSWORD": 12345678}},
        {"env": {"PASSWORD": 1234.5678}},
        {"env": {"PASSWORD": {"a": ["it-stands-here"]}}},
        {"metadata": [("x-api-key", "it-stands-here")]},
        # Its name is known once it is rendered.
        {"metadata": [("{{ params.header }}", "Bearer hunter2")]},
        {"metadata": [("{{ 'authorization' }}", "Bearer hunter2")]},
        {"env": "{{ {'PASSWORD': 'hunter2'} }}"},
        {"commands": "{{ [{'cmd': 'true', 'env': {'PASSWORD': 'hunter2'}}] }}"},
        {"commands": ["{{ {'cmd': 'true', 'env': {'PASSWORD': 'hunter2'}} }}"]},
        {"commands": [{"cmd": "true", "env": "{{ {'PASSWORD': 'hunter2'} }}"}]},
        # What JSON does not hold, or is for a worker to refuse.
        {"metadata": lambda context, jinja_env: [("x", "y")]},
        {"metadata": [("x", object())]},
        {"metadata": [1]},
        {"env": {1: "x"}},
        {"env": {"A": "\0"}},
        {"env": {"A": "\ud800"}},
        {"env": {"A": float("nan")}},
        {"skip_on_exit_code": {3}},
        {"stream_timeout": timedelta(seconds=9)},
        {"stream_timeout": True},
        {"stream_timeout": 315_000_000},
        {"execution_timeout": timedelta(0)},
        {"env": {"A": "x" * MOST_CHARACTERS}},
        # What comes before the start.
        {"pre_execute": print},
        {"on_execute_callback": print},
        {"kind": Prepared},
        # What the scheduler looks at when it gives a task to a worker.
        {"pool": "few"},
        {"max_active_tis_per_dag": 1},
        {"max_active_tis_per_dagrun": 1},
        # What the triggerer does not know, or cannot make a context of.
        {"inlets": [Asset("a")]},
        {"outlets": [Asset("a")]},
        {"params": {"x": Param("a", enum=["a"])}},
        {"params": {"x": Param()}},
        {"dag": {"params": {"x": Param("a", type="string")}}},
        {"dag": {"user_defined_macros": {"x": 1}}},
        {"dag": {"user_defined_filters": {"x": str}}},
        {"dag": {"jinja_environment_kwargs": {"trim_blocks": True}}},
        {"dag": {"template_undefined": jinja2.Undefined}},
        {"render_template_as_native_obj": True},
        # Templates.
        {"cwd": "{{ ti.max_tries }}"},
        {"metadata": [("x", "{{ macros.datetime.now() }}")]},
        {"env": {"A": "{{ nothing }}"}},
    ],
    ids=str,
)
def test_a_worker_starts(parameters, monkeypatch):
    if "render_template_as_native_obj" in parameters and not STARTS:
        pytest.skip("this Airflow does not know it")
    assert not starts_in_triggerer(make(**parameters))


def test_the_stored_dag_does_not_change_with_what_its_process_knows():
    """Each change would be a new version of the DAG; the processor of DAG files learns others' secrets."""
    from airflow.sdk.log import mask_secret

    def stored() -> Any:
        return serialized(make(env={"A": "known-to-the-dag-processor"}).dag)

    before = stored()
    mask_secret("known-to-the-dag-processor")
    assert stored() == before


def test_a_task_may_be_changed_after_it_was_made():
    """As by a cluster policy: Airflow asks again, and again."""
    task = make()
    for template, steady in (("{{ ds }}", True), ("{{ ti.max_tries }}", False), ("{{ ts }}", True)):
        task.commands[0] = {"cmd": template}
        assert starts_in_triggerer(task) is (steady and STARTS)
        if steady and STARTS:
            assert template in str(scheduled(task.dag).start_trigger_args)
    task.dag.params["x"] = Param("a", type="string")
    assert not starts_in_triggerer(task)


@needs_start
def test_the_templates_of_a_task_that_is_too_large_are_not_read(monkeypatch):
    """It takes 3 s for a megabyte of them, of the 30 that Airflow gives to all DAGs of a file."""
    read = []
    monkeypatch.setattr(jinja2.Environment, "parse", lambda environment, text: read.append(text))
    assert not starts_in_triggerer(make(commands=[{"cmd": "{{ ds }}" * MOST_CHARACTERS}]))
    assert not read


def test_airflow_cfg_says_what_is_usual(monkeypatch):
    monkeypatch.setenv("AIRFLOW__REMSVC__START_FROM_TRIGGER", "False")
    assert not starts_in_triggerer(make())
    assert starts_in_triggerer(make(start_from_trigger=True)) is STARTS


def test_an_option_that_cannot_be_used_lets_no_dag_fail(monkeypatch, caplog):
    """And is warned of once, not for each task of each DAG file."""
    given = f"perhaps-{uuid.uuid4()}"
    monkeypatch.setenv("AIRFLOW__REMSVC__START_FROM_TRIGGER", given)
    assert not starts_in_triggerer(make())
    assert not starts_in_triggerer(make())
    assert caplog.text.count(f"[remsvc] start_from_trigger is '{given}'; expected True or False") == 1


def test_triggerers_with_queues_are_given_tasks_by_workers(monkeypatch):
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")
    assert not starts_in_triggerer(make())


def test_an_airflow_that_cannot_starts_nothing(monkeypatch):
    from airflow.triggers.base import BaseTrigger

    if STARTS:
        monkeypatch.delattr(BaseTrigger, "render_template_fields")
    assert not starts_in_triggerer(make(start_from_trigger=True))


def test_a_dag_of_many_tasks_is_a_workers():
    with DAG("dag", schedule=None):
        tasks = [RemSvcOperator(task_id=f"run{number}", commands=TRUE) for number in range(MOST_TASKS)]
        assert bool(tasks[0].start_from_trigger) is STARTS
        RemSvcOperator(task_id="one_more", commands=TRUE)
    assert not tasks[0].start_from_trigger


@pytest.mark.parametrize("wanted", [{}, {"start_from_trigger": None}, {"start_from_trigger": True}], ids=str)
def test_mapped_tasks_are_a_workers(wanted):
    """The scheduler does not know what each of them is to run."""
    with DAG("dag", schedule=None) as dag:
        RemSvcOperator.partial(task_id="run", **wanted).expand(commands=[TRUE, TRUE])

        @task_group
        def group(x):
            RemSvcOperator(task_id="in_group", commands=TRUE, env={"A": "b"}, **wanted)

        group.expand(x=[1, 2])
    for task_id in ("run", "group.in_group"):
        assert not scheduled(dag, task_id).start_trigger_args
        assert not scheduled(dag, task_id).start_from_trigger
    one = dag.get_task("run").unmap({"commands": TRUE, **wanted})
    ti = task_instance(task_id="run", map_index=1)
    assert deferral(one.execute, context(ti)).trigger.serialize()[1]["commands"] == TRUE


@pytest.mark.parametrize("given", ["perhaps", "True"])
def test_a_mapped_task_says_what_cannot_be_used(given):
    """At once: nothing of it is left for the task to refuse."""
    with pytest.raises(
        AirflowException, match=f"^start_from_trigger is '{given}'; expected True, False or None$"
    ):
        RemSvcOperator.partial(task_id="run", start_from_trigger=given)


def test_what_comes_from_an_upstream_task_as_an_object_is_a_workers():
    with DAG("dag", schedule=None):
        before = RemSvcOperator(task_id="before", commands=TRUE)
        after = RemSvcOperator(task_id="after", commands=before.output)
        nested = RemSvcOperator(
            task_id="nested", commands=[{"cmd": "cat", "input": before.output["results"]}]
        )
    assert not starts_in_triggerer(after)
    assert not starts_in_triggerer(nested)


@needs_start
def test_no_template_is_rendered_while_the_dag_is_stored():
    (stored,) = serialized(make(commands=[{"cmd": "{{ var.value.x }}"}]).dag)["dag"]["tasks"]
    assert "{{ var.value.x }}" in json.dumps(stored["__var"]["start_trigger_args"])
