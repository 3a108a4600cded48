"""The demo shows what it promises, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(180)

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"

Demo = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Start the demo, its temporary directory in ``tmp_path``."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, SCRIPT, *arguments],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:  # the test failed
            process.terminate()
            process.communicate()


def processes_in(directory: Path) -> list[str]:
    """Every process that was started for something below the directory."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join([*process.cmdline(), process.environ().get("AIRFLOW_HOME", "")])
        except psutil.Error:
            continue
        if f"{directory}/remsvc-demo-" in text:
            found.append(text)
    return found


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"the demo never printed {text!r}:\n{seen}")


def test_kept_it_runs_the_example_and_stays_until_it_is_told_to_stop(demo: Demo, tmp_path: Path) -> None:
    """Without ``--keep`` it goes the same way, and then stops of its own accord."""
    process = demo("--keep")
    output, _ = process.communicate()

    assert process.returncode == 0, output
    for pattern in (
        r"connection remsvc_default: remsvc://127\.0\.0\.1:\d+\?extra=.*\"bearer_token\":\"\*\*\*\"",
        r"run_commands +deferred",
        r"the run +success",
        r"\$ echo \d{4}-\d\d-\d\d  \(rc 0\)\n  \d{4}-\d\d-\d\d\n",
        r"\$ uname -a  \(rc 0\)\n  " + re.escape(os.uname().sysname),
        r"validated: 5 commands ran on ",
        r"The UI was at http://127\.0\.0\.1:\d+",
        r"UI: http://127\.0\.0\.1:\d+ \(user admin, password \S+\)\nstop it: kill \d+\n$",
    ):
        assert re.search(pattern, output), output
    owner = psutil.Process(int(output.split()[-1]))
    assert processes_in(tmp_path) != []
    owner.terminate()
    owner.wait(60)
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_not_kept_it_stops_by_itself_and_cleans_up(tmp_path: Path) -> None:
    """With nothing but a file in the place of server and Airflow: what follows when all has worked."""
    script = (
        "import sys, demo\n"
        "demo.demonstrate = lambda home, stack, finish: (home / 'file').touch()\n"
        "sys.exit(demo.run(finish=lambda airflow: None))"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(SCRIPT.parent)}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )

    assert (run.returncode, run.stdout) == (0, "\n== Stopping everything\nstopped\n"), run.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "== A run of the DAG"),
        (signal.SIGTERM, "== Airflow"),
        (signal.SIGHUP, "== remsvc init"),
    ],
    ids=["SIGINT while the DAG runs", "SIGTERM while Airflow starts", "SIGHUP at the beginning"],
)
def test_a_signal_stops_everything(demo: Demo, tmp_path: Path, number: signal.Signals, moment: str) -> None:
    process = demo()
    read_until(process, moment)

    process.send_signal(number)
    output, _ = process.communicate()

    assert process.returncode == 128 + number, output
    assert f"because of {number.name}" in output
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
