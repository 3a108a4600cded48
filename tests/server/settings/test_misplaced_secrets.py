"""A token that stands in the wrong place of a configuration is shown by nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remsvc.server.config import check_config
from remsvc.server.settings.misplaced_secrets import in_known_key, in_line, in_path, in_unknown_key

TOKEN = "kJ3_x9-QzTq7LmN2"
SHORT = "s3cr3t"

MISPLACED = {
    "under an unknown key": f"[server]\nairflow-prod = {TOKEN}\n",
    "a short one under a telling key": f"[server]\nbearer_token = {SHORT}\n",
    "under a key of another section": f"[log]\ntoken = {SHORT}\n",
    "with its scheme": "[log]\nfilee = Bearer abc\n",
    "in a section of an identity": f"[identity etl]\ntoken = {SHORT}\n",
    "in a group": f"[group etl]\nmembers = etl\nairflow = {TOKEN}\n",
    "alone in [auth]": f"[auth]\n{SHORT}\n",
    "alone in a section that is misspelt": f"[Auth s]\n{SHORT}\n",
    "alone in another one": f"[server]\n{TOKEN}\n",
    "alone before the first one": f"{SHORT}\n",
    "alone in one whose heading is broken": f"[auth\n{SHORT}\n",
    "as a heading": f"[{TOKEN}\n",
    "as a word that is chosen": f"[server]\nauthentication = {TOKEN}\n",
    "as a number": f"[server]\nport = {TOKEN}\n",
    "as the path of the token file": f"[server]\ntoken_file = {TOKEN}\n",
    "not printable": f"[auth]\netl = {SHORT}\x07\n",
    "a hash that is cut": f"[auth]\netl = sha256:{SHORT}\n",
    "twice": f"[auth]\netl = {SHORT}\netl = {SHORT}2\n",
}


@pytest.mark.parametrize("text", MISPLACED.values(), ids=MISPLACED)
def test_it_is_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.ini"
    path.write_text(text)
    problems, warnings = check_config(path)
    assert problems
    told = "\n".join((*problems, *warnings))
    for secret in (TOKEN, SHORT, "Bearer abc"):
        assert secret not in told
    # The place is told exactly all the same.
    assert all(f"{path}:" in line for line in problems)


@pytest.mark.parametrize("verb", [["check-config"], ["serve", "--config"]])
def test_nor_by_the_command_line(tmp_path: Path, verb: list[str]) -> None:
    path = tmp_path / "server.ini"
    # One that stands alone is in the section before it, where it may be any word.
    texts = [text for text in MISPLACED.values() if text.startswith("[")]
    path.write_text("".join(texts))
    command = [sys.executable, "-m", "remsvc", *verb, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert not any(secret in run.stdout + run.stderr for secret in (TOKEN, SHORT, "Bearer abc"))


def test_what_cannot_be_one_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "server.ini"
    path.write_text(
        "[server]\ncolour = blue\nport = 70000\nhost = a host\nnonsense\n"
        "[log]\nlevel = loud\nfile = /nowhere/at/all/server-of-remsvc.log\n"
    )
    problems, _ = check_config(path)
    told = "\n".join(problems)
    for value in ("blue", "70000", "a host", "nonsense", "loud", "/nowhere/at/all/server-of-remsvc.log"):
        assert value in told


@given(st.text("abcXYZ019_-", min_size=16, max_size=64), st.text("/ :;=\"'", max_size=3))
def test_whatever_a_token_looks_like(token: str, around: str) -> None:
    value = f"{around}{token}{around}"
    assert in_unknown_key("x", value)
    assert in_known_key(value)
    assert in_line(value)
    assert in_path(token)
