"""Templates: what the author of a command wrote is what the command gets."""

from __future__ import annotations

import time
from typing import Any

import pytest
from airflow.sdk import DAG
from hypothesis import given
from hypothesis import strategies as st
from triggering import context, deferral, fire, restored, results, task_instance

from remsvc_provider.operators.remsvc import RemSvcOperator
from remsvc_provider.templates.rendering import render_field

BOTH = pytest.mark.parametrize("native", [False, True])


def rendered(native: bool, values: dict[str, Any] | None = None, **fields: Any) -> RemSvcOperator:
    with DAG("dag", schedule=None, render_template_as_native_obj=native) as dag:
        task = RemSvcOperator(
            task_id="run", **{"commands": [{"cmd": "true"}], "grpc_conn_id": "remsvc_test", **fields}
        )
    task.render_template_fields(values or {}, jinja_env=dag.get_template_env())
    return task


@BOTH
@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("one\n", "one\n"),
        ("one\n\n", "one\n\n"),
        ("\n", "\n"),
        ("one\r\ntwo\r\n", "one\r\ntwo\r\n"),
        ("one\rtwo", "one\rtwo"),
        ("{{ x }}\r\n", "X\r\n"),
        ("{{\r\n x\r\n}}\r\n", "X\r\n"),
        ("a\r\n{%- if true -%}\r\n b {%- endif %}\r\n", "ab\r\n"),
        ("{# no\r\n #}b\n", "b\n"),
        ("a\r\n{{- x -}}\r\n {{- x }}\r\n {{ x -}} \r\n", "aXX\r\n X"),
        ("{% raw %}{{ x }}\r\n{% endraw %}\n", "{{ x }}\r\n\n"),
        ("\ue000\r\n", "\ue000\r\n"),
        ("3.10", "3.10"),
        ("{{ number }}", "310"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("None", "None"),
        ("'quoted'", "'quoted'"),
        ('{"json": 1}\n', '{"json": 1}\n'),
        ("  spaces ", "  spaces "),
    ],
)
def test_text_is_kept(native, text, after):
    task = rendered(
        native,
        {"x": "X", "number": 310},
        commands=[
            {"cmd": text, "input": text, "env": {"A": text}, "cwd": text, "src": text, "cmdusr": text},
            {"argv": ["echo", text]},
        ],
        env={"B": text},
        cwd=text,
        metadata=[("x-key", text)],
    )
    first, second = task.commands
    assert first == {**dict.fromkeys(("cmd", "input", "cwd", "src", "cmdusr"), after), "env": {"A": after}}
    assert second == {"argv": ["echo", after]}
    assert (task.env, task.cwd, task.metadata) == ({"B": after}, after, [("x-key", after)])


@pytest.mark.parametrize("unit", [" ", " {{", " {%-"])
def test_no_text_takes_long(unit):
    """A time in proportion to the size: minutes, in which no other task goes on, where it is in proportion
    to its square."""
    text = "\r" + unit * 300_000 + "x"
    begun = time.thread_time()
    assert render_field("cwd", text, lambda value: value) == text
    assert time.thread_time() - begun < 10


def test_what_may_be_something_else_is_rendered_as_the_dag_wants_it():
    values = {
        "all": [{"cmd": "true"}],
        "one": {"cmd": "false"},
        "env": {"A": "1", "PORT": 8080},
        "argv": ["echo", "x"],
        "data": b"\xff\r\n",
    }
    assert rendered(True, values, commands="{{ all }}").commands == values["all"]
    task = rendered(
        True,
        values,
        commands=[
            "{{ one }}",
            {"argv": "{{ argv }}", "env": "{{ env }}"},
            {"cmd": "cat", "cmdtyp": "{{ 0 }}", "input": "{{ data }}"},
        ],
        env="{{ env }}",
    )
    assert task.commands == [
        values["one"],
        {"argv": values["argv"], "env": values["env"]},
        {"cmd": "cat", "cmdtyp": 0, "input": values["data"]},
    ]
    assert task.env == values["env"]


@given(st.text("ab\r\n\0{} '1", max_size=30).filter(lambda text: not set("{") & set(text)))
@BOTH
def test_text_without_templates_is_kept_to_the_byte(native, text):
    assert rendered(native, commands=[{"cmd": text}]).commands == [{"cmd": text}]


@BOTH
async def test_the_command_gets_it_to_the_byte(native, conn_id):
    task = rendered(
        native,
        {"port": 8080},
        commands=[
            {"cmd": "od -An -c", "input": "a\r\n{{ port }}\n"},
            {"cmd": "echo $PORT $NUMBER", "env": {"PORT": "{{ port }}", "NUMBER": 7}},
        ],
    )
    ti = task_instance()
    event = await fire(restored(deferral(task.execute, context(ti)).trigger, ti))
    data, variables = results(event)
    assert data["out"].split() == ["a", r"\r", r"\n", "8", "0", "8", "0", r"\n"]
    assert variables["out"] == "8080 7\n"
