"""Output as a person sees it in a task's log: nothing of what was for a terminal."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_job_log import LogReader, log  # noqa: F401  a fixture
from triggering import fire, trigger, until

from remsvc_proto.remsvc.jobs.v1 import jobs_pb2
from remsvc_provider.log.terminal_text import clean
from remsvc_provider.log.texts import tail


@pytest.mark.parametrize(
    ("sequence", "what"),
    [
        ("\x1b[31m", "a colour"),
        ("\x1b[38;2;1;2;3m", "a true colour"),
        ("\x1b[?25l", "hide the cursor"),
        ("\x1b[2K", "erase the line"),
        ("\x1b[ q", "the cursor's shape"),
        ("\x1b(B", "a character set, as tput sgr0 sends"),
        ("\x1b)0", "line drawing"),
        ("\x1b%G", "UTF-8"),
        ("\x1b#8", "a test picture"),
        ("\x1b7", "save the cursor"),
        ("\x1b8", "restore the cursor"),
        ("\x1bM", "one line up"),
        ("\x1b=", "the keypad"),
        ("\x1bc", "reset"),
        ("\x1b]0;title\x07", "a window title"),
        ("\x1b]8;;https://example.com\x1b\\", "a link"),
        ("\x1bP1$r0m\x1b\\", "a device control string"),
        ("\x1bPq#0;2;0;0;0\x1b\\", "a picture in sixels"),
        ("\x1b_Ga=T\x1b\\", "an application program command"),
        ("\x1b^private\x1b\\", "a privacy message"),
        ("\x9b31m", "a colour in 8 bits"),
        ("\x9d0;title\x9c", "a title in 8 bits"),
    ],
)
def test_what_is_for_a_terminal_is_removed(sequence, what):
    assert clean(f"before {sequence}after") == "before after", what


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10%\r20%\r100%\n", "100%\n"),
        ("10%\r20%\r", "20%"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("a\r\r\nb", "a\nb"),
        ("\x1b[2K\r10%\x1b[2K\r100%\ndone", "100%\ndone"),
        ("\rone", "one"),
        ("tab\tand bell\x07", "tab\tand bell\\x07"),
        ("\x1b]0;without an end", "0;without an end"),
        ("\x1b", "\\x1b"),
        ("\x1b[31", ""),
        ("\u2028\x85", "\\u2028\\x85"),
    ],
)
def test_the_rest(text, shown):
    assert clean(text) == shown


@given(st.text("\x1b[]();01mABPXq\\\x07\r\n\x9b\x9c ", max_size=60))
def test_nothing_is_left_that_acts_on_a_terminal(text):
    assert not set(clean(text)) & {"\x1b", "\x07", "\r", "\x9b", "\x9c", "\x90"}


@given(st.text("abc\n", max_size=60))
def test_text_stays_as_it_is(text):
    assert clean(text) == text


@given(before=st.text("ab\n", max_size=80), size=st.integers(1, 60))
def test_the_end_of_an_output_begins_in_no_sequence(before, size):
    shown = tail(before + "\x1b[1;31m" + "x" * 5, characters=size)
    assert "31m" not in "".join(shown)
    assert "".join(shown[-1:]).endswith("x" * min(5, size))


async def test_a_colour_is_not_cut_where_a_line_is_broken(conn_id, log: LogReader):  # noqa: F811
    command = (
        r"for n in 3996 3997 3998 3999; do head -c $n /dev/zero | tr '\0' x; printf '\033[1;31m';"
        r" head -c 9000 /dev/zero | tr '\0' y; echo; done"
    )
    await fire(trigger(conn_id, command))
    shown = "".join(log.lines("1 out"))
    assert shown == "".join("x" * n + "y" * 9000 for n in (3996, 3997, 3998, 3999))


async def test_a_progress_bar_is_one_line_however_it_arrives(scripted_jobs, connect, log: LogReader):  # noqa: F811
    running = asyncio.create_task(fire(trigger(connect(f"remsvc://{scripted_jobs.target}"), "a")))
    await until(lambda: scripted_jobs.jobs)
    job = scripted_jobs.jobs["job1"]
    job.chunk = 3
    bar = b"".join(b"\r%3d%% \x1b[32m|" % n for n in range(101))
    scripted_jobs.write(job, b"begin\r\n" + bar + b"\r\nend\r\nlast\r")
    scripted_jobs.change(job, jobs_pb2.SUCCEEDED, exit_code=0)
    await running
    assert log.lines("1 out") == ["begin", "100% |", "end", "last"]
