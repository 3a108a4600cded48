"""``remsvc token``: the file of hashed tokens, and a server that reads it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import Remsvc

if TYPE_CHECKING:
    from tests.conftest import Serve

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")


def test_a_token_is_made_used_listed_and_revoked(remsvc: Remsvc, serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    added = remsvc("token", "add", file, "airflow-prod", "--expires", "90d")
    assert added.returncode == 0
    (token,) = added.stdout.splitlines()
    assert token not in added.stderr
    assert token not in file.read_text()
    assert hashlib.sha256(token.encode()).hexdigest() in file.read_text()

    server = serve(f"[server]\nport = 0\ntoken_file = {file}\n")
    assert remsvc("ping", "-s", server.target, env={"REMSVC_TOKEN": token}).returncode == 0

    (listed,) = json.loads(remsvc("token", "list", file, "--json").stdout)
    assert (listed["identity"], listed["state"]) == ("airflow-prod", "valid")
    assert listed["id"] in added.stderr
    (line,) = remsvc("token", "list", file).stdout.splitlines()
    assert line.split() == [listed["id"], "airflow-prod", listed["expires"], "valid"]

    revoked = remsvc("token", "revoke", file, listed["id"])
    assert (revoked.returncode, revoked.stdout) == (0, "")
    assert json.loads(remsvc("token", "list", file, "--json").stdout) == []
    again = remsvc("token", "revoke", file, listed["id"])
    assert again.returncode == 255
    assert "there is no token with the id" in again.stderr


@posix_only
def test_the_file_is_private(remsvc: Remsvc, tmp_path: Path) -> None:
    remsvc("token", "add", tmp_path / "tokens", "x")
    assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "when",
    ["", "90", "90y", "-1d", "yesterday", "2020-01-01", "2027-13-01", "2027-01-01T00:00:00", "999999w"],
)
def test_an_expiry_that_makes_no_sense_is_wrong_usage(remsvc: Remsvc, tmp_path: Path, when: str) -> None:
    run = remsvc("token", "add", tmp_path / "tokens", "x", "--expires", when)
    assert (run.returncode, run.stdout) == (2, "")
    assert "--expires" in run.stderr
    assert not (tmp_path / "tokens").exists()


def test_expiries(remsvc: Remsvc, tmp_path: Path) -> None:
    given = {
        "2h": None,
        "2999-12-31": "2999-12-31T00:00:00Z",
        "2999-12-31T12:00:00+02:00": "2999-12-31T10:00:00Z",
    }
    for when, written in given.items():
        run = remsvc("token", "add", tmp_path / "tokens", "x", "--expires", when, "--json")
        added = json.loads(run.stdout)
        assert written is None or added["expires"] == written
        assert time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) < added["expires"]


@pytest.mark.parametrize("identity", ["", "a b", "a,b", "a=b", "a\nb", "a\x1b[2J", "\u202eflow", "anonymous"])
def test_an_identity_that_cannot_be_used(remsvc: Remsvc, tmp_path: Path, identity: str) -> None:
    run = remsvc("token", "add", tmp_path / "tokens", identity)
    assert (run.returncode, run.stdout) == (255, "")
    assert len(run.stderr.splitlines()) == 1
    assert "identity" in run.stderr
    assert not {"\x1b", "\u202e"}.intersection(run.stderr)


def test_a_file_that_cannot_be_used(remsvc: Remsvc, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    for verb in (("list",), ("revoke",)):
        run = remsvc("token", *verb, file, *(["x"] if verb == ("revoke",) else []))
        assert run.returncode == 255
        assert "No such file" in run.stderr
    assert not file.exists()
    file.touch(mode=0o600)
    file.write_text("x = my-sicret-token\n")
    for arguments in (("add", file, "x"), ("list", file), ("revoke", file, "x")):
        run = remsvc("token", *arguments)
        assert run.returncode == 255
        assert f"{file}:1: expected sha256:" in run.stderr
        assert "sicret" not in run.stderr
    assert file.read_text() == "x = my-sicret-token\n"
