"""Remote commands in a real Airflow: ours beside what people use over SSH, and a thousand at once.

Scheduler, triggerer, DAG processor and API server on PostgreSQL, with the LocalExecutor and four worker
slots; ``sshd`` and ``remsvc serve`` (TLS and token) beside them. SSHOperator and SSHRemoteJobOperator are
those of Airflow's own SSH provider, with their defaults. Everything in one Airflow, one after another: see
:mod:`~benchmarks.airflow.short_tasks`, :mod:`~benchmarks.airflow.worker_slots`,
:mod:`~benchmarks.airflow.log_delay`, :mod:`~benchmarks.airflow.log_flood`,
:mod:`~benchmarks.airflow.start_delay`, :mod:`~benchmarks.airflow.deferred_tasks` and
:mod:`~benchmarks.airflow.deferred_ssh_jobs`. One round: it takes minutes.
A quick run leaves out the thirty-second commands and the deferred tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.rows import Row
    from benchmarks.settings import Settings


def measure(settings: Settings) -> list[Row]:
    """All rows of the group."""
    # Airflow's scheduler imports this package for its executor, and the workers that are measured inherit
    # what it has loaded: nothing of ours.
    from benchmarks.airflow import measurement

    return measurement.measure(settings)
