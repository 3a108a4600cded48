"""Request ids and labels: which try of which task asks."""

from __future__ import annotations

import json

import pytest
from triggering import RUN_STARTED, context, next_try, task_instance

from remsvc.client.jobs import JobSpec, check_request_id
from remsvc_provider.origin import Origin


def request_id(tid: int = 1, **changes) -> str:
    return Origin.of(task_instance(**{"id": "1", "run_id": "manual__1", **changes})).command_id(tid)


def test_a_person_can_read_it():
    assert request_id(dag_id="nightly", task_id="group.backup", map_index=3, try_number=2).startswith(
        "nightly/manual__1/group.backup[3]/try2-"
    )


def test_the_same_try_has_the_same_wherever_it_is_computed():
    ti = task_instance()
    assert Origin.of(ti, context(ti)).request_id == Origin.of(ti).request_id


@pytest.mark.parametrize(
    "changes",
    [
        {"dag_id": "other"},
        {"run_id": "manual__2"},
        {"task_id": "other"},
        {"map_index": 0},
        {"try_number": 2},
        {"id": "2"},
        {"tid": 2},
    ],
)
def test_another_try_has_another(changes):
    assert request_id(**changes) != request_id()


@pytest.mark.parametrize("name", ["x" * 250, "ü" * 250, "with space", "日本", "a\nb"])
def test_whatever_the_names_are_it_can_be_used(name):
    names = {"dag_id": name, "run_id": name, "task_id": name, "map_index": 2**31 - 1, "try_number": 99999}
    ids = {request_id(tid=100_000, **names), request_id(tid=100_000, **{**names, "task_id": name + "z"})}
    assert len(ids) == 2
    for each in ids:
        check_request_id(each)
    ti = task_instance(**names)
    JobSpec(shell_command="true", labels=Origin.of(ti, context(ti)).command_labels(100_000)).validate()


def test_only_the_longest_names_are_cut():
    cut = request_id(dag_id="d" * 100, task_id="backup")
    assert cut.startswith("d" * 60)
    assert "~/manual__1/backup/" in cut


def test_labels():
    ti = task_instance(run_id="manual__1", map_index=4, try_number=2)
    assert Origin.of(ti, context(ti)).command_labels(3) == {
        "airflow_dag_id": "dag",
        "airflow_run_id": "manual__1",
        "airflow_task_id": "remote",
        "airflow_map_index": "4",
        "airflow_try_number": "2",
        "airflow_command": "3",
        "airflow_run_started": "2030-01-02T03:04:05.678901+00:00",
    }


def test_arguments():
    ti = task_instance()
    origin = Origin.of(ti, context(ti))
    assert Origin.from_arguments(json.loads(json.dumps(origin.arguments()))) == origin


@pytest.mark.parametrize(
    ("cleared", "theirs", "before"),
    [
        (1, "2030-01-02T02:04:05+00:00", True),
        (1, "2030-01-02T04:34:05+02:00", True),
        (1, "2030-01-02T03:04:05.678901+00:00", False),
        (1, "2030-01-02T03:04:06+00:00", False),
        (0, "2030-01-02T02:04:05+00:00", False),
        (None, "2030-01-02T02:04:05+00:00", False),
        (1, "yesterday", False),
        (1, "2030-01-01", False),
        (1, None, False),
    ],
)
def test_jobs_from_before_the_run_was_started_over(cleared, theirs, before):
    ti = task_instance(try_number=2)
    origin = Origin.of(ti, context(ti, cleared=cleared))
    labels = {**origin.task_labels, **({"airflow_run_started": theirs} if theirs else {})}
    assert origin.began_before(labels) is before


def test_what_a_clear_of_the_run_renews_is_not_in_the_tasks_labels():
    ti = task_instance()
    earlier, later = context(ti), context(ti, RUN_STARTED.replace(year=2031), 1)
    assert Origin.of(ti, earlier).task_labels == Origin.of(ti, later).task_labels
    assert "airflow_run_id" in Origin.of(ti, later).task_labels


@pytest.mark.parametrize(("max_tries", "tries", "last"), [(0, 1, True), (1, 1, False), (1, 2, True)])
def test_the_last_try(max_tries, tries, last):
    assert Origin.of(task_instance(max_tries=max_tries, try_number=tries)).last_try is last


def test_arguments_of_the_version_before():
    ti = task_instance()
    stored = Origin.of(ti, context(ti)).arguments()
    del stored["run_cleared"], stored["last_try"]
    origin = Origin.from_arguments(stored)
    assert (origin.run_cleared, origin.last_try) == (False, False)


def test_what_a_later_version_stored_besides_is_left_alone():
    """Workers may be upgraded before triggerers are."""
    origin = Origin.of(ti := task_instance(), context(ti))
    assert Origin.from_arguments({**origin.arguments(), "of_a_later_version": 1}) == origin


def test_the_first_try_since_a_clear():
    ti = task_instance(max_tries=2)
    ti.task.retries = 2
    tries = [ti, next_try(ti), next_try(next_try(ti))]
    assert [(Origin.of(each).try_number, Origin.of(each).first_try) for each in tries] == [
        (1, 1),
        (2, 1),
        (3, 1),
    ]
    cleared = next_try(tries[1], cleared=True)
    assert (Origin.of(cleared).try_number, Origin.of(cleared).first_try) == (3, 3)
    assert Origin.of(next_try(cleared)).first_try == 3
