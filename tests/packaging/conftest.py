"""The distributions, built once from this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an sdist of this checkout and the wheel that was built from that sdist."""
    directory = tmp_path_factory.mktemp("distributions")
    _build(directory)
    return directory


@pytest.fixture(scope="session")
def sdist(distributions: Path) -> Path:
    (path,) = distributions.glob("*.tar.gz")
    return path


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def wheel_of_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from a checkout, without an sdist in between.

    From a copy: the build writes the stubs into its source tree, which other tests run from. With
    another umask, time zone and locale, because none of that may be in a wheel.
    """
    checkout = tmp_path_factory.mktemp("checkout") / "copy"
    shutil.copytree(
        ROOT, checkout, ignore=shutil.ignore_patterns(".git", ".venv*", ".nox", ".*_cache", "dist")
    )
    directory = tmp_path_factory.mktemp("wheel")
    umask = os.umask(0o077)
    try:
        _build(directory, "--wheel", source=checkout, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="1")
    finally:
        os.umask(umask)
    (path,) = directory.glob("*.whl")
    return path


def _build(directory: Path, *options: str, source: Path = ROOT, **variables: str) -> None:
    command = [sys.executable, "-m", "build", *options, "--outdir", str(directory), str(source)]
    # As `make build` does it: with the pinned build requirements.
    environment = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints-build.txt"), **variables}
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stdout
