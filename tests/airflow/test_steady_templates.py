"""Which templates give the same in a triggerer as in a worker, each time, and at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import jinja2
import pendulum
import pytest

from remsvc_provider.templates.steady import is_steady, reads_secrets


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
