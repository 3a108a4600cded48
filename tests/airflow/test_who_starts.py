"""Who starts a task: the triggerer, or a worker where the triggerer might do something else."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import jinja2
import pendulum
import pytest
from airflow.sdk import DAG, Asset, Param, task_group
from scheduling import STARTS, needs_start, scheduled, serialized, starts_in_triggerer
from triggering import context, deferral, task_instance

from remsvc_provider.operators.remsvc import RemSvcOperator
from remsvc_provider.start_in_triggerer import MOST_CHARACTERS, MOST_TASKS
from remsvc_provider.templates.steady import is_steady, reads_secrets
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
    assert deferral(one.execute, context(ti)).trigger.plan.commands == TRUE


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


@pytest.mark.parametrize(
    "template",
    [
        "",
        "plain",
        "{# comment #}",
        "{{ ds }}-{{ ts_nodash }}",
        "{{ logical_date.add(days=1).strftime('%Y') }}",
        "{{ data_interval_end | ds }}",
        "{{ dag_run.conf['x'] }} {{ dag_run.conf.get('y', 1) }}",
        "{{ task_instance['task_id'] }}",
        "{{ params.x }} {{ params['y'] }}",
        "{{ var.value.x }} {{ var.json.x.y }} {{ var.value[params.x] }} {{ conn.x.host }}",
        "{{ macros.ds_add(ds, 7) }}",
        "{{ macros.ds_format(macros.ds_add(ds, -7), '%Y-%m-%d', '%d.%m.%Y') }}",
        "{{ (logical_date - macros.timedelta(days=1)).strftime('%Y') }}",
        "{{ logical_date.strftime('%Y-%m').split('-')[0] }} {{ run_id.split('__')[-1] }}",
        "{{ ts.split('T')[1][:5] }} {{ params.path.strip().rstrip('/').rsplit('/', 1) | last | trim('.') }}",
        "{{ params | tojson }}",
        "{{ params[params.key] }} {{ dag_run.conf[ds] }} {{ {'a': 1}[params.key] }}",
        "{{ params.hosts[0].name }} {{ dag_run.conf.items() | first }}",
        "{{ dag_run.conf.index }} {{ params.title }} {{ params['partition'] }} {{ var.value.count }}",
        "{{ params.get(var.value.x, 'y') }} {{ dag_run.conf.get('x').get('y', conn.x.host) }}",
        "{{ conn.x.extra_dejson.a['b'] }} {{ conn['x'].host }} {{ conn.x.get_uri() }}",
        "{{ macros.json.loads(dag_run.conf.text) }}",
        "{{ dag_run.conf['a']['b']['c'] | default('x') | trim | upper }}",
        "{{ dag_run.conf.get('hosts', []) | join(' ') }}",
        "{{ macros.json.dumps(dag_run.conf) }} {{ dag_run.conf | tojson }}",
        "{{ ds | replace('-', '') }} {{ ts.replace(':', '_')[:10] }} {{ logical_date.replace(day=1) }}",
        "{{ 'a' if ds > '2030' and params.x is defined else 'b' ~ ds }}",
        "{% if dag_run.conf.full %}all{% elif params.x %}some{% else %}none{% endif %}",
    ],
)
def test_steady_templates(template):
    assert is_steady(template)
    assert reads_secrets(template) is ("var." in template or "conn." in template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ nothing }}",
        "{{ ti.xcom_pull(task_ids='before')['results'][0]['out'] | trim }}",
        "{{ ti.max_tries }}",
        "{{ ti.start_date }}",
        "{{ ti }}",
        "{{ ti[ds] }}",
        # Where it is not found, nothing is said: a worker may have it, or its secrets backend answers.
        "{{ var.value.get('x', 'y') }}",
        "{{ var.value.get('x') }}",
        "{{ var.json.get('x', {}).y }}",
        "{{ var['value'].get('x', 'y') }}",
        "{{ [var.value][0].get('x', 'y') }}",
        "{{ conn.get('x') or 'localhost' }}",
        "{{ (params.x or conn).get('x') }}",
        "{{ [ti] | map(attribute='max_tries') | list }}",
        "{% set x = ti %}{{ x.max_tries }}",
        "{% set ti = 1 %}{{ ti.max_tries }}",
        "{% for ti in [1] %}{{ ti }}{% endfor %}",
        "{{ dag_run.start_date }}",
        "{{ dag.owner }}",
        "{{ prev_start_date_success }}",
        "{{ triggering_asset_events }}",
        "{{ macros.datetime.now() }}",
        "{{ macros.random() }}",
        "{{ macros['uuid'].uuid4() }}",
        "{{ logical_date.now() }}",
        "{{ logical_date['now']() }}",
        "{{ logical_date | attr('now') }}",
        "{{ logical_date.diff_for_humans() }}",
        "{{ logical_date['ag' ~ 'e'] }}",
        "{{ logical_date[params.x] }}",
        "{{ [logical_date][0].age }}",
        "{{ dag_run.conf.get('missing', logical_date).age }}",
        "{{ (params.x or logical_date)['age'] }}",
        "{{ logical_date.date().age }}",
        # What the machine says: its time zone, its language, its files, where it keeps an object.
        "{{ logical_date.in_tz('local') }}",
        "{{ logical_date.in_timezone('local') }}",
        "{{ logical_date.in_timezone(tz='local') }}",
        "{{ logical_date.in_timezone('localtime') }}",
        "{{ logical_date.in_timezone(none) }}",
        "{{ logical_date.in_timezone(params.x) }}",
        "{{ logical_date.replace(tzinfo=None).timestamp() }}",
        "{{ logical_date.strftime('%s') }}",
        "{{ logical_date.strftime('%c') }}",
        "{{ logical_date.strftime('%x') }}",
        "{{ logical_date.strftime('%A %p') }}",
        "{{ logical_date.strftime('%Ey') }}",
        "{{ logical_date.strftime('%-z') }}",
        "{{ logical_date.strftime(format='%Y') }}",
        "{{ macros.ds_format(ds, '%Y-%m-%d', '%c') }}",
        "{{ macros.ds_format(ds, '%A', '%Y') }}",
        "{{ macros.ds_format_locale(ds, '%Y-%m-%d', 'EEEE') }}",
        "{{ logical_date.now }}",
        "{{ ds.upper }}",
        "{{ ds.zfill }}",
        "{{ ds['upper'] }}",
        "{{ dag_run.conf.items }}",
        "{{ dag_run.conf['items'] }}",
        "{{ dag_run.conf.popitem }}",
        "{{ params.copy }}",
        "{{ params.x.append }} {{ params.x.y.hex }}",
        "{{ params.keys().isdisjoint }}",
        "{{ macros.timedelta(days=1).total_seconds }}",
        # The order of what is in a set is another one in each process.
        "{{ (dag_run.conf.keys() - ['dry_run']) | join(' ') }}",
        "{{ ['a', 'b'] - params.keys() }}",
        "{{ dag_run.conf.items() - [params.x.items() | first] }}",
        "{{ logical_date.timezone }}",
        "{{ macros.json }}",
        "{{ macros.json.codecs.sys.version }}",
        "{{ macros.json.codecs.sys.modules['time'].time() }}",
        "{{ macros.json.codecs.sys.modules['os'].environ.get('HOME') }}",
        "{{ macros['json'].loads(ds) }}",
        "{{ macros.ds_add }}",
        "{{ [1, 2] | random }}",
        "{{ lipsum() }}",
        "{{ ds | mine }}",
        "{% include 'other' %}",
        "{% import 'other' as o %}",
        "{{ unfinished",
        "{{ 1" + "1" * 4300 + " }}",
        # Computing what may take long, all of the memory, or all other triggers' time.
        "{{ 9 ** 9 ** 8 }}",
        "{{ 9 * 9 }}",
        "{{ 'x' * 3000000000 }}",
        "{{ '%0999999999d' % 1 }}",
        "{{ '%0999999999d' | format(1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ ds | center(999999999) }}",
        "{{ ds.zfill(999999999) }}",
        "{{ ds | indent(999999999) }}",
        "{{ 1 | round(999999, 'ceil') }}",
        "{{ logical_date.strftime('%0999d') }}",
        "{{ logical_date.strftime('%_999d') }}",
        "{{ macros.ds_format(ds, '%Y-%m-%d', '%0999d') }}",
        "{{ macros.ds_format(ds, '%Y-%m-%d', params.x) }}",
        "{{ logical_date.strftime(params.x) }}",
        "{{ logical_date.strftime(logical_date.strftime('%01500d').replace('0000000', '%01500d')) }}",
        # The time of these is that of one text's length, times that of the other's.
        "{{ params.x.strip(params.y) }}",
        "{{ params.x.lstrip(params.y) }}",
        "{{ params.x.rstrip(params.y) }}",
        "{{ params.x.rsplit(params.y) }}",
        "{{ params.x.rsplit('b" + "a" * 16 + "') }}",
        "{{ params.x.strip('b" + "a" * 16 + "') }}",
        "{{ params.x | trim('b" + "a" * 16 + "') }}",
        "{{ params.x | trim(params.y) }}",
        "{{ params.x | trim(chars=params.y) }}",
        "{{ dag_run.conf | tojson(999999999) }}",
        "{{ macros.json.dumps(dag_run.conf, indent=999999999) }}",
        "{{ macros.json.dumps(*params.x) }}",
        "{{ ds | replace('', 'xxxxxxxxxxxxxxxxxxxxxxxx') }}",
        "{{ ds.replace('0', '00000000000000000000000000') }}",
        "{{ ds.replace(params.x, params.y) }}",
        "{{ ds | replace(old='', new='xxxxxxxxxxxxxxxxxxxxxxxx') }}",
        "{{ ds | join(d='xxxxxxxxxxxxxxxxxxxxxxxx') }}",
        "{{ [ds] | join(',', 'x') }}",
        "{{ ds | join(params.x) }}",
        "{{ ds | join('xxxxxxxxxxxxxxxxxxxxxxxx') }}",
        "{{ ds | tojson | tojson }}",
        "{{ macros.json.dumps(ds | join(',')) }}",
        "{{ ds" + " ~ (ds" * 20 + ")" * 20 + " }}",
        "{{ ds" + " | upper" * 20 + " }}",
        "{{ " + "([" * 7 + "params.x" + "] ~ '')" * 7 + " }}",
        "{{ " + "(" * 8000 + ")" * 8000 + " }}",
        "{% for x in range(100000) %}{% endfor %}",
        "{% for x in ds %}{{ x }}{% endfor %}",
        "{% set x = ds %}{{ x }}",
        "{% macro m(a) %}{{ m(a) }}{% endmacro %}{{ m(ds) }}",
        "{% filter upper %}{{ ds }}{% endfilter %}",
        "{% do params.x.append(1) %}",
        "{{ range(1000000000) }}",
        "{{ (1, 2) | map('string') | join(',') }}",
    ],
    ids=lambda template: template[:60],
)
def test_templates_that_may_give_something_else(template):
    assert not is_steady(template)


@pytest.fixture
def move() -> Iterator[Callable[[str], None]]:
    """Moves this machine into a time zone."""
    with pytest.MonkeyPatch.context() as patch:

        def to(zone: str) -> None:
            patch.setenv("TZ", zone)
            time.tzset()
            pendulum.set_local_timezone(pendulum.timezone(zone))

        yield to
    time.tzset()
    pendulum.set_local_timezone()


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ (@ - @.subtract(days=2)).days }} {{ @.year }} {{ @['month'] }}", "2 2030 1"),
        (
            "{{ @.in_timezone('America/Port-au-Prince').strftime('%-d.%m.%y %T%z 1%%') }}",
            "1.01.30 22:04:05-0500 1%",
        ),
        ("{{ @.in_tz('UTC').start_of('day').timestamp() }} {{ @.date() }}", "1893542400.0 2030-01-02"),
        ("{{ @.time().strftime('%H%z') }} {{ @.replace(day=9, hour=0) }}", "03 2030-01-09 00:04:05+00:00"),
        ("{{ @.strftime('%G %j %U %W %V %u %w %I%M%S.%f') }}", "2030 002 00 00 01 3 3 030405.000000"),
        ("{{ @.to_datetime_string() }} {{ @.isoformat() }}", "2030-01-02 03:04:05 2030-01-02T03:04:05+00:00"),
        ("{{ macros.ds_format('02.01.2030', '%d.%m.%Y', '%F') }}", "2030-01-02"),
    ],
)
def test_dates_are_the_same_wherever_they_are_rendered(template, text, move):
    from airflow.sdk.execution_time import macros

    template = template.replace("@", "logical_date")
    assert is_steady(template)
    date = pendulum.datetime(2030, 1, 2, 3, 4, 5)
    for zone in ("Asia/Kolkata", "America/New_York"):
        move(zone)
        assert jinja2.Template(template).render(logical_date=date, macros=macros) == text
