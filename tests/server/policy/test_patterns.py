"""What an attacker tries against patterns on a command's text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.server.policy.decision import CommandRequest
from remsvc.server.policy.patterns import AllowPatterns, DenyPatterns, PatternError, Rule


def denies(pattern: str, request: CommandRequest) -> bool:
    return DenyPatterns([Rule("1", pattern)]).matching(request) is not None


def allows(pattern: str, request: CommandRequest) -> bool:
    return AllowPatterns([Rule("1", pattern)]).matching(request) is not None


def sh(text: str) -> CommandRequest:
    return CommandRequest("sh", text)


def pwsh(text: str) -> CommandRequest:
    return CommandRequest("pwsh", text)


def argv(*words: str) -> CommandRequest:
    return CommandRequest("none", argv=words)


@pytest.mark.parametrize(
    "text",
    [
        "rm -rf /",
        "true\nrm -rf /",
        "rm\t-rf\n/",
        "rm \\\n-rf /",
        "rm -r\\\nf /",
        "rm\u00a0-rf\u2003/",
        "rm\u3000-rf /",
        "rm\x0b-rf /",
        "rm\u200b -rf /",
        "rm \u2013rf /",
        "r\u00adm -rf /",
    ],
)
def test_a_deny_pattern_is_not_fooled_by_what_looks_alike(text: str) -> None:
    assert denies(r"rm\s+-rf\s+/", sh(text))


@pytest.mark.parametrize(
    "text",
    ["Remove-Item -Recurse C:\\", "REMOVE-ITEM\u00a0\u2013recurse C:\\", "Remove-`\r\nItem -Recurse C:\\"],
)
def test_nor_by_what_powershell_reads_alike(text: str) -> None:
    assert denies(r"Remove-Item\s+-Recurse", pwsh(text))


def test_case_counts_where_it_counts_for_the_shell() -> None:
    assert not denies("forbidden", sh("echo FORBIDDEN"))
    assert denies("(?i)forbidden", sh("echo FORBIDDEN"))
    assert denies("^[^a-z]+$", pwsh("ECHO"))  # in any case, [^a-z] would be less


@pytest.mark.parametrize("pattern", ["^rm ", "rm .* /$", "rm.*-rf"])
def test_a_deny_pattern_sees_every_line(pattern: str) -> None:
    assert denies(pattern, sh("true\nrm \\\n -rf /\ntrue"))


@pytest.mark.parametrize(
    "text",
    [
        "ls a\nid",
        "ls a\n",
        "\nls a",
        "ls\u00a0a",
        "LS a",
        "ls a\r",
        "ls a\u2028id",
        "ls  a",
        "ls a;id",
        "ls a\x0bid",
        "ls \uff41",
    ],
)
def test_an_allow_pattern_permits_no_more_than_it_says(text: str) -> None:
    assert allows("^ls [a-z]+$", sh("ls a"))
    assert not allows("^ls [a-z]+$", sh(text))


def test_an_argument_with_blanks_cannot_pass_for_two() -> None:
    assert allows("^/bin/ls -l /srv$", argv("/bin/ls", "-l", "/srv"))
    assert not allows("^/bin/ls -l /srv$", argv("/bin/ls", "-l /srv"))
    assert not allows("^/bin/ls -l /srv$", argv("/bin/ls -l", "/srv"))
    assert allows("^/bin/ls '-l /srv'$", argv("/bin/ls", "-l /srv"))
    assert not allows("^/bin/ls a$", argv("/bin/ls", "a", ""))


@pytest.mark.parametrize(
    "words", [("rm", "-rf", "/"), ("rm", "-rf /"), ("sh", "-c", "rm -rf /"), ("sh", "-c", "true\nrm  -rf /")]
)
def test_a_deny_pattern_sees_arguments_quoted_and_not(words: tuple[str, ...]) -> None:
    assert denies(r"rm\s+-rf\s+/", argv(*words))
    assert denies("it's", argv("echo", "it's"))


@given(st.text("a|b)(?:^$.[]x\n", min_size=1, max_size=8), st.text("abx \n", min_size=1, max_size=8))
def test_a_deny_pattern_never_matches_less_than_it_says(pattern: str, text: str) -> None:
    """Whatever an allow pattern matches, which is exactly what it says, a deny pattern matches too."""
    try:
        exact = allows(pattern, sh(text))
    except PatternError:
        with pytest.raises(PatternError):
            DenyPatterns([Rule("1", pattern)])
        return
    if exact:
        assert denies(pattern, sh(text))
        assert denies(pattern, pwsh(text))
