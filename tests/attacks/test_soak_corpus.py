"""What ``make soak`` once found, played again, and some new sessions; ``tests/soak`` plays them for hours."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from tests.soak import fuzz_engine
from tests.soak.fuzz_connection import fresh_sessions
from tests.soak.player import play_each
from tests.soak.search import CORPUS
from tests.soak.sessions import Session

_FRESH_CONNECTIONS, _FRESH_ENGINES = 400, 100


def _kept(kind: str) -> list[Path]:
    return sorted(CORPUS.glob(f"{kind}-*"))


@pytest.mark.parametrize("file", _kept("connection"), ids=lambda file: file.name)
def test_a_session_that_was_found_breaks_no_connection(file: Path) -> None:
    play_each([Session.from_text(file.read_text())])


@pytest.mark.parametrize("file", _kept("engine"), ids=lambda file: file.name)
def test_calls_that_were_found_break_no_engine(file: Path) -> None:
    fuzz_engine.replay(file, show=lambda _: None)


def test_new_sessions_break_no_connection() -> None:
    play_each(itertools.islice(fresh_sessions(1), _FRESH_CONNECTIONS))


def test_new_sessions_break_no_engine(tmp_path: Path) -> None:
    with (tmp_path / "calls").open("w+b") as log:
        ends = {fuzz_engine.play_one(log.fileno(), random.Random(number)) for number in range(_FRESH_ENGINES)}
    assert ends == {"undamaged", "damaged", "ended by the target"}


def test_a_session_is_the_same_from_its_text() -> None:
    for session in itertools.islice(fresh_sessions(2), 20):
        assert Session.from_text(session.as_text()) == session
