"""What the section [remsvc] of airflow.cfg may say."""

from __future__ import annotations

import uuid
from functools import partial

import pytest

from remsvc_provider.operators.remsvc import TIMEOUT_MARGIN, RemSvcOperator
from remsvc_provider.settings import LOG_DRAIN, MAX_LOG_BYTES, PROMPT_EXIT, RESUME_AFTER, SETTINGS, Setting
from remsvc_provider.version_compat import AirflowException, conf


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_what_the_file_does_not_name_has_its_default(setting: Setting) -> None:
    assert setting.read() == setting.default


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [(PROMPT_EXIT, "false", False), (MAX_LOG_BYTES, "1000", 1000), (LOG_DRAIN, "0", 0.0)],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_what_the_file_says_is_taken(
    setting: Setting, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AIRFLOW__REMSVC__{setting.name.upper()}", text)

    assert setting.read() == value


@pytest.mark.parametrize(
    ("setting", "text", "expected"),
    [
        (PROMPT_EXIT, "maybe", "True or False"),
        (MAX_LOG_BYTES, "0", "a whole number from 1 on"),
        (MAX_LOG_BYTES, "64 MiB", "a whole number from 1 on"),
        (LOG_DRAIN, "-1", "a number from 0 on"),
        (LOG_DRAIN, "nan", "a number from 0 on"),
        (LOG_DRAIN, "inf", "a number from 0 on"),
        (RESUME_AFTER, "soon", "a number from 0 to 30"),
        (RESUME_AFTER, "31", "a number from 0 to 30"),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_what_cannot_be_used_is_named(
    setting: Setting, text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AIRFLOW__REMSVC__{setting.name.upper()}", text)

    with pytest.raises(AirflowException) as raised:
        setting.read()

    assert str(raised.value) == (f"airflow.cfg, [remsvc] {setting.name} is {text!r}; expected {expected}")


def test_what_only_saves_time_does_without(monkeypatch, caplog):
    given = f"maybe-{uuid.uuid4()}"  # each is warned of once
    monkeypatch.setenv("AIRFLOW__REMSVC__PROMPT_EXIT", given)
    assert PROMPT_EXIT.read_or(False) is False
    assert f"[remsvc] prompt_exit is '{given}'; expected True or False; False is used" in caplog.text


def test_airflow_gives_no_deferral_up_while_its_event_is_kept_back():
    assert RESUME_AFTER.most < TIMEOUT_MARGIN.total_seconds()


def test_tasks_are_deferred_unless_the_environment_says_otherwise(monkeypatch):
    # Airflow's own airflow.cfg has "default_deferrable = False", which nobody has asked for.
    assert not conf.getboolean("operators", "default_deferrable")
    make = partial(RemSvcOperator, task_id="run", commands=[{"cmd": "true"}])
    assert make().deferrable is True
    assert make(deferrable=False).deferrable is False
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "False")
    assert make().deferrable is False
    assert make(deferrable=True).deferrable is True
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert make().deferrable is True
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "perhaps")
    with pytest.raises(Exception, match="default_deferrable"):
        make()
