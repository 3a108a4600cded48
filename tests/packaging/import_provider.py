"""Import the provider and let Airflow list it: ``python import_provider.py``.

Runs in an environment that holds the wheel and an Airflow, whichever version. A warning while
one of the provider's modules is imported is an error; Airflow's own imports may warn.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
import warnings
from importlib.metadata import version

EXPECTED = {
    "package_name": "airflow-provider-remsvc",
    "description": "Remote command execution for Apache Airflow via RemSvc gRPC",
    "version": version("airflow-provider-remsvc"),
}


def main() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("airflow.exceptions", "airflow.sdk", "airflow.triggers.base"):
            importlib.import_module(name)
        importlib.import_module("airflow.sdk").BaseOperator  # noqa: B018 - imported when it is asked for
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        package = importlib.import_module("remsvc_provider")
        modules = [module.name for module in pkgutil.walk_packages(package.__path__, "remsvc_provider.")]
        for name in modules:
            importlib.import_module(name)
    assert len(modules) > 3, modules

    command = [sys.executable, "-m", "airflow", "providers", "list", "--output", "json"]
    listing = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    providers = json.loads(listing[listing.index("[{") :])
    assert EXPECTED in providers, listing
    print(f"imported {len(modules)} modules on Airflow {version('apache-airflow')} without a warning; listed")


if __name__ == "__main__":
    main()
