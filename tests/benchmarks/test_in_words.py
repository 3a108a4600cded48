"""The README's table: figures of the rows that answer a user's questions."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.in_words import QUESTIONS, in_words
from benchmarks.rows import Row

ROOT = Path(__file__).resolve().parents[2]


def test_a_question_is_answered_by_the_medians_of_its_rows() -> None:
    rows = [
        Row("ssh", "our asyncio client, warm connection", "/s", (690.0, 684.0, 600.0)),
        Row("ssh", "asyncssh, warm connection", "/s", (431.6,)),
    ]
    *_, last = in_words(rows).splitlines()
    assert last == (
        "| The same from a Python program with asyncio? | **684 a second** | asyncssh: 432 a second |"
    )


def test_what_was_not_measured_says_so() -> None:
    assert in_words([]).count("not measured") == sum(1 + len(question.others) for question in QUESTIONS)


def test_all_rows_that_are_asked_for_are_in_the_published_table() -> None:
    published = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^\| \w* ?\| (.+?) \| [\d.,]+", published, re.MULTILINE))
    asked = {name for question in QUESTIONS for name in (question.ours, *question.others.values())}
    assert asked - names == set()
