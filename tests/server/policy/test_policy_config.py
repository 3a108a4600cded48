"""The sections of identities and groups in the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from remsvc.errors import ConfigurationError
from remsvc.server.bounds.rate_limit import Rate
from remsvc.server.config import ServerConfig, check_config, load_config
from remsvc.server.policy.decision import CommandRequest


def load(tmp_path: Path, text: str) -> ServerConfig:
    path = tmp_path / "server.ini"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def warnings(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "server.ini"
    path.write_text(text, encoding="utf-8")
    problems, found = check_config(path)
    assert problems == []
    return found


def warned(tmp_path: Path, text: str, *words: str) -> bool:
    return any(all(word in line for word in words) for line in warnings(tmp_path, text))


WHOLE = """
[group etl]
members = airflow-prod, Airflow Test
rate = 60/m
time_limit_ms = 5000
[IDENTITY   airflow-prod]
USERS = etl, self
shells = none, pwsh
programs = /usr/bin/rsync, /opt/etl/bin/
environment = TZ, LC_*
directories = /srv/etl, /var/spool/etl/
Input = Yes
deny.2 = b
deny.1 = a
Allow.X = c
time_limit_ms = 10000
output_limit_bytes = 5
max_running = 2
max_queued = 0
rate = 10/s
"""


def test_a_whole_section(tmp_path: Path) -> None:
    sections = load(tmp_path, WHOLE).policy.sections
    own = sections.identities["airflow-prod"]
    assert own.name == "[identity airflow-prod]"
    assert (own.users, own.shells) == ({"etl", "self"}, {"none", "pwsh"})
    assert own.programs is not None
    assert [(program.path, program.is_folder) for program in own.programs] == [
        ("/usr/bin/rsync", False),
        ("/opt/etl/bin", True),
    ]
    assert own.environment == ("TZ", "LC_*")
    assert own.directories == ("/srv/etl", "/var/spool/etl/")
    assert own.input is True
    assert [str(rule) for rule in own.deny] == [
        "[identity airflow-prod] deny.1",
        "[identity airflow-prod] deny.2",
    ]
    assert [rule.pattern for rule in own.allow] == ["c"]
    assert sections.members == {"etl": {"airflow-prod", "Airflow Test"}}
    assert [section.name for section in sections.applying("Airflow Test")] == ["[group etl]"]
    assert sections.applying("airflow-PROD") == []


def test_the_lowest_limit_holds(tmp_path: Path) -> None:
    policy = load(tmp_path, WHOLE).policy.compile()
    limits = policy.limits("airflow-prod")
    assert (limits.time_limit, limits.output_limit) == (5.0, 5)
    assert (limits.max_running, limits.max_queued) == (2, 0)
    assert limits.rate == Rate(60, 60.0)
    assert policy.limits("somebody").shown() == {}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("users =", "expected a value"),
        ("programs =", "expected a value"),
        ("allow.1 =", "expected a value"),
        ("users = a,,b", "none of them empty"),
        ("users = a*", "name of a user"),
        ("shells = bash", "expected one of none, sh, pwsh"),
        ("programs = rsync", "absolute path"),
        ("programs = /", "absolute path"),
        ("environment = LC-*", "name of a variable"),
        ("environment = *X", "name of a variable"),
        ("directories = etl", "absolute path"),
        ("directories = /srv/../etl", "absolute path"),
        ("directories = //srv", "absolute path"),
        ("directories = /srv//", "absolute path"),
        ("directories =", "expected a value"),
        ("input = some", "true or false"),
        ("deny.1 = (", "RE2"),
        ("allow.1 = (?!a)", "linear time"),
        ("allowed = x", "unknown key"),
        ("members = x", "unknown key"),
        ("rate = 10", "such as 10/s"),
        ("rate = 0/s", "such as 10/s"),
        ("rate = 1/d", "such as 10/s"),
        ("time_limit_ms = 0", "whole number from 1"),
        ("max_running = many", "whole number from 1"),
        ("users = a\nUsers = *", "given twice"),
    ],
)
def test_a_mistake_keeps_the_server_from_starting(tmp_path: Path, entry: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, f"[identity anonymous]\n{entry}\n")
    (problem,) = caught.value.problems
    assert expected in problem
    assert "[identity anonymous]" in problem
    assert ":2:" in problem or ":3:" in problem


def test_a_key_that_is_given_twice_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="given twice"):
        load(tmp_path, "[identity a]\nusers = a\n[Identity a]\nusers = *\n")


@pytest.mark.parametrize("section", ["identity", "group", "identities x", "identity: x"])
def test_a_section_without_a_name_is_not_known(tmp_path: Path, section: str) -> None:
    with pytest.raises(ConfigurationError, match="unknown section"):
        load(tmp_path, f"[{section}]\nusers = x\n")


def test_a_group_without_members_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected members"):
        load(tmp_path, "[group g]\nusers = x\n")


def test_identities_that_differ_by_case_have_sections_of_their_own(tmp_path: Path) -> None:
    policy = load(tmp_path, "[identity a]\nshells = none\n[identity A]\nshells = sh\n").policy.compile()
    request = CommandRequest("sh", "true")
    assert [policy.decide(name, request).allowed for name in "aA"] == [False, True]


ALICE = "[auth]\nalice = secret-token\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[allowlist]\n1 = ls\n", ("[allowlist] 1", "merely contains")),
        ("[allowlist]\n1 = ^ls\n", ("merely contains",)),
        ("[allowlist]\n1 = ^ls$|id\n", ("merely contains",)),
        ("[allowlist]\n1 = (?m)^ls$\n", ("merely contains",)),
        ("[allowlist]\n1 = ^ls .*$\n", ("[allowlist] 1", "shell runs any command")),
        ("[allowlist]\n1 = ^ls\\s+[a-z]+$\n", ("shell runs any command",)),
        ("[allowlist]\n1 = ^ls [^;&|]+$\n", ("shell runs any command",)),
        (
            "[identity alice]\nshells = sh\nallow.1 = ^ls .*$\n",
            ("[identity alice] allow.1", "shell runs any"),
        ),
        (
            "[identity alice]\nshells = none, sh\nprograms = /bin/ls\n",
            ("[identity alice] programs", "shells = none"),
        ),
        ("[identity alice]\nshells = none\n", ("a shell can still be started as a program",)),
        ("[identity alice]\nprograms = /bin/sh\n", ("/bin/sh", "starts other programs")),
        ("[identity alice]\nprograms = /nowhere/at/all\n", ("/nowhere/at/all", "does not exist")),
        ("[identity alice]\nprograms = /usr\n", ("/usr", "slash at its end")),
        (
            "[identity alice]\nprograms = /bin/ls\nenvironment = LD_PRELOAD\n",
            ("LD_PRELOAD is never permitted",),
        ),
        ("[identity alice]\nallow.1 = ^ls$\nenvironment = PATH\n", ("PATH decides",)),
        (
            "[identity alice]\nallow.1 = ^ls$\nenvironment = RIPGREP_CONFIG_PATH\n",
            ("RIPGREP_CONFIG_PATH dec",),
        ),
        ("[identity alice]\nallow.1 = ^ls$\nenvironment = *\n", ("environment: * permits variables",)),
        ("[allowlist]\n1 = ^ls$\n[identity alice]\nenvironment = CC\n", ("environment: CC decides",)),
        (
            "[identity alice]\nprograms = /bin/ls\n[group g]\nmembers = *\nenvironment = LD_AUDIT\n",
            ("[group g] environment", "LD_AUDIT decides"),
        ),
        ("[identity alice]\nallow.1 = ^ls$\ndirectories = /\n", ("directories: /: permits every",)),
        ("[identity alice]\nallow.1 = ^ls$\ndirectories = /nowhere\n", ("/nowhere: does not exist",)),
        (
            "[identity alice]\nprograms = /bin/sh\nallow.1 = ^/bin/sh /x$\ninput = true\n",
            ("[identity alice] input: /bin/sh runs what comes",),
        ),
        ("[identity alice]\nusers = *\n", ("[identity alice] users", "root")),
        ("[identity bob]\nshells = none\n", ("[identity bob]", "no caller")),
        ("[group g]\nmembers = alice, bob\nshells = none\n", ("[group g] members", "bob", "no caller")),
        ("[allowlist]\n1 = ^ls$\n[identity alice]\nallow.1 = ^id$\n", ("match both",)),
        (
            "[identity alice]\nusers = a\n[group g]\nmembers = *\nusers = b\n",
            ("can run nothing", "users in common"),
        ),
    ],
)
def test_rules_that_do_not_do_what_they_seem_to(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    assert warned(tmp_path, ALICE + text, *words)


def test_others_could_put_something_where_a_permitted_program_starts(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    folder.chmod(0o777)
    text = f"{ALICE}[identity alice]\nallow.1 = ^make$\ndirectories = {folder}/\n"
    assert warned(tmp_path, text, str(folder), "what others have put there")


def test_others_could_replace_a_program(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "tool").touch()
    folder.chmod(0o777)
    for listed in (f"{folder}/", f"{folder}/tool"):
        text = f"{ALICE}[identity alice]\nprograms = {listed}\n"
        assert warned(tmp_path, text, listed, "others could put another program there")


@pytest.mark.parametrize(
    "text",
    [
        "[allowlist]\n1 = ^systemctl (status|restart) [a-z-]+$\n2 = ^ls$|^id$\n3 = \\Aid\\z\n",
        "[identity alice]\nusers = etl\nprograms = /bin/ls\nenvironment = TZ, LC_*, ETL_*\nrate = 1/s\n",
        "[identity alice]\nprograms = /bin/ls\ndirectories = /etc, /usr/\ninput = true\n",
        "[identity alice]\nenvironment = CC\ndirectories = /nowhere\ninput = true\n",
        "[identity alice]\nshells = none\nallow.1 = ^/usr/bin/ls .*$\n",
        "[identity alice]\nprograms = /bin/sh\nallow.1 = ^/bin/sh /opt/run$\n",
        "[identity *]\ndeny.all = .\n[group all]\nmembers = *\nrate = 1/s\n",
    ],
)
def test_rules_that_do_are_not_warned_of(tmp_path: Path, text: str) -> None:
    assert [line for line in warnings(tmp_path, ALICE + text) if "without TLS" not in line] == []


def test_without_authentication_there_is_one_identity(tmp_path: Path) -> None:
    assert warnings(tmp_path, "[identity anonymous]\nusers = self\n") == []
    assert warned(tmp_path, "[identity alice]\nusers = self\n", "no caller")
