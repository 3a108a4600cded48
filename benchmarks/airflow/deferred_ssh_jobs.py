"""As many deferred tasks of SSHRemoteJobOperator as of ours, in one triggerer, as far as that goes.

Its trigger opens a connection of its own to the SSH server, and starts three programs there every five
seconds to see what is new. The jobs run on this machine, as the operator would have started them: a process
that prints a line a second into a file, and writes its exit code into another one when it ends. What is
counted is how many of them the triggerer has come to show in their logs within some time, and how late its
event loop is meanwhile.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.airflow.deferral import DEADLINE, Database, Plan, defer, wait
from benchmarks.airflow.deferred_tasks import DAG_ID, LINE, TASKS, Lags, Logs, memory
from benchmarks.airflow.operators import SSH_CONNECTION
from benchmarks.rows import Rounds, Row, percentile
from benchmarks.settings import Settings

if TYPE_CHECKING:
    from local_airflow import LocalAirflow, PostgresServer

_SECONDS = 60.0
_WHAT = f"{TASKS:,} deferred tasks of SSHRemoteJobOperator"
ROWS = (
    Row("airflow", f"{_WHAT}: in their logs after {_SECONDS:.0f} s", "tasks"),
    Row("airflow", f"{_WHAT}: loop late while they start, p99", "ms"),
    Row("airflow", f"{_WHAT}: loop late while they start, at most", "ms"),
    Row("airflow", f"{_WHAT}: memory each", "KB"),
)
# $1: the folder. Bash waits without starting a process.
_JOBS = f"""\
exec 9<> <(:)
for n in $(seq 0 {TASKS - 1}); do
  mkdir "$1/$n"
  (while :; do echo "{LINE}"; read -rt 1 -u 9; done > "$1/$n/stdout.log") &
done
wait
"""


def add(rounds: Rounds, settings: Settings, airflow: LocalAirflow, postgres: PostgresServer) -> None:
    """Put it into the rounds. No scheduler and no triggerer of this Airflow may run then."""
    folder = settings.new_folder("ssh-jobs")
    trace = settings.new_folder("ssh-trace") / "trace"
    database = Database(postgres)

    def measure() -> dict[str, float]:
        airflow.wait_for_dag(DAG_ID)
        run_id = airflow.api.trigger(DAG_ID).run_id
        triggerer = airflow.start_triggerer()
        jobs = subprocess.Popen(["bash", "-c", _JOBS, "jobs", folder], start_new_session=True)
        try:
            wait(lambda: sum(1 for _ in folder.iterdir()) == TASKS)
            defer(airflow, Plan(run_id, ["probe"], "", [SSH_CONNECTION], str(trace)))
            wait(trace.with_suffix(".probe").exists)
            before, started = memory(triggerer), time.monotonic()
            defer(airflow, Plan(run_id, ["remote"], "", [SSH_CONNECTION], str(trace), ssh_jobs=str(folder)))
            logs = Logs(airflow, run_id, triggerer)
            while logs.begun() < TASKS and time.monotonic() < started + _SECONDS:
                time.sleep(1)
            ended, used = time.monotonic(), memory(triggerer) - before
            assert database.tasks(run_id, "deferred") > 0
            time.sleep(2)  # the probe writes once a second
        finally:
            os.killpg(jobs.pid, signal.SIGKILL)
            jobs.wait()
            triggerer.process.stop()
        late = Lags(trace.with_suffix(".probe")).between(started, ended)
        shown = logs.begun()
        figures = (shown, percentile(late, 99), max(late), used / max(shown, 1) / 1000)
        return {row.name: figure for row, figure in zip(ROWS, figures, strict=True)}

    rounds.add(measure, *ROWS, seconds=DEADLINE)
