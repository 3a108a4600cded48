"""A connection's token stays where it is: in the connection, encrypted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from local_airflow import LocalAirflow
from secured_server import SecuredServer
from tests.end_to_end.conftest import VARIABLE, Connect
from tests.end_to_end.waiting import DEADLINE

pytestmark = pytest.mark.timeout(180)


def test_no_log_and_no_row_of_the_database_holds_the_token(
    airflow: LocalAirflow, secured_server: SecuredServer, connect: Connect
) -> None:
    host, _, port = secured_server.target.rpartition(":")
    extra = {"use_ssl": True, "ca_cert_path": secured_server.ca_cert, "bearer_token": secured_server.token}
    in_database = connect(int(port), host, **extra)
    wrong_token = connect(int(port), host, **{**extra, "bearer_token": secured_server.token + "-wrong"})

    runs = [
        (airflow.api.trigger(dag_id, {"connection": connection, "cmd": "echo as can be read"}), state)
        for dag_id, connection, state in (
            ("command", "remsvc_default", "success"),
            ("command", in_database, "success"),
            ("command_in_worker", in_database, "success"),
            ("command", wrong_token, "failed"),
            ("command_in_worker", wrong_token, "failed"),
        )
    ]
    for dag_run, state in runs:
        assert dag_run.wait(DEADLINE) == state, dag_run.log("remote")

    written = dict(texts(airflow.home)) | dict(texts(secured_server.directory / "server.log"))
    assert [name for name, text in written.items() if b"as can be read" in text], "the search finds nothing"
    assert [name for name, text in written.items() if secured_server.token.encode() in text] == []


def test_no_log_and_no_row_of_the_database_holds_a_secret_of_a_command(
    airflow: LocalAirflow, secured_server: SecuredServer
) -> None:
    """It is a Variable in a template, and the command prints it, and fails."""
    runs = [
        (airflow.api.trigger("with_a_secret", {"connection": "remsvc_default", "cmd": str(rc)}), state)
        for rc, state in ((0, "success"), (3, "failed"))
    ]
    for dag_run, state in runs:
        assert dag_run.wait(DEADLINE) == state, dag_run.log("remote")
        assert "1 out | *** as can be read" in dag_run.log("remote")
    log = (secured_server.directory / "server.log").read_text()
    assert VARIABLE in log, "the server gets the command as it is"
    written = dict(texts(airflow.home))
    assert [name for name, text in written.items() if VARIABLE.encode() in text] == []


def texts(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every file, by its name, and the statements that would make each database again."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            yield str(file), file.read_bytes()
        if file.suffix == ".db":
            with closing(sqlite3.connect(file)) as database:
                yield f"rows of {file}", "\n".join(database.iterdump()).encode()
