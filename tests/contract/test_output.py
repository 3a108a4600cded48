"""``out`` and ``err``: text, and how it is cut."""

from __future__ import annotations

import pytest

from .client import Client
from .commands import COMMANDS, posix_only

LIMIT = 262_144


def truncated_at(limit: int) -> str:
    return f"\n\x01[remSvc: output truncated at {limit} bytes]\x01\n"


def test_standard_output_and_error_are_kept_apart(client: Client) -> None:
    """out and err"""
    result = client.run(f"{COMMANDS.echo('to-out')}&& {COMMANDS.echo_to_stderr('to-err')}")
    assert (result.out.strip(), result.err.strip()) == ("to-out", "to-err")


def test_output_is_told_whatever_the_exit_code(client: Client) -> None:
    """out/err of a failed command are those of any other."""
    result = client.run(f"{COMMANDS.echo('before')}&& {COMMANDS.exit(3)}")
    assert (result.rc, result.out.strip()) == (3, "before")


@posix_only
def test_no_output_is_empty_text(client: Client) -> None:
    """out/err hold what was printed, and nothing else."""
    result = client.run("true")
    assert (result.rc, result.out, result.err) == (0, "", "")


@posix_only
def test_a_command_that_closes_its_output_is_waited_for(client: Client) -> None:
    """rc is that of the command's end, not of its output's."""
    result = client.run("echo before; exec >&- 2>&-; sleep 0.3; exit 3")
    assert (result.rc, result.out) == (3, "before\n")


@posix_only
@pytest.mark.parametrize("text", ["no line end", "\n\n", "a\tb\r\nc", "ünïcödé 😀\n", "x\x01\x1b[31m\x7f"])
def test_output_is_not_changed(client: Client, text: str) -> None:
    """out/err are UTF-8 text"""
    octal = "".join(f"\\{byte:03o}" for byte in text.encode())
    result = client.run(f"printf '{octal}'; printf '{octal}' >&2")
    assert (result.out, result.err) == (text, text)


@posix_only
def test_a_nul_in_the_output_is_kept(client: Client) -> None:
    """out/err are UTF-8 text: NUL is a character like any other."""
    assert client.run(r"printf 'a\000b'").out == "a\0b"


@posix_only
@pytest.mark.parametrize(
    ("octal", "text"),
    [
        (r"a\377b", "a\ufffdb"),
        (r"\200", "\ufffd"),
        (r"caf\351\n", "caf\ufffd\n"),
        (r"\303\251 \303x", "é \ufffdx"),
    ],
    ids=["invalid", "continuation", "latin-1", "incomplete"],
)
def test_bytes_that_are_not_utf_8_come_back_as_replacement_characters(
    client: Client, octal: str, text: str
) -> None:
    """bytes that are not valid UTF-8 come back as U+FFFD"""
    result = client.run(f"printf '{octal}'; printf '{octal}' >&2; exit 5")
    assert (result.rc, result.out, result.err) == (5, text, text)


@posix_only
@pytest.mark.parametrize(
    "octal",
    [r"\355\240\200", r"\300\200", r"\364\220\200\200", r"\342\202"],
    ids=["surrogate", "overlong", "high", "cut"],
)
def test_malformed_sequences_come_back_as_replacement_characters(client: Client, octal: str) -> None:
    """bytes that are not valid UTF-8 come back as U+FFFD: one or several, nothing else."""
    out = client.run(f"printf '[{octal}]'").out
    assert out.startswith("[")
    assert out.endswith("]")
    assert set(out[1:-1]) == {"\ufffd"}


@posix_only
@pytest.mark.parametrize("redirect", ["", " >&2"], ids=["out", "err"])
def test_output_of_the_limit_is_whole(client: Client, redirect: str) -> None:
    """Each is cut at 262,144 bytes by default: not one byte earlier."""
    result = client.run(f"head -c {LIMIT} /dev/zero | tr '\\0' x{redirect}")
    assert (result.err if redirect else result.out) == "x" * LIMIT


@posix_only
@pytest.mark.parametrize("redirect", ["", " >&2"], ids=["out", "err"])
@pytest.mark.parametrize("excess", [1, 1_000_000])
def test_output_beyond_the_limit_is_cut(client: Client, redirect: str, excess: int) -> None:
    """Each is cut at 262,144 bytes by default, then followed by a line that says so"""
    result = client.run(f"head -c {LIMIT + excess} /dev/zero | tr '\\0' x{redirect}; exit 4")
    text, other = (result.err, result.out) if redirect else (result.out, result.err)
    assert text == "x" * LIMIT + truncated_at(LIMIT)
    assert other == ""
    assert result.rc == 4


def test_lines_beyond_the_limit_are_cut(client: Client) -> None:
    """Each is cut at 262,144 bytes by default, then followed by a line that says so"""
    line = "x" * 99 + COMMANDS.line_end
    result = client.run(COMMANDS.print_lines(4000))
    assert result.out == (line * 4000)[:LIMIT] + truncated_at(LIMIT)
    assert result.rc == 0


@posix_only
def test_out_and_err_are_cut_each_for_itself(client: Client) -> None:
    """Each is cut at 262,144 bytes"""
    result = client.run(
        f"head -c {LIMIT + 1} /dev/zero | tr '\\0' x; head -c {LIMIT} /dev/zero | tr '\\0' y >&2"
    )
    assert result.out == "x" * LIMIT + truncated_at(LIMIT)
    assert result.err == "y" * LIMIT


@posix_only
@pytest.mark.parametrize("character", ["é", "€", "😀"])
@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_character_is_never_cut(client: Client, character: str, before: int) -> None:
    """never inside a character"""
    size = len(character.encode())
    octal = "".join(f"\\\\{byte:03o}" for byte in character.encode())
    fill = LIMIT - size - before
    result = client.run(f"head -c {fill} /dev/zero | tr '\\0' x; printf \"{octal * 3}\"")
    whole = "x" * fill + character * 3
    kept = result.out.removesuffix(truncated_at(LIMIT))
    if len(whole.encode()) <= LIMIT:
        assert result.out == whole
    else:
        assert result.out != kept
        assert whole.startswith(kept)
        assert LIMIT - size < len(kept.encode()) <= LIMIT


@posix_only
def test_replaced_bytes_count_as_what_they_are_replaced_with(client: Client) -> None:
    """Each is cut at 262,144 bytes: of the text, in which U+FFFD takes three."""
    result = client.run("head -c 100000 /dev/zero | tr '\\0' '\\377'")
    assert result.out == "\ufffd" * (LIMIT // 3) + truncated_at(LIMIT)


def test_the_limit_is_configurable(serve, connect) -> None:
    """cut at 262,144 bytes by default (configurable)"""
    client = connect(serve("[server]\nport = 0\nmax_output_bytes = 10\n").target)
    result = client.run("printf 0123456789; printf 01234567é >&2; printf x >&2")
    assert result.out == "0123456789"
    assert result.err == "01234567é" + truncated_at(10)
