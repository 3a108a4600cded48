"""What a task says about its commands, checked whole."""

from __future__ import annotations

import re
from typing import Any

from local_airflow import DagRun
from remsvc.command import crc32hex
from tests.end_to_end.counted_command import CountedCommand

REPEATS = "repeats its output from the beginning"


def result(tid: int, cmd: str, rc: int = 0, out: str = "", err: str = "") -> dict[str, Any]:
    """One entry of the XCom's ``results``."""
    return {"tid": tid, "rc": rc, "out": out, "err": err, "hsh": crc32hex(cmd), "cmd": cmd}


def xcom(*results: dict[str, Any]) -> dict[str, Any]:
    """The XCom of a task whose commands succeeded."""
    return {"state": "SUCCESS", "results": list(results), "error_msg": None}


def logged_lines(log: str, tid: int, stream: str) -> list[str]:
    """What a command printed, line by line, as a task's log shows it."""
    return re.findall(rf"^(?:[a-z]+ )?{tid} {stream} \| (.*)$", log, re.MULTILINE)


def check_logged(dag_run: DagRun, command: CountedCommand, tid: int = 1) -> None:
    """Every line is in the log, in its order; and once, unless the log says that it repeats."""
    log = dag_run.log("remote")
    for stream, printed in (("out", command.out), ("err", command.err)):
        lines = logged_lines(log, tid, stream)
        assert first_occurrences(lines) == printed.splitlines(), log
        if len(lines) != len(set(lines)):
            assert REPEATS in log


def first_occurrences(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(lines))
