"""The console script ``remsvc``, also as ``python -m remsvc``."""

from __future__ import annotations

import sys

from remsvc.cli.quick import run_quickly
from remsvc.cli.standard_streams import prepare


def main() -> None:
    """Run the command line; without its libraries, say how to install them."""
    prepare()
    run_quickly(sys.argv[1:])
    try:
        from remsvc.cli.main import main as command_line
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("click", "rich"):
            raise
        print(  # noqa: T201
            f"remsvc: the command line needs {error.name}: pip install 'airflow-provider-remsvc[cli]'",
            file=sys.stderr,
        )
        sys.exit(255)
    command_line()


if __name__ == "__main__":
    main()
