"""A real Airflow on this machine, for the demo and the end-to-end tests.

:class:`LocalAirflow` starts one in a throw-away home and stops it again; :class:`PostgresServer` is a
database for it. A :class:`CeleryCluster` puts its workers and triggerers on machines of their own, those of
a :class:`MachineNetwork`, with a :class:`RedisServer` as the broker. :class:`AirflowApi` speaks to its REST
API; :class:`BackgroundProcess` is a process that is really gone when stopped.
"""

from local_airflow.airflow import LocalAirflow, Triggerer
from local_airflow.api import AirflowApi, ApiError, DagRun
from local_airflow.cluster import CeleryCluster
from local_airflow.machines import Machine, MachineNetwork
from local_airflow.ports import free_port
from local_airflow.postgres import PostgresServer
from local_airflow.process import BackgroundProcess, BackgroundServer, StartupError, end_children
from local_airflow.redis import RedisServer

__all__ = [
    "AirflowApi",
    "ApiError",
    "BackgroundProcess",
    "BackgroundServer",
    "CeleryCluster",
    "DagRun",
    "LocalAirflow",
    "Machine",
    "MachineNetwork",
    "PostgresServer",
    "RedisServer",
    "StartupError",
    "Triggerer",
    "end_children",
    "free_port",
]
