"""The operator, from its parameters to its XCom."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from triggering import context, deferral, task_instance

from conftest import answer, in_a_thread, run_python
from remsvc.command import crc32hex
from remsvc_provider.operators.remsvc import RemSvcOperator
from remsvc_provider.origin import Origin
from remsvc_provider.triggers.remsvc import RemSvcTrigger
from remsvc_provider.version_compat import AirflowException, AirflowFailException, AirflowSkipException


def operator(commands: Any = ({"cmd": "true"},), **options: Any) -> RemSvcOperator:
    commands = list(commands) if isinstance(commands, tuple) else commands
    return RemSvcOperator(task_id="run", commands=commands, **{"grpc_conn_id": "remsvc_test", **options})


# ---- parameters


@pytest.mark.parametrize(
    ("commands", "words"),
    [
        ([], ["commands must not be empty"]),
        ("echo", ["commands must be a list", "str"]),
        ({"cmd": "echo"}, ["commands must be a list", "dict"]),
        (None, ["commands must be a list", "NoneType"]),
        ([{"cmd": "true"}, {"cmd": ""}], ["commands[1]", "cmd", "empty"]),
        ([{"cmd": "true"}, {"cmd": " \n\t"}], ["commands[1]", "cmd", "blank"]),
        ([{"cmdtyp": 0}], ["commands[0]", "cmd", "missing"]),
        (["true"], ["commands[0]", "dict", "str"]),
        ([{"cmd": "true"}, {"cmd": 5}], ["commands[1]", "cmd must be a string", "int"]),
        ([{"cmd": None}], ["commands[0]", "cmd must be a string"]),
        ([{"cmd": "a\0b"}], ["commands[0]", "NUL"]),
        ([{"cmd": "\ud800"}], ["commands[0]", "surrogate"]),
        ([{"cmd": "true", "timeout": 3}], ["commands[0]", "'timeout'", "cmd, cmdtyp, cmdusr, src"]),
        ([{"cmd": "true", 7: 3}], ["commands[0]", "unknown key 7"]),
        ([{"cmd": "true", "cmdtyp": 2}], ["commands[0]", "cmdtyp", "2"]),
        ([{"cmd": "true", "cmdtyp": "0"}], ["commands[0]", "cmdtyp", "str"]),
        ([{"cmd": "true", "cmdtyp": True}], ["commands[0]", "cmdtyp", "bool"]),
        ([{"cmd": "true", "cmdtyp": 1.0}], ["commands[0]", "cmdtyp", "float"]),
        ([{"cmd": "true", "cmdusr": 0}], ["commands[0]", "cmdusr", "int"]),
        ([{"cmd": "true", "src": None}], ["commands[0]", "src", "NoneType"]),
        ([{"cmd": ""}, {"cmd": "true"}, {"cmd": "true", "src": 1}], ["commands[0]", "commands[2]"]),
        ([{"cmd": "true", "argv": ["true"]}], ["commands[0]", "cmd and argv"]),
        ([{"argv": ["true"], "cmdtyp": 0}], ["commands[0]", "cmdtyp", "argv"]),
        ([{"argv": []}], ["commands[0]", "argv must begin with the name of a program"]),
        ([{"argv": [""]}], ["commands[0]", "argv must begin with the name of a program"]),
        ([{"argv": "true"}], ["commands[0]", "argv must be a list of strings", "str"]),
        ([{"argv": ["sleep", 1]}], ["commands[0]", "argv[1] must be a string", "int"]),
        ([{"argv": ["a\0b"]}], ["commands[0]", "argv[0]", "NUL"]),
        ([{"cmd": "true", "env": ["A=1"]}], ["commands[0]", "env must be a dict", "list"]),
        ([{"cmd": "true", "env": {"A": True}}], ["commands[0]", "env['A'] must be a string", "bool"]),
        ([{"cmd": "true", "env": {"A": None}}], ["commands[0]", "env['A'] must be a string", "NoneType"]),
        ([{"cmd": "true", "env": {"A": 3.1}}], ["commands[0]", "env['A'] must be a string", "float"]),
        ([{"cmd": "true", "env": {"A": ["x"]}}], ["commands[0]", "env['A'] must be a string", "list"]),
        ([{"cmd": "true", "env": {"A=B": "1"}}], ["commands[0]", "'A=B'", "name of a variable"]),
        ([{"cmd": "true", "env": {"": "1"}}], ["commands[0]", "''", "name of a variable"]),
        ([{"cmd": "true", "cwd": "tmp"}], ["commands[0]", "cwd is 'tmp'", "absolute path"]),
        ([{"cmd": "true", "cwd": 1}], ["commands[0]", "cwd must be a string", "int"]),
        ([{"cmd": "true", "input": 1}], ["commands[0]", "input must be text or bytes", "int"]),
        (
            [{"cmd": "true", "input": b"x" * 1048577}],
            ["commands[0]: input: expected at most 1048576 bytes, not 1048577"],
        ),
        (
            [{"cmd": "true"}, {"cmd": "x" * 131_072}],
            ["commands[1]", "cmd: expected at most 131071 bytes, not 131072"],
        ),
        ([{"cmd": "true"}, {"argv": ["echo", "ä" * 65_536]}], ["commands[1]", "131071 bytes, not 131072"]),
        ([{"argv": ["echo", *["x"] * 32_768]}], ["commands[0]", "argv: expected at most 32768 entries"]),
        ([{"cmd": "true", "env": {"A": "x" * 131_070}}], ["commands[0]", "'A'", "131071 bytes, not 131072"]),
        ([{"argv": ["x" * 100_000] * 22}], ["commands[0]", "together: expected at most 2097152 bytes"]),
        ([{"cmd": "true", "cwd": "/" + "x" * 4095}], ["commands[0]", "working_directory", "4095 bytes"]),
    ],
)
def test_commands_that_cannot_be_used(commands, words):
    with pytest.raises(AirflowException) as caught:
        operator(commands).execute({})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("stream_timeout", [0, -1, "60", None, True, float("nan"), float("inf"), 1e12])
def test_stream_timeout_must_be_a_number_above_zero(stream_timeout):
    with pytest.raises(AirflowException, match=r"stream_timeout is .*; expected a number of seconds above 0"):
        operator(stream_timeout=stream_timeout).execute({})


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("authorization", "metadata must be a list of pairs"),
        ({"authorization": "Bearer t0ken"}, "metadata must be a list of pairs"),
        ([("a", "b"), ("x",)], r"metadata\[1\] must be a pair of strings"),
        ([("a", "b", "c")], r"metadata\[0\] must be a pair of strings"),
        ([("a", 1)], r"metadata\[0\] must be a pair of strings"),
        (["ab"], r"metadata\[0\] must be a pair of strings"),
    ],
)
def test_metadata_that_cannot_be_used(metadata, words):
    with pytest.raises(AirflowException, match=words) as caught:
        operator(metadata=metadata).execute({})
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"env": ["A"]}, "env must be a dict of strings, not list"),
        ({"env": {"A": None}}, r"env\['A'\] must be a string, not NoneType"),
        ({"cwd": "here"}, "cwd is 'here'; expected an absolute path"),
        ({"max_output_bytes": 0}, "max_output_bytes is 0; expected a whole number from 1 on"),
        ({"max_output_bytes": 1.5}, "max_output_bytes is 1.5"),
        ({"parallel": 0}, "parallel is 0; expected a whole number from 1 on"),
        ({"parallel": True}, "parallel is True"),
        ({"durable": "no"}, "durable is 'no'; expected True, False or None"),
        ({"deferrable": "no"}, "deferrable is 'no'; expected True or False"),
        ({"start_from_trigger": "False"}, "start_from_trigger is 'False'; expected True, False or None"),
        ({"start_from_trigger": []}, r"start_from_trigger is \[\]; expected True, False or None"),
        ({"skip_on_exit_code": 0}, "skip_on_exit_code has 0; expected an exit code other than 0"),
        ({"skip_on_exit_code": "99"}, "skip_on_exit_code has '99'"),
        ({"skip_on_exit_code": [1, None]}, "skip_on_exit_code has None"),
        ({"on_kill": "kill"}, "on_kill is 'kill'; expected 'cancel' or 'leave'"),
        ({"max_log_bytes": 0}, "max_log_bytes is 0; expected a whole number from 1 on"),
        ({"max_log_bytes": "64 MiB"}, "max_log_bytes is '64 MiB'"),
        ({"log_drain": -1}, "log_drain is -1; expected a number of seconds from 0 on"),
        ({"log_drain": float("nan")}, "log_drain is nan"),
        ({"log_drain": float("inf")}, "log_drain is inf"),
        ({"log_drain": True}, "log_drain is True"),
    ],
)
def test_other_parameters_that_cannot_be_used(options, words):
    with pytest.raises(AirflowException, match=words):
        operator(**options).execute({})


# ---- deferring


def test_defers_to_the_trigger():
    commands = [{"cmd": "echo 1", "cmdtyp": 0}, {"cmd": "echo 2", "cmdusr": "nobody", "src": "dag"}]
    task = operator(commands, stream_timeout=60, metadata=[("x-run", "1")])
    deferred = deferral(task.execute, {})
    assert deferred.method_name == "execute_complete"
    assert deferred.timeout is None
    assert isinstance(deferred.trigger, RemSvcTrigger)
    classpath, arguments = deferred.trigger.serialize()
    assert classpath == "remsvc_provider.triggers.remsvc.RemSvcTrigger"
    assert arguments == {
        "commands": commands,
        "grpc_conn_id": "remsvc_test",
        "stream_timeout": 60.0,
        "metadata": [("x-run", "1")],
    }


def test_defaults():
    task = RemSvcOperator(task_id="run", commands=[{"cmd": "true"}])
    _, arguments = deferral(task.execute, {}).trigger.serialize()
    assert arguments["grpc_conn_id"] == "remsvc_default"
    assert arguments["stream_timeout"] == 3600.0
    assert arguments["metadata"] == []


def test_execution_timeout_limits_the_deferral():
    deferred = deferral(operator(execution_timeout=timedelta(minutes=5)).execute, {})
    assert deferred.trigger.serialize()[1]["execution_timeout"] == 300
    # The trigger ends before Airflow's own limit, which knows no retry in Airflow 3.1.0.
    assert timedelta(minutes=5) < deferred.timeout <= timedelta(minutes=7)


def render(task: RemSvcOperator, **context: Any) -> RemSvcOperator:
    task.render_template_fields(context)
    return task


def test_templates():
    task = operator(
        [{"cmd": "echo {{ ds }}", "cmdusr": "{{ user }}"}],
        grpc_conn_id="{{ conn }}",
        metadata=[("x-ds", "{{ ds }}")],
    )
    render(task, ds="2030-01-02", user="nobody", conn="other")
    _, arguments = deferral(task.execute, {}).trigger.serialize()
    assert arguments["commands"] == [{"cmd": "echo 2030-01-02", "cmdusr": "nobody"}]
    assert arguments["grpc_conn_id"] == "other"
    assert arguments["metadata"] == [("x-ds", "2030-01-02")]


def test_a_command_that_renders_to_nothing_is_refused():
    with pytest.raises(AirflowException, match=r"commands\[0\]: cmd is missing, empty or blank"):
        render(operator([{"cmd": "{{ nothing }}"}]), nothing="").execute({})


def test_an_authorization_entry_is_neither_shown_nor_stored():
    task = operator(metadata=[("Authorization", "Bearer {{ token }}"), ("x-run", "1")])
    render(task, token="t0ken-of-the-dag")
    assert task.metadata == [("Authorization", "***"), ("x-run", "1")]
    _, arguments = deferral(task.execute, {}).trigger.serialize()
    assert "t0ken" not in json.dumps(arguments)
    assert arguments["metadata"] == [("x-run", "1")]


def test_what_jobs_need_travels_with_the_trigger():
    ti = task_instance(dag_id="nightly", run_id="manual__1", try_number=2, max_tries=3)
    ti.task.retries = 3
    task = operator(
        [{"argv": ("cat", "-")}, {"cmd": "cat", "input": b"\xff", "env": {"B": "2"}, "cwd": "/tmp"}],
        env={"A": "1", "B": "1"},
        cwd="/",
        parallel=2,
        durable=True,
        on_kill="leave",
        skip_on_exit_code=99,
        max_output_bytes=1000,
        max_log_bytes=1000,
        log_drain=0,
    )
    _, arguments = deferral(task.execute, context(ti)).trigger.serialize()
    assert json.loads(json.dumps(arguments)) == arguments
    assert arguments["commands"] == [
        {"argv": ["cat", "-"], "env": {"A": "1", "B": "1"}, "cwd": "/"},
        {"cmd": "cat", "input": {"base64": "/w=="}, "env": {"A": "1", "B": "2"}, "cwd": "/tmp"},
    ]
    assert arguments["origin"] == Origin.of(ti, context(ti)).arguments()
    assert time.time() - arguments["deferred_at"] < 60
    options = {"parallel": 2, "durable": True, "on_kill": "leave", "skip_on_exit_code": [99]}
    options |= {"max_log_bytes": 1000, "log_drain": 0.0}
    assert options.items() <= arguments.items()
    assert arguments["max_output_bytes"] == 1000


def test_templates_of_what_jobs_need():
    task = operator(
        [{"argv": ["echo", "{{ ds }}"], "input": "{{ ds }}", "env": {"D": "{{ ds }}"}}],
        env={"E": "{{ ds }}"},
        cwd="/{{ ds }}",
    )
    _, arguments = deferral(render(task, ds="2030-01-02").execute, {}).trigger.serialize()
    day = "2030-01-02"
    assert arguments["commands"] == [
        {"argv": ["echo", day], "input": day, "env": {"D": day, "E": day}, "cwd": f"/{day}"}
    ]


def test_on_kill_stays_airflows_method():
    task = operator(on_kill="leave")
    assert callable(task.on_kill)


# ---- after the trigger's event


def result(tid: int, **changes: Any) -> dict[str, Any]:
    return {"tid": tid, "rc": 0, "out": f"{tid}\n", "err": "", "hsh": "", "cmd": f"echo {tid}", **changes}


def test_results_are_sorted_as_numbers_after_json():
    event = {"state": "SUCCESS", "results": {tid: result(tid) for tid in range(12, 0, -1)}, "error_msg": None}
    event = json.loads(json.dumps(event, sort_keys=True))
    xcom = operator().execute_complete({}, event)
    assert list(xcom) == ["state", "results", "error_msg"]
    assert (xcom["state"], xcom["error_msg"]) == ("SUCCESS", None)
    assert xcom["results"] == [result(tid) for tid in range(1, 13)]


def test_result_handler():
    seen = []

    def handler(results):
        seen.append(results)
        return {"lines": [results[tid]["out"] for tid in sorted(results)]}

    event = json.loads(
        json.dumps({"state": "SUCCESS", "results": {10: result(10), 2: result(2)}, "error_msg": None})
    )
    xcom = operator(result_handler=handler).execute_complete({}, event)
    assert seen == [{10: result(10), 2: result(2)}]
    assert xcom == {"state": "SUCCESS", "results": {"lines": ["2\n", "10\n"]}, "error_msg": None}


def test_a_failed_run_fails_the_task_with_its_reason():
    event = {"state": "FAILED", "results": {}, "error_msg": "command 2 (commands[1]) ended with rc 3"}
    with pytest.raises(
        AirflowException, match=r"FAILED: command 2 \(commands\[1\]\) ended with rc 3"
    ) as caught:
        operator(retries=3).execute_complete({}, event)
    assert not isinstance(caught.value, AirflowFailException)  # retries apply


def test_a_retry_that_airflow_resumes_with_the_event_of_the_try_before_starts_over():
    """As Airflow 3.1.0 does."""
    ti = task_instance(try_number=2)
    event = {"state": "FAILED", "results": {}, "error_msg": "command 1 (commands[0]) ended with rc 3"}
    deferred = deferral(operator().execute_complete, context(ti), event, try_number=1)
    assert deferred.kwargs == {"try_number": 2}
    with pytest.raises(AirflowException, match="rc 3"):
        operator().execute_complete(context(ti), event, **deferred.kwargs)


def test_an_exit_code_to_skip_on_skips():
    event = {"state": "SUCCESS", "results": {1: result(1), 2: result(2, rc=99)}, "error_msg": None}
    with pytest.raises(AirflowSkipException, match="command 2 with 99"):
        operator(skip_on_exit_code=99).execute_complete({}, json.loads(json.dumps(event)))


def test_an_exceeded_stream_timeout_fails_without_retry():
    event = {"state": "CANCELLED", "results": {}, "error_msg": "stream_timeout of 60 s exceeded"}
    with pytest.raises(AirflowFailException, match="CANCELLED: stream_timeout of 60 s exceeded"):
        operator(retries=3).execute_complete({}, event)


def test_an_event_of_1_0_0():
    with pytest.raises(AirflowException, match="FAILED: it broke"):
        operator().execute_complete({}, {"state": "FAILED", "results": {}, "error": "it broke"})
    assert operator().execute_complete({}, {"state": "SUCCESS", "results": {"1": result(1)}}) == {
        "state": "SUCCESS",
        "results": [result(1)],
        "error_msg": None,
    }


@pytest.mark.parametrize("event", [None, {}, {"results": {}}, "SUCCESS", {"state": "OTHER"}])
def test_an_event_of_something_else_fails_the_task(event):
    with pytest.raises(AirflowException):
        operator().execute_complete({}, event)


# ---- without a triggerer


def execute_here(*arguments: Any, t: str = "", **options: Any) -> dict[str, Any]:
    task = render(operator(*arguments, deferrable=False, **options), t=t)
    return in_a_thread(task.execute, {})


def test_not_deferrable_gives_the_same_result(serve, connect):
    connect(f"remsvc://{serve().target}")
    xcom = execute_here([{"cmd": "echo 1"}, {"cmd": "echo 2"}])
    assert xcom == {
        "state": "SUCCESS",
        "results": [result(1, hsh=crc32hex("echo 1")), result(2, hsh=crc32hex("echo 2"))],
        "error_msg": None,
    }


def test_not_deferrable_fails_the_same_way(serve, connect):
    connect(f"remsvc://{serve().target}")
    with pytest.raises(AirflowException, match=r"FAILED: command 1 \(commands\[0\]\) ended with rc 9: no"):
        execute_here([{"cmd": "echo no >&2; exit 9"}])
    with pytest.raises(AirflowFailException, match=r"stream_timeout of 0\.5 s exceeded"):
        execute_here([{"cmd": "sleep 20"}], stream_timeout=0.5)


def test_not_deferrable_sends_the_metadata(scripted, connect):
    server = scripted(lambda requests, _: (answer(request) for request in requests))
    metadata = [("authorization", "Bearer {{ t }}"), ("X-Run", "7")]
    connect(f"remsvc://{server.target}")
    execute_here(metadata=metadata, t="from-the-dag")
    connect(f"remsvc://{server.target}?bearer_token=of-the-connection")
    execute_here(metadata=metadata, t="from-the-dag")
    assert [call["authorization"] for call in server.metadata] == [
        "Bearer from-the-dag",
        "Bearer of-the-connection",
    ]
    assert [call["x-run"] for call in server.metadata] == ["7", "7"]


def test_without_a_key_a_token_is_not_stored(scripted, connect, monkeypatch):
    server = scripted(lambda requests, _: (answer(request) for request in requests))
    connect(f"remsvc://{server.target}")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "")
    output = run_python(
        "-c",
        """
from remsvc_provider.operators.remsvc import RemSvcOperator
task = RemSvcOperator(task_id="run", grpc_conn_id="remsvc_test", commands=[{"cmd": "true"}],
    metadata=[("authorization", "Bearer from-the-dag")])
print("XCOM", task.execute({})["state"])
""",
    )
    assert "XCOM SUCCESS" in output
    assert "the commands run in this worker" in output
    assert server.metadata[0]["authorization"] == "Bearer from-the-dag"


def test_on_kill_ends_the_command(serve, connect, tmp_path: Path):
    connect(f"remsvc://{serve().target}")
    pid_file = tmp_path / "pid"
    cmd = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 300"
    # As Airflow's task runner does it: on_kill() is called in the handler of SIGTERM.
    program = """
import signal, sys
from remsvc_provider.operators.remsvc import RemSvcOperator
commands = [{"cmd": sys.argv[1]}]
task = RemSvcOperator(task_id="run", grpc_conn_id="remsvc_test", commands=commands, deferrable=False)
signal.signal(signal.SIGTERM, lambda *_: task.on_kill())
task.execute({})
"""
    worker = subprocess.Popen([sys.executable, "-c", program, cmd], stderr=subprocess.PIPE, text=True)
    try:
        wait_for(pid_file.exists)
        worker.terminate()
        _, errors = worker.communicate(timeout=30)
    finally:
        worker.kill()
        worker.wait()
    assert "the task was killed: its commands were cancelled" in errors
    pid = int(pid_file.read_text())
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_on_kill_of_a_deferred_task_does_nothing():
    task = operator()
    deferral(task.execute, {})
    task.on_kill()


def wait_for(condition: Any, deadline: float = 30) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.02)
