"""No secret is in a log or a result, whatever a command prints and wherever it is cut."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remsvc.client.jobs import OutputChunk, OutputSize
from remsvc_provider.log.job_output import LoggedOutput, ResultOutput, pieces
from remsvc_provider.log.terminal_text import without_groups
from remsvc_provider.masking import Masking

# What surrounds secrets has none of their characters: else half a secret and what follows might be another.
FILLER = st.one_of(
    st.sampled_from(
        ["y", "\ny", "y\ny", "y\r\ny", "y\ry", " ", "::group::", "ü", "\U0001f600", "\x01", "\x9b", "*"]
    ),
    st.sampled_from(
        ["\x1b[31m", "\x1b]0;t\x07", "\x1b[", "\x1b", "\x9d", "y\x1b[" + "0" * 300, "\x1b[m" * 1500]
    ),
    st.integers(3_500, 4_400).map(lambda size: "y" * size),
)
SECRETS = st.text("abcdeß€", min_size=5, max_size=40)


@st.composite
def outputs(draw: st.DrawFn) -> tuple[list[str], bytes]:
    """Secrets, and what a command prints of them."""
    secrets = draw(st.lists(SECRETS, min_size=1, max_size=3))

    def coloured(secret: str) -> str:
        return "\x1b[1m".join((secret[:2], secret[2:4], secret[4:])) + "\x1b[m"

    def linked(secret: str) -> str:
        return f"{secret[:3]}\x1b]8;;{'z' * 900}\x07{secret[3:]}\x1b]8;;\x07"

    secret = st.sampled_from(secrets)
    parts = st.one_of(secret, secret.map(coloured), secret.map(linked), FILLER)
    return secrets, "".join(draw(st.lists(parts, max_size=12))).encode()


def chunks(whole: bytes, sizes: list[int]) -> list[OutputChunk]:
    found, offset = [], 0
    while offset < len(whole):
        size = sizes[len(found) % len(sizes)]
        found.append(OutputChunk("stdout", offset, whole[offset : offset + size]))
        offset += size
    return found


def size_of(whole: bytes) -> OutputSize:
    return OutputSize(total=len(whole))


SIZES = st.lists(st.integers(1, 9_000) | st.integers(1, 40), min_size=1, max_size=5)


@settings(max_examples=400, deadline=None)
@given(output=outputs(), sizes=SIZES, limit=st.just(1 << 30) | st.integers(0, 9_000))
def test_no_secret_is_in_the_log(output: tuple[list[str], bytes], sizes: list[int], limit: int) -> None:
    secrets, whole = output
    if min(sizes) < 100:
        whole = whole[-6_000:]  # as many chunks as take a moment
    lines: list[str] = []
    logged = LoggedOutput(lines.extend, "", "job1", limit, Masking(secrets))
    for chunk in chunks(whole, sizes):
        for piece in pieces(chunk):
            logged.feed(piece)
    logged.finish(size_of(whole))
    shown = "".join(lines)
    assert not [secret for secret in secrets if secret in shown]


@settings(max_examples=200, deadline=None)
@given(output=outputs(), sizes=SIZES, limit=st.integers(0, 9_000))
def test_no_secret_is_in_a_result(output: tuple[list[str], bytes], sizes: list[int], limit: int) -> None:
    secrets, whole = output
    result = ResultOutput(limit, Masking(secrets))
    for chunk in chunks(whole, sizes):
        for piece in pieces(chunk):
            result.feed(piece)
    shown = result.text(size_of(whole), "job1")
    assert not [secret for secret in secrets if secret in shown]


@settings(max_examples=300, deadline=None)
@given(
    # No character comes twice: else a secret's rest and what follows might be another one.
    secret=st.permutations("abcdeß€").map("".join),
    place=st.text("y\n ", max_size=9),
    rest=st.text("y\n ", max_size=9),
    sizes=SIZES,
    gap=st.tuples(st.integers(0, 30), st.integers(1, 30)).map(sorted),
    limit=st.integers(0, 40),
    more=st.integers(0, 40),
)
def test_no_part_of_a_secret_is_in_a_result_with_a_gap(
    secret: str, place: str, rest: str, sizes: list[int], gap: list[int], limit: int, more: int
) -> None:
    """Nor where the output goes on beyond the result."""
    whole = f"{place}{secret}{rest}".encode()
    begin, end = gap
    result = ResultOutput(limit, Masking([secret]))
    for chunk in chunks(whole[:begin], sizes):
        result.feed(chunk)
    for chunk in chunks(whole[end:], sizes):
        dropped = end - begin if chunk.offset == 0 else 0
        result.feed(replace(chunk, offset=chunk.offset + end, dropped=dropped))
    shown = result.text(OutputSize(total=len(whole) + more), "job1")
    assert secret[:4] not in shown
    assert secret[-4:] not in shown


@pytest.mark.parametrize("place", [7_960, 7_980, 7_999])
@pytest.mark.parametrize("colour", ["", "\x1b[1m"])
def test_a_secret_of_which_only_the_first_part_has_come(place: int, colour: str) -> None:
    """And it is a long line, of which the beginning is shown already."""
    secret = "sk-A1b2C3d4E5A1b2C3d4E5A1b2C3d4E5"
    whole = ("x" * place + secret[:9] + colour + secret[9:] + "y" * 9_000).encode()
    lines: list[str] = []
    logged = LoggedOutput(lines.extend, "", "job1", 1 << 30, Masking([secret]))
    logged.feed(OutputChunk("stdout", 0, whole[:8_003]))
    assert lines
    logged.feed(OutputChunk("stdout", 8_003, whole[8_003:]))
    logged.finish(size_of(whole))
    assert "".join(lines) == "x" * place + "***" + "y" * 9_000


def logged_text(secret: str, whole: str, step: int) -> list[str]:
    """The lines of an output that comes in chunks of so many bytes."""
    data, lines = whole.encode(), list[str]()
    logged = LoggedOutput(lines.extend, "", "job1", 1 << 30, Masking([secret]))
    for chunk in chunks(data, [step]):
        for piece in pieces(chunk):
            logged.feed(piece)
    logged.finish(size_of(data))
    return lines


@pytest.mark.parametrize("size", [257, 600, 1_000, 2_000])
@pytest.mark.parametrize(("begin", "end"), [("\x1b]0;", "\x07"), ("\x1b[", "m"), ("\x9d", "\x9c")], ids=repr)
@pytest.mark.parametrize("rest", [0, 5_000])
def test_a_secret_with_a_long_sequence_in_it(size: int, begin: str, end: str, rest: int) -> None:
    """Such as a link, with its address. It is on a long line, of which the beginning may be shown already."""
    secret = "sk-A1b2C3d4E5"
    sequence = f"{begin}{'0' * (size - len(begin + end))}{end}"
    for place in range(3_700, 5_000, 97):
        for cut in (1, 5, 12):
            whole = f"{'x' * place}{secret[:cut]}{sequence}{secret[cut:]}{'y' * rest}"
            for step in (len(whole), 1_000, 37):
                assert "".join(logged_text(secret, whole, step)) == f"{'x' * place}***{'y' * rest}"


def test_a_secret_with_a_carriage_return() -> None:
    """What was written over is not shown; the rest of such a secret is one of its own."""
    secret = "hunter-one\rhunter-two"
    whole = f"a {secret} b\n{secret}\r\nc\r{secret}\r\rd {secret}"
    for step in range(1, len(whole) + 1):
        first, *others = logged_text(secret, whole, step)
        assert first in ("a *** b", "*** b")  # as the line came as a whole, or the secret in parts
        assert others == ["***", "***"]


def test_a_chunk_that_ends_with_a_carriage_return() -> None:
    """It may be the first half of a line's end, or be what a progress bar goes back by."""
    whole = "10%\r20%\r\nend\r\r\n\r\n50%\r100%\r"
    assert logged_text("hunter-two", whole[:4], 4) == ["10%"]
    for step in range(1, len(whole) + 1):
        assert logged_text("hunter-two", whole, step) == ["20%", "end", "", "100%"]


@pytest.mark.parametrize("gap", ["log", "server", "result", "longer than the result"])
def test_a_secret_that_is_cut_within_a_character(gap: str) -> None:
    secret = "abcd€fghi"
    for cut in range(5, 9):
        begin, end = secret.encode()[:cut], secret.encode()[cut:]
        masking, lines = Masking([secret]), [""]
        if gap in ("result", "longer than the result"):
            kept = 15 + len(end)
            result = ResultOutput(kept, masking)
            result.feed(OutputChunk("stdout", 0, begin))
            result.feed(OutputChunk("stdout", 15, end, dropped=15 - cut))
            shown = result.text(OutputSize(total=kept if gap == "result" else kept + 100), "job1")
        else:
            logged = LoggedOutput(lines.extend, "", "job1", cut if gap == "log" else 1_000, masking)
            logged.feed(OutputChunk("stdout", 0, begin))
            dropped = 0 if gap == "log" else 5
            logged.feed(OutputChunk("stdout", cut + dropped, end, dropped=dropped))
            logged.finish(OutputSize(total=cut + dropped + len(end)))
            shown = "\n".join(lines)
        assert "abcd" not in shown
        assert "fghi" not in shown


@pytest.mark.parametrize(
    "unit",
    [
        "\x90",
        "\x9d",
        "\x90x",
        "\x1b]x",
        "\x1b[0",
        "\x1b",
        "\x01",
        "\x01a",
        "\r",
        "\r\n",
        "\n",
        ":",
        "::",
        "a",
    ],
)
def test_no_content_takes_long(unit: str) -> None:
    """A time in proportion to the size: of this one, minutes where it is in proportion to its square."""
    whole = (unit * 400_000)[:400_000].encode()
    logged = LoggedOutput(list, "", "job1", 1 << 30, Masking(["a" * 30 + "b", "hunter-two"]))
    begun = time.thread_time()
    logged.feed(OutputChunk("stdout", 0, whole))
    logged.finish(size_of(whole))
    assert time.thread_time() - begun < 10


@given(st.lists(st.sampled_from([":", "::", "group", "end", "x"]), max_size=20).map("".join))
def test_no_mark_of_a_group_is_left(text: str) -> None:
    left = without_groups(text)
    assert "::group::" not in left
    assert "::endgroup::" not in left
    assert left.replace("\\x3a", ":") == text
