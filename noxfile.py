"""The test matrix: one built wheel on every supported Python, Airflow, grpcio and protobuf.

``make matrix`` runs all of it; ``make matrix ARGS="-l"`` lists the sessions. A Python that is not
on this machine is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]

# What the declared ranges of grpcio and protobuf must hold, from the oldest pair to the newest.
PAIRS = {
    "oldest": ["grpcio==1.67.0", "protobuf==5.28.0"],
    "grpcio 1.67.0, protobuf 5.29": ["grpcio==1.67.0", "protobuf==5.29.*"],
    "grpcio 1.67.0, protobuf 6.30": ["grpcio==1.67.0", "protobuf==6.30.*"],
    "grpcio 1.75, protobuf 6.32": ["grpcio==1.75.*", "protobuf==6.32.*"],
    "grpcio 1.80, protobuf 6.33": ["grpcio==1.80.*", "protobuf==6.33.*"],
    "grpcio 1.67.0, protobuf 7": ["grpcio==1.67.0", "protobuf==7.*"],
    "newest": ["grpcio", "protobuf"],  # of a server: what its extra permits
}

# Each Airflow with what was on the index in its time, because it need not run with what came later:
# 3.1.0 and 3.2 fail with today's pydantic. None: today's newest of everything. What ours needs and is younger
# than they are is excepted.
_YOUNGER = ["--exclude-newer-package", "ngh2=2026-11-01"]
AIRFLOWS = {
    "3.1.0": ("apache-airflow==3.1.0", "2025-10-01"),
    "3.2.2": ("apache-airflow==3.2.2", "2026-06-15"),
    "newest": ("apache-airflow", None),
}

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False
nox.options.stop_on_first_error = False


def _add_pyenv_to_path() -> None:
    """Let nox find the interpreters of pyenv, whose names on PATH are stand-ins for one version."""
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return
    listing = subprocess.run([pyenv, "root"], stdout=subprocess.PIPE, text=True, check=False)
    versions = Path(listing.stdout.strip(), "versions")
    folders = [str(folder) for python in PYTHONS for folder in sorted(versions.glob(f"{python}.*/bin"))[-1:]]
    os.environ["PATH"] = os.pathsep.join([*folders, os.environ["PATH"]])


_add_pyenv_to_path()


def _wheel(session: nox.Session) -> Path:
    """The wheel of this checkout, built when the first session asks for it."""
    directory = Path(session.cache_dir, f"dist-{os.getpid()}")
    if not directory.exists():
        session.run(
            sys.executable, "-m", "build", "--outdir", str(directory), str(ROOT), external=True, silent=True
        )
    (wheel,) = directory.glob("*.whl")
    return wheel


@nox.session(python=PYTHONS)
@nox.parametrize("pair", [nox.param(name, id=name) for name in PAIRS])
def wheel(session: nox.Session, pair: str) -> None:
    """The base install, client and stubs, against a server; every warning is an error."""
    session.install(str(_wheel(session)), *PAIRS[pair])
    session.run("python", "-W", "error", "tests/packaging/round_trip.py", sys.executable)


@nox.session(python=PYTHONS)
@nox.parametrize("pair", [nox.param(name, id=name) for name in ("oldest", "newest")])
def server(session: nox.Session, pair: str) -> None:
    """The server's extra, with client and server in one environment, and the limits that gRPC holds."""
    session.install(f"{_wheel(session)}[server]", *PAIRS[pair])
    session.run("python", "tests/packaging/round_trip.py", "python")
    # gRPC's own limits are options that an older one might not know.
    session.install("pytest", "pytest-asyncio", "pytest-timeout", "psutil", "hpack")
    packet = "tests/attacks/test_abuses.py::test_a_method_whose_name_is_not_utf_8_ends_no_server"
    session.run("python", "-m", "pytest", "tests/attacks/test_limits.py", packet)


@nox.session(python=PYTHONS)
def affected_grpc(session: nox.Session) -> None:
    """A gRPC that one packet ends, in an environment that has it against the extra's wish."""
    session.install(f"{_wheel(session)}[server]", "hpack")
    session.install("--no-deps", "grpcio==1.85.3")
    session.run("python", "-m", "tests.packaging.affected_grpc")


@nox.session(python=PYTHONS)
@nox.parametrize("airflow", [nox.param(name, id=f"airflow {name}") for name in AIRFLOWS])
def provider(session: nox.Session, airflow: str) -> None:
    """The provider inside an Airflow: imports without a warning, is listed, passes its tests."""
    requirement, date = AIRFLOWS[airflow]
    options = ["--exclude-newer", date, *_YOUNGER] if date else []
    tests = ["pytest", "pytest-asyncio", "pytest-timeout", "psutil", "hpack", "hypothesis"]
    session.install(*options, f"{_wheel(session)}[server]", requirement, *tests)
    env = {"AIRFLOW_HOME": str(Path(session.create_tmp()).resolve())}
    session.run("python", "tests/packaging/import_provider.py", env=env)
    session.run("python", "-m", "pytest", "tests/airflow", *session.posargs, env=env)


@nox.session(python=PYTHONS, default=False)
def costs(session: nox.Session) -> None:
    """Record anew what operations cost, which tests/costs guards."""
    session.install("-c", "constraints.txt", f"{_wheel(session)}[server]", "psutil")
    session.run("python", "-m", "tests.costs.record")
