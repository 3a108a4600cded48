"""The few rows that somebody would compare who runs commands over SSH today, in words: the README's table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.rows import Row, shown

_HEADER = "| | RemSvc | over SSH |\n| --- | --- | --- |\n"


@dataclass(frozen=True)
class Question:
    """What a user would ask.

    Attributes:
        text: the question.
        group: the group of the rows that answer it.
        ours: the row of ours.
        others: rows of what he may use today, by its name.
        unit: of the answers, for a reader.
    """

    text: str
    group: str
    ours: str
    others: Mapping[str, str]
    unit: str


_LATENCY = "from a printed line to the task's log"
_FLOOD = "a task of 52,000 lines, all of them in its log"
QUESTIONS = (
    Question(
        "How long does a command of 30 seconds keep an Airflow worker's slot?",
        "airflow",
        "30 s commands: RemSvcOperator",
        {
            "SSHOperator": "30 s commands: SSHOperator",
            "SSHRemoteJobOperator": "30 s commands: SSHRemoteJobOperator",
        },
        "s",
    ),
    Question(
        "How long until a line that it prints is in the task's log?",
        "airflow",
        f"{_LATENCY}: RemSvcOperator: p50",
        {
            "SSHOperator": f"{_LATENCY}: SSHOperator: p50",
            "SSHRemoteJobOperator": f"{_LATENCY}: SSHRemoteJobOperator: p50",
        },
        "ms",
    ),
    Question(
        "How long does a task take that prints 52,000 lines at once?",
        "airflow",
        f"{_FLOOD}: RemSvcOperator",
        {"SSHOperator": f"{_FLOOD}: SSHOperator"},
        "s",
    ),
    Question(
        "How long does a command from a shell take, with a connection of its own?",
        "ssh",
        "remsvc run, a connection each: p50",
        {"`ssh`": "ssh, a connection each: p50"},
        "ms",
    ),
    Question(
        "How many commands a second go over an open connection, one after another?",
        "ssh",
        "our client, warm connection",
        {"`ssh` with ControlMaster": "ssh, warm ControlMaster"},
        "a second",
    ),
    Question(
        "The same from a Python program with asyncio?",
        "ssh",
        "our asyncio client, warm connection",
        {"asyncssh": "asyncssh, warm connection"},
        "a second",
    ),
)


def in_words(rows: Iterable[Row]) -> str:
    """The questions and their answers as a Markdown table; what was not measured says so."""
    known = {(row.group, row.name): row for row in rows}

    def answer(group: str, name: str, unit: str) -> str:
        row = known.get((group, name))
        return "not measured" if row is None or row.median is None else f"{shown(row.median)} {unit}"

    lines = [_HEADER]
    for question in QUESTIONS:
        others = ", ".join(
            f"{other}: {answer(question.group, name, question.unit)}"
            for other, name in question.others.items()
        )
        ours = answer(question.group, question.ours, question.unit)
        lines.append(f"| {question.text} | **{ours}** | {others} |\n")
    return "".join(lines)
