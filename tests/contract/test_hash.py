"""``hsh``: the command's integrity check."""

from __future__ import annotations

import grpc
import pytest

from .client import Client, command, crc32, refused
from .commands import COMMANDS

MISMATCH = "hash mismatch: command integrity check failed"


def test_the_hash_is_crc_32_in_8_lowercase_hex_digits(client: Client) -> None:
    """hsh: CRC-32 of the command's UTF-8 bytes as 8 lowercase hex digits: known values."""
    assert crc32("123456789") == "cbf43926"
    assert client.run("echo hello", hsh="38c4c98c").hsh == "38c4c98c"


def test_a_hash_may_begin_with_zeros(client: Client) -> None:
    """as 8 lowercase hex digits: leading zeros count."""
    text = next(text for n in range(1000) if crc32(text := COMMANDS.echo(str(n))).startswith("0"))
    assert client.run(text, hsh=crc32(text)).rc == 0
    with refused(grpc.StatusCode.INVALID_ARGUMENT, MISMATCH):
        client.run(text, hsh=crc32(text).lstrip("0"))


@pytest.mark.parametrize("text", ["echo ünïcödé", "echo 😀", " echo 1 ", "echo 1\n"])
def test_the_hash_is_of_the_texts_utf_8_bytes(client: Client, text: str) -> None:
    """CRC-32 of the command's UTF-8 bytes: nothing is stripped or changed before."""
    assert client.run(text, hsh=crc32(text)).hsh == crc32(text)


@pytest.mark.parametrize(
    "hsh",
    [
        "00000000",
        "38C4C98C",
        "38c4c98",
        "38c4c98c0",
        " 38c4c98c",
        "0x38c4c98c",
        "zzzzzzzz",
        "é",
        "x" * 100_000,
    ],
)
def test_a_mismatch_is_an_invalid_argument(client: Client, hsh: str) -> None:
    """mismatch is INVALID_ARGUMENT, hash mismatch: command integrity check failed"""
    with refused(grpc.StatusCode.INVALID_ARGUMENT, MISMATCH):
        client.run("echo hello", hsh=hsh)


def test_an_empty_hash_is_not_checked(client: Client) -> None:
    """Checked only when not empty; empty in, empty out."""
    result = client.run(COMMANDS.echo("x"), hsh="")
    assert (result.rc, result.hsh) == (0, "")


def test_the_hash_received_comes_back(client: Client) -> None:
    """The response's hsh is the one received; empty in, empty out."""
    first, second = COMMANDS.echo("1"), COMMANDS.exit(2)
    call = client.stream(
        [command(first, hsh=crc32(first)), command(first), command(second, hsh=crc32(second))]
    )
    assert [answer.hsh for answer in call] == [crc32(first), "", crc32(second)]


def test_a_mismatch_ends_the_stream(client: Client) -> None:
    """In a stream a refused command or a mismatch ends the stream with that status"""
    good = COMMANDS.echo("good")
    call = client.stream([command(good, hsh=crc32(good)), command(good, hsh="12345678"), command(good)])
    assert next(call).out.strip() == "good"
    with refused(grpc.StatusCode.INVALID_ARGUMENT, MISMATCH):
        next(call)
