"""The quick way to a verb and click's commands: made from one table, and the same in all that they do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remsvc.cli import parameters
from remsvc.cli.click_verb import click_command
from remsvc.cli.options import Choice, Option, WholeNumber, file
from remsvc.cli.quick import parse
from remsvc.cli.verb import Verb
from remsvc.cli.verbs import QUICK, load
from remsvc.errors import RemSvcError

from .conftest import PROGRAM, Remsvc, clean_environment

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

VERBS: list[Verb] = [load(place) for place in QUICK.values()]
OPTIONS = [
    pytest.param(verb, option, id=f"{verb.name} {option.name}") for verb in VERBS for option in verb.options
]

# For each kind of value: what it takes, and what it does not take.
SAMPLES: dict[Callable[[Any], Any], tuple[list[str], list[str]]] = {
    str: (["text", "", "--json", "a=b"], []),
    file: (["missing.pem", "", __file__], []),
    parameters.server: (["build7", "10.0.0.1:7", "[::1]"], ["", "a:b", "http://x"]),
    parameters.seconds: (["1.5", "1e3"], ["0", "-1", "nan", "inf", "x", ""]),
    parameters.assignment: (["A=b", "A="], ["A", "1=2", "=x"]),
    parameters.label: (["a=b", "1=", "a=b=c"], ["a", "=b"]),
    parameters.moment: (["2030-01-31T12:00", "2030-01-31"], ["tomorrow", ""]),
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REMSVC_SERVER", "REMSVC_CA_CERT", "REMSVC_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def samples(option: Option) -> tuple[list[str], list[str]]:
    kind = option.kind
    if isinstance(kind, Choice):
        return list(kind.words), ["nonsense", "", kind.words[0] + "x"]
    if isinstance(kind, WholeNumber):
        return [str(kind.least), "12", " 7 ", "1_0"], [str(kind.least - 1), "1.5", "x", ""]
    return SAMPLES[kind]


def recording(verb: Verb) -> tuple[Verb, list[object]]:
    """The verb, but it only notes what it was called with."""
    calls: list[object] = []
    return verb._replace(function=lambda options, **others: calls.append((options, others))), calls


def quickly(verb: Verb, words: list[str]) -> object:
    """What the quick way calls the verb's function with; None where it leaves the words to click."""
    verb, calls = recording(verb)
    if (values := parse(verb, words)) is None:
        return None
    return outcome(lambda: verb.run(values), calls)


def by_click(verb: Verb, words: list[str]) -> object:
    """What click calls it with; None where it does not."""
    verb, calls = recording(verb)
    try:
        return outcome(
            lambda: click_command(verb).main(words, prog_name="remsvc", standalone_mode=False), calls
        )
    except click.ClickException:
        return None


def outcome(run: Callable[[], object], calls: list[object]) -> object:
    try:
        run()
    except RemSvcError as error:
        return str(error)
    return calls[0] if calls else None


def words_for(verb: Verb) -> list[str]:
    """What it needs besides options."""
    return [] if verb.argument is None else ["word"]


@pytest.mark.parametrize(("verb", "option"), OPTIONS)
def test_every_option_means_the_same_to_both(verb: Verb, option: Option) -> None:
    pair = {"cert": ["--key", "k"], "key": ["--cert", "c"]}.get(option.name, [])
    rest = [*pair, *words_for(verb)]
    lines: list[list[str]] = []
    for flag in option.flags:
        if option.switch:
            lines += [[flag], [flag, flag]]
            continue
        good, bad = samples(option)
        for text in good:
            lines.append([flag, text])
            if flag.startswith("--"):
                lines.append([f"{flag}={text}"])
        lines += [[flag, first, flag, second] for first in bad for second in good[:1] if not option.multiple]
        lines.append([flag, good[0], flag, good[-1]])
    if option.off is not None:
        lines += [[option.off], [option.off, option.flags[0]], [option.flags[0], option.off]]
    for line in lines:
        found = quickly(verb, [*line, *rest])
        assert found is not None, line
        assert found == by_click(verb, [*line, *rest]), line


@pytest.mark.parametrize(("verb", "option"), OPTIONS)
def test_what_is_wrong_is_left_to_click(verb: Verb, option: Option) -> None:
    rest = words_for(verb)
    lines = (
        [[f"{option.flags[-1]}=x"]] if option.switch else [[option.flags[-1]]]
    )  # alone, it is not complete
    if not option.switch:
        lines = [[*rest, option.flags[-1]]] if not verb.options_first else [[option.flags[-1]]]
        lines += [[option.flags[-1], text, *rest] for text in samples(option)[1]]
    for line in lines:
        assert quickly(verb, line) is None, line
        assert by_click(verb, line) is None, line


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["-h"],
        ["--nonsense"],
        ["--serv", "x"],
        ["-x"],
        ["--cert", "c"],
        ["--key", "k"],
        ["--no-tls", "--ca-cert", "c"],
        ["--no-tls", "--cert", "c", "--key", "k"],
    ],
    ids=" ".join,
)
def test_help_and_contradictions_are_left_to_click(verb: Verb, words: list[str]) -> None:
    assert quickly(verb, [*words, *words_for(verb)]) is None


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_too_many_or_too_few_words_are_left_to_click(verb: Verb) -> None:
    wrong = [["word"], ["--", "-x"]] if verb.argument is None else [[], ["--"]]
    if verb.argument is not None and not verb.argument.many:
        wrong += [["one", "two"], ["one", "--", "two"]]
    for words in wrong:
        assert quickly(verb, words) is None
        assert by_click(verb, words) is None


@pytest.mark.parametrize("value", ["build7:7", "", "a:b"])
@pytest.mark.parametrize("words", [[], ["-s", "other"]])
def test_the_server_of_the_environment(monkeypatch: pytest.MonkeyPatch, value: str, words: list[str]) -> None:
    monkeypatch.setenv("REMSVC_SERVER", value)
    for verb in VERBS:
        line = [*words, *words_for(verb)]
        assert quickly(verb, line) == by_click(verb, line)
        assert (quickly(verb, line) is None) == (value == "a:b" and not words)


@pytest.mark.parametrize("value", ["ca.pem", ""])
@pytest.mark.parametrize("words", [[], ["--no-tls"], ["--tls"], ["--ca-cert", "other"]], ids=" ".join)
def test_the_authority_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str, words: list[str]
) -> None:
    monkeypatch.setenv("REMSVC_CA_CERT", value)
    for verb in VERBS:
        line = [*words, *words_for(verb)]
        assert quickly(verb, line) is not None
        assert quickly(verb, line) == by_click(verb, line)


def test_a_file_that_may_not_be_read_is_left_to_click(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    for verb in VERBS:
        assert quickly(verb, ["--ca-cert", __file__, *words_for(verb)]) is None


_VOCABULARY = sorted(
    {flag for verb in VERBS for option in verb.options for flag in option.flags}
    | {f"{flag}=1" for verb in VERBS for option in verb.options for flag in option.flags}
    | {
        "-",
        "--",
        "",
        "word",
        "1",
        "a=b",
        "sh",
        "RUNNING",
        "running",
        "out",
        "--no-tls",
        "-s1",
        "-ij",
        "-c4",
        "--x",
    }
)


@given(verb=st.sampled_from(VERBS), words=st.lists(st.sampled_from(_VOCABULARY), max_size=7))
@settings(max_examples=1500, deadline=None)
def test_whatever_the_quick_way_takes_means_the_same_to_click(verb: Verb, words: list[str]) -> None:
    found = quickly(verb, words)
    if found is not None:
        assert found == by_click(verb, words)


def loaded(arguments: list[str], tmp_path: Path, **environment: str) -> set[str]:
    """The modules that a run of remsvc loads."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "remsvc", *arguments],
        env=clean_environment(**environment),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return {
        line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")
    }


@pytest.fixture
def job_id(remsvc: Remsvc, server: ServerProcess) -> str:
    """A job that has ended."""
    job = remsvc("run", "-s", server.target, "--detach", "--", "true").stdout.strip()
    assert remsvc("jobs", "wait", "-s", server.target, job).returncode == 0
    return job


@pytest.mark.parametrize(
    "words",
    [
        "run SERVER -- true",
        "ping SERVER -c 1",
        "status SERVER",
        "jobs list SERVER",
        "jobs show SERVER JOB",
        "jobs wait SERVER JOB",
        "jobs cancel SERVER JOB",
        "jobs logs SERVER JOB",
    ],
)
def test_what_takes_long_to_load_is_not_loaded(
    words: str, server: ServerProcess, job_id: str, tmp_path: Path
) -> None:
    line = words.replace("SERVER", f"-s {server.target}").replace("JOB", job_id).split()
    modules = loaded(line, tmp_path)
    assert "remsvc.client.http2.blocking" in modules
    assert not modules & {"grpc", "asyncio", "click", "rich", "ssl", "cryptography", "logging", "subprocess"}


def test_without_the_http2_library_grpc_carries_the_calls(server: ServerProcess) -> None:
    script = "import sys; sys.modules['ngh2'] = None; from remsvc.__main__ import main; main()"
    for words, told in (
        (["run", "-s", server.target, "--", "echo fine"], "fine"),
        (["ping", "-c", "1", "-s", server.target], " by grpc"),
    ):
        run = subprocess.run(
            [sys.executable, "-c", script, *words],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert told in run.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe nobody reads is told differently there")
def test_output_that_nobody_reads_any_more_ends_it(server: ServerProcess) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run(
            [*PROGRAM, "status", "-s", server.target],
            env=clean_environment(),
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=50,
            check=False,
        )
    finally:
        os.close(writer)
    assert (run.returncode, run.stderr) == (141, b"")
