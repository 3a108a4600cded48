"""What an Airflow on several machines has beside its database: a broker, a network, Celery workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local_airflow.machines import MachineNetwork

Settings = Mapping[str, Mapping[str, str]]
"""Options of airflow.cfg by section."""


@dataclass(frozen=True)
class CeleryCluster:
    """CeleryExecutor: each worker and each triggerer is on a machine of its own.

    They share nothing but the database and the broker: each has its own ``AIRFLOW_HOME``, its own log
    folder, and its own copy of the DAG files. The scheduler, the DAG processor and the API server stay on
    this machine, at ``network.address``.

    Attributes:
        broker: Celery's broker, as a URL.
        network: of the machines.
        workers: how many there are at first.
        slots: how many tasks each of them runs at a time.
    """

    broker: str
    network: MachineNetwork
    workers: int = 2
    slots: int = 4

    def settings(self, database: str) -> Settings:
        """Of every component. ``database``: Airflow's, which takes Celery's results as well."""
        return {
            "core": {"executor": "CeleryExecutor", "parallelism": str(self.workers * self.slots)},
            "celery": {
                "broker_url": self.broker,
                "result_backend": f"db+{database}",
                "worker_concurrency": str(self.slots),
                # How often the scheduler asks for the results is a matter of its loop, not of processes.
                "sync_parallelism": "1",
            },
        }

    @staticmethod
    def machine_settings(home: Path) -> Settings:
        """Of what runs on one of the machines, where they are its own. ``home``: its ``AIRFLOW_HOME``."""
        return {
            "core": {
                "dags_folder": str(home / "dags"),
                # Airflow stores it with each task and triggerer, and asks there for their logs.
                "hostname_callable": "airflow.utils.net.get_host_ip_address",
            },
            "logging": {"base_log_folder": str(home / "logs")},
            "dag_processor": {"dag_bundle_storage_path": str(home / "bundles")},
        }
