"""The software bill of materials (CycloneDX 1.6, JSON): what the wheel is installed with.

    python scripts/make_sbom.py [--wheel FILE] [--extra server] > sbom.cdx.json

Says which versions are installed in this environment, and what each needs. The same environment and
wheel give the same bytes; SOURCE_DATE_EPOCH dates it, and without that it has no date.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "airflow-provider-remsvc"
_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of URLs, RFC 9562


def needed(of: Distribution, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """What a distribution needs here with some of its extras: names, and the extras of those."""
    for text in of.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def resolve(extras: frozenset[str]) -> dict[str, tuple[Distribution, set[str]]]:
    """Every distribution that the project needs, with the names of those that it needs itself."""
    found: dict[str, tuple[Distribution, set[str]]] = {}
    waiting, seen = [(PROJECT, extras)], set[tuple[str, frozenset[str]]]()
    while waiting:
        item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        name, extras = item
        of = distribution(name)
        _, needs = found.setdefault(name, (of, set()))
        for other, others_extras in needed(of, extras):
            if other != name:
                needs.add(other)
            waiting.append((other, others_extras))
    return found


def component(name: str, of: Distribution) -> dict[str, Any]:
    """CycloneDX's description of a distribution."""
    purl = f"pkg:pypi/{name}@{of.version}"
    described: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": of.version,
        "purl": purl,
    }
    if expression := of.metadata.get_all("License-Expression"):
        described["licenses"] = [{"expression": expression[0]}]
    elif names := [
        line.rpartition("::")[2].strip()
        for line in of.metadata.get_all("Classifier", [])
        if line.startswith("License ::")
    ]:
        described["licenses"] = [{"license": {"name": text}} for text in sorted(names)]
    return described


def make(extras: frozenset[str], wheel: Path | None) -> dict[str, Any]:
    """The bill of materials.

    Raises:
        PackageNotFoundError: something is not installed here.
    """
    found = resolve(extras)
    parts = {name: component(name, of) for name, (of, _) in sorted(found.items())}
    project = {**parts.pop(PROJECT), "type": "application"}
    if wheel is not None:
        project["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    refs = {name: f"pkg:pypi/{name}@{of.version}" for name, (of, _) in found.items()}
    metadata: dict[str, Any] = {"component": project}
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        metadata["timestamp"] = datetime.fromtimestamp(int(epoch), timezone.utc).isoformat()
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata,
        "components": list(parts.values()),
        "dependencies": [
            {"ref": refs[name], "dependsOn": sorted(refs[other] for other in needs)}
            for name, (_, needs) in sorted(found.items())
        ],
    }
    content = json.dumps(document, sort_keys=True)
    return {**document, "serialNumber": uuid.uuid5(_NAMESPACE, content).urn}


def main() -> int:
    """Print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheel", type=Path, help="whose SHA-256 to state")
    parser.add_argument("--extra", action="append", default=[], help="with this extra; default: server")
    arguments = parser.parse_args()
    try:
        document = make(frozenset(arguments.extra or ["server"]), arguments.wheel)
    except PackageNotFoundError as error:
        print(f"make_sbom: not installed: {error.name}", file=sys.stderr)
        return 1
    print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
