"""Say clearly why an interpreter cannot be used. Runs on any Python, even version 2."""

# ruff: noqa: UP031, UP036, RUF005 - for the same reason

import sys

if sys.version_info < (3, 10):
    sys.exit(
        "Python 3.10 or newer is needed, and %s is %d.%d.\n"
        "Name another one: make PYTHON=python3.12" % ((sys.executable,) + sys.version_info[:2])
    )

try:
    import ensurepip  # noqa: F401
    import ssl  # noqa: F401
    import venv  # noqa: F401
except ImportError as error:
    sys.exit(
        "%s lacks a part of its standard library: %s.\nOn Debian: apt-get install python3-venv"
        % (sys.executable, error)
    )
