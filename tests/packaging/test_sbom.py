"""The software bill of materials names everything that the server is installed with."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> bytes:
    command = [sys.executable, "scripts/make_sbom.py", *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout


def test_it_names_what_the_server_needs_and_nothing_else() -> None:
    bill: dict[str, Any] = json.loads(make())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "airflow-provider-remsvc"
    versions = {part["name"]: part["version"] for part in bill["components"]}
    for name in ("grpcio", "protobuf", "google-re2", "click", "cryptography", "rich"):
        assert versions[name] == version(name)
    assert not {"pytest", "apache-airflow", "hypothesis"} & versions.keys()
    refs = {part["bom-ref"] for part in (bill["metadata"]["component"], *bill["components"])}
    assert {entry["ref"] for entry in bill["dependencies"]} == refs
    assert {ref for entry in bill["dependencies"] for ref in entry["dependsOn"]} <= refs


def test_the_base_install_is_two_packages_and_what_they_need() -> None:
    bill = json.loads(make("--extra", ""))
    (own,) = (entry for entry in bill["dependencies"] if "airflow-provider-remsvc" in entry["ref"])
    assert [ref.partition("@")[0] for ref in own["dependsOn"]] == ["pkg:pypi/grpcio", "pkg:pypi/protobuf"]


def test_the_same_environment_gives_the_same_bytes(tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"wheel")
    first = make("--wheel", str(wheel))
    assert first == make("--wheel", str(wheel))
    assert hashlib.sha256(b"wheel").hexdigest() in first.decode()
    wheel.write_bytes(b"another")
    assert first != make("--wheel", str(wheel))
