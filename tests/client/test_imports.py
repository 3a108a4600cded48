"""What a DAG file imports must not load gRPC: a scheduler parses DAG files all day."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["remsvc.client", "remsvc.client.options", "remsvc.client.target", "remsvc.errors"]
)
def test_light_modules_load_no_grpc(module: str) -> None:
    heavy = ("grpc", "google.protobuf", "ssl", "ngh2")
    script = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True
    )
    assert run.stdout == "[]\n"


def test_the_package_offers_its_public_names() -> None:
    import remsvc.client

    for name in remsvc.client.__all__:
        assert getattr(remsvc.client, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        remsvc.client.Nothing  # noqa: B018
