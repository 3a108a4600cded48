"""A thousand deferred commands in one real triggerer: how long do they hold up its event loop?

    python benchmarks/triggerer_loop.py [--commands 1000] [--seconds 30] [--lines 6]

Starts PostgreSQL, an Airflow without a scheduler and a RemSvc server. As many task instances are put
into the database as deferred, as their workers would have done, and then a triggerer is started. Each
command prints its lines over the given seconds. A trigger among them measures how late the loop calls
it. The same is done with triggers that only sleep: that is what Airflow itself costs. The time is
told apart: until all have started, while all run, and from the first end until Airflow has taken the
last event. Each time that the loop is late by more than 100 ms, a thread that looks on tells whether it
was in the provider's code, in Airflow's, or in the garbage collector.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

DAG_ID = "benchmark"
CONNECTION = "benchmark_server"
DEADLINE = 600.0
LOOK = 0.01
"""Seconds between two looks of the probe."""
_DAG = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from remsvc_provider.operators.remsvc import RemSvcOperator
with DAG("{dag_id}", schedule=None):
    EmptyOperator(task_id="probe")
    RemSvcOperator.partial(task_id="remote").expand(commands=[[{{"cmd": "true"}}]] * {count})
"""
# $1: trace, $2: seconds between two lines, $3: lines
_COMMAND = """\
echo x >> "$1.started"
n=0
while [ $n -lt "$3" ]; do n=$((n + 1)); echo "line $n, as long as lines of logs usually are"; sleep "$2"; done
echo x >> "$1.ended"
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--lines", type=int, default=6)
    parser.add_argument("--defer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.defer:
        defer_all(json.loads(arguments.defer))
        return
    with tempfile.TemporaryDirectory(prefix="remsvc-benchmark-") as directory:
        for kind in ("sleep", "command"):
            home = Path(directory, kind)
            home.mkdir()
            measure(kind, home, arguments)


def measure(kind: str, home: Path, arguments: argparse.Namespace) -> None:
    """One triggerer with one kind of triggers, and a line for each part of its time."""
    from local_airflow import BackgroundProcess, LocalAirflow, PostgresServer

    (home / "dags").mkdir()
    (home / "dags" / "benchmark.py").write_text(_DAG.format(dag_id=DAG_ID, count=arguments.commands))
    (home / "command.sh").write_text(_COMMAND)
    (home / "server.ini").write_text(
        "[server]\nport = 0\n[jobs]\nmax_running = 5000\n[log]\nlevel = warning\n"
    )
    server = BackgroundProcess(
        "remsvc serve",
        [
            sys.executable,
            "-m",
            "remsvc",
            "serve",
            "--config",
            home / "server.ini",
            "--state-dir",
            home / "state",
        ],
        env=os.environ,
        cwd=home,
        log_path=home / "server.log",
    )
    environment = {
        "PYTHONPATH": str(Path(__file__).parent),
        "AIRFLOW__TRIGGERER__CAPACITY": str(arguments.commands + 100),
    }
    try:
        target = server.wait_for_line("listening on ", 60)
        with (
            PostgresServer(home / "postgres") as postgres,
            LocalAirflow(
                home / "airflow",
                home / "dags",
                environment,
                database=postgres.url,
                triggerers=0,
                scheduler=False,
            ) as airflow,
        ):
            airflow.wait_for_dag(DAG_ID)
            host, _, port = target.rpartition(":")
            airflow.api.request(
                "POST",
                "/connections",
                {"connection_id": CONNECTION, "conn_type": "remsvc", "host": host, "port": int(port)},
            )
            run = airflow.api.trigger(DAG_ID)
            plan = {
                "run_id": run.run_id,
                "kind": kind,
                "home": str(home),
                "seconds": arguments.seconds,
                "lines": arguments.lines,
            }
            subprocess.run(
                [sys.executable, __file__, "--defer", json.dumps(plan)],
                env=airflow.environment,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            started = time.monotonic()
            triggerer = airflow.start_triggerer()
            wait_for(lambda: lines(home / "trace.started") == arguments.commands)
            running = time.monotonic()
            wait_for(lambda: lines(home / "trace.ended") > 0)
            ending = time.monotonic()
            wait_for(lambda: lines(home / "trace.ended") == arguments.commands)
            wait_for(lambda: triggers(postgres.url) == 1)
            ended = time.monotonic()
            time.sleep(2)  # the probe writes once a second
            warnings = triggerer.process.log.count("async thread was blocked")
    finally:
        server.stop()
    print(f"{arguments.commands} triggers, kind {kind}; Airflow warned {warnings} time(s) of a blocked loop")
    for part, begin, end in (
        ("until all had started", started, running),
        ("while all ran", running, ending),
        ("from the first end to the last", ending, ended),
    ):
        report(part, home / "probe", begin, end)


def report(part: str, path: Path, begin: float, end: float) -> None:
    lags: list[float] = [0.0]
    late: list[str] = []
    seen = {"gc": 0.0, "provider": 0.0, "airflow": 0.0}
    for line in path.read_text().splitlines():
        kind, at, seconds = line.split()
        if not begin <= float(at) <= end:
            continue
        if kind != "lag":  # the line of the tick that it has made late comes next
            seen[kind] += float(seconds) if kind == "gc" else LOOK
            continue
        lag = float(seconds)
        lags.append(lag * 1000)
        if lag > 0.1:
            late.append(f"{lag * 1000:.0f} ({max(seen, key=lambda cause: seen[cause])})")
        seen = dict.fromkeys(seen, 0.0)
    lags.sort()
    print(
        f"  {part} ({end - begin:.0f} s): late by {percentile(lags, 50):.1f} ms in the median, "
        f"p99 {percentile(lags, 99):.0f} ms, at most {lags[-1]:.0f} ms"
        + (f"; over 100 ms: {', '.join(late)}" if late else ""),
        flush=True,
    )


def percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def triggers(url: str) -> int:
    """How many triggers the database still has that wait for their event."""
    import psycopg2

    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("select count(*) from task_instance where state = 'deferred'")
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not done after {DEADLINE:.0f} s")
        time.sleep(0.2)


def defer_all(plan: dict[str, Any]) -> None:
    """Put the run's task instances into the database as deferred. Runs with Airflow's environment."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from loop_probe import LoopProbe, Sleeper
    from sqlalchemy import select

    from remsvc_provider.origin import Origin
    from remsvc_provider.triggers.remsvc import RemSvcTrigger

    home, seconds = Path(plan["home"]), plan["seconds"]
    pause = seconds / plan["lines"]
    command = {"cmd": f"sh {home}/command.sh {home}/trace {pause} {plan['lines']}"}
    with create_session() as session:
        instances = session.scalars(select(TaskInstance).where(TaskInstance.run_id == plan["run_id"])).all()
        # The probe comes first, and so has the lowest id: the triggerer takes them in that order.
        for instance in sorted(instances, key=lambda instance: instance.task_id != "probe"):
            instance.try_number = 1
            if instance.task_id == "probe":
                trigger: Any = LoopProbe(path=str(home / "probe"))
            elif plan["kind"] == "sleep":
                trigger = Sleeper(seconds=seconds, trace=str(home / "trace"))
            else:
                trigger = RemSvcTrigger(
                    commands=[command],
                    grpc_conn_id=CONNECTION,
                    origin=Origin.of(instance).arguments(),
                    deferred_at=time.time(),
                )
            row = Trigger.from_object(trigger)
            session.add(row)
            session.flush()
            instance.trigger_id = row.id
            instance.state = "deferred"
            instance.next_method = "execute_complete"


if __name__ == "__main__":
    main()
