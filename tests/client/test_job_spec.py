"""What may be asked for, before anything is sent."""

from __future__ import annotations

import re
from typing import Any

import pytest

from remsvc.client import JobSpec, JobState
from remsvc.client.jobs import check_request_id
from remsvc.errors import InvalidCommandError

GOOD: list[dict[str, Any]] = [
    {"shell_command": "echo grün\n\t$HOME"},
    {"argv": ("prog", "", "a b", "\n")},
    {"shell_command": "x", "shell_type": "powershell"},
    {"shell_command": "x", "working_directory": "/"},
    {"shell_command": "x", "working_directory": "C:\\Temp"},
    {"shell_command": "x", "environment": {"A": "", "b.c-d": "=x"}},
    {"shell_command": "x", "standard_input": b"\0" * 1024 * 1024},
    {"shell_command": "x", "time_limit": 1e-3, "kill_grace": 0, "lease": 5},
    {"shell_command": "x", "output_limit": 2**63 - 1},
    {"shell_command": "x", "labels": {f"{number}" + "k" * 60: "v" * 255 for number in range(32)}},
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "exactly one of shell_command and argv"),
    ({"shell_command": "x", "argv": ("x",)}, "exactly one of shell_command and argv"),
    ({"shell_command": " \n"}, "shell_command must not be blank"),
    ({"shell_command": "a\0b"}, "shell_command must not contain a NUL"),
    ({"shell_command": "\udc80"}, "shell_command is not valid Unicode text"),
    ({"shell_command": 5}, "shell_command must be a string, not int"),
    ({"shell_command": "x", "shell_type": "fish"}, "shell_type must be native or powershell, not 'fish'"),
    ({"argv": ()}, "argv must begin with the name of a program"),
    ({"argv": ("", "x")}, "argv must begin with the name of a program"),
    ({"argv": "ls"}, "argv must be a tuple of strings, not str"),
    ({"argv": ("ls", 5)}, "argv[1] must be a string, not int"),
    ({"argv": ("ls", "a\0")}, "argv[1] must not contain a NUL"),
    ({"argv": ("ls",), "shell_type": "powershell"}, "argv is run without a shell"),
    ({"shell_command": "x", "user": None}, "user must be a string, not NoneType"),
    ({"shell_command": "x", "source": "\0"}, "source must not contain a NUL"),
    ({"shell_command": "x", "working_directory": "srv"}, "must be an absolute path, not 'srv'"),
    ({"shell_command": "x", "working_directory": "~/x"}, "must be an absolute path, not '~/x'"),
    ({"shell_command": "x", "environment": [("A", "b")]}, "environment must be a mapping, not list"),
    ({"shell_command": "x", "environment": {"": "b"}}, "'' is not the name of a variable"),
    ({"shell_command": "x", "environment": {"A=": "b"}}, "'A=' is not the name of a variable"),
    ({"shell_command": "x", "environment": {"A": 1}}, "environment variable A must be a string, not int"),
    ({"shell_command": "x", "standard_input": "text"}, "standard_input must be bytes, not str"),
    (
        {"shell_command": "x", "standard_input": bytes(2**20 + 1)},
        "standard_input: expected at most 1048576 bytes, not 1048577",
    ),
    ({"shell_command": "x", "time_limit": 0}, "time_limit must be a number of seconds above 0, not 0"),
    ({"shell_command": "x", "time_limit": float("nan")}, "time_limit must be a number of seconds above 0"),
    ({"shell_command": "x", "time_limit": True}, "time_limit must be a number of seconds, not bool"),
    ({"shell_command": "x", "time_limit": "5"}, "time_limit must be a number of seconds, not str"),
    ({"shell_command": "x", "kill_grace": -1}, "kill_grace must be a number of seconds from 0, not -1"),
    ({"shell_command": "x", "lease": float("inf")}, "lease must be a number of seconds above 0, not inf"),
    ({"shell_command": "x", "output_limit": -1}, "output_limit must be a number of bytes"),
    ({"shell_command": "x", "output_limit": 1.5}, "output_limit must be a number of bytes"),
    ({"shell_command": "x", "labels": {"": "v"}}, "labels: '': expected a key of 1 to 63 characters, not 0"),
    ({"shell_command": "x", "labels": {"k" * 64: "v"}}, "expected a key of 1 to 63 characters, not 64"),
    (
        {"shell_command": "x", "labels": {"k": "v" * 256}},
        "labels: 'k': expected a value of at most 255 characters, not 256",
    ),
    (
        {"shell_command": "x", "labels": {str(n): "" for n in range(33)}},
        "labels: expected at most 32 entries, not 33",
    ),
]


@pytest.mark.parametrize("fields", GOOD)
def test_what_can_be_asked_for(fields: dict[str, Any]) -> None:
    JobSpec(**fields).validate()


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_what_cannot_be_asked_for(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCommandError, match=re.escape(message)) as caught:
        JobSpec(**fields).validate()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("request_id", ["a", "A b/c:1~!", "x" * 128])
def test_request_ids(request_id: str) -> None:
    check_request_id(request_id)


@pytest.mark.parametrize("request_id", ["", "x" * 129, "grün", "a\n", "\x7f", None, 7])
def test_what_is_no_request_id(request_id: Any) -> None:
    with pytest.raises(InvalidCommandError, match="1 to 128 printable ASCII characters"):
        check_request_id(request_id)


def test_states_are_their_names() -> None:
    assert f"{JobState.TIMED_OUT}" == str(JobState.TIMED_OUT) == "TIMED_OUT"
    assert {state for state in JobState if not state.ended} == {JobState.QUEUED, JobState.RUNNING}
