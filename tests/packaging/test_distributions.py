"""What the sdist and the wheel hold and declare."""

from __future__ import annotations

import email
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # building installs the build requirements

PACKAGES = {"remsvc", "remsvc_proto", "remsvc_provider"}


def wheel_files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def dist_info(wheel: Path, name: str) -> str:
    (content,) = (
        content for path, content in wheel_files(wheel).items() if path.endswith(f".dist-info/{name}")
    )
    return content.decode()


def metadata(wheel: Path) -> Message:
    return email.message_from_string(dist_info(wheel, "METADATA"))


def test_the_wheel_is_one_for_all_pythons_and_platforms(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "Root-Is-Purelib: true" in dist_info(wheel, "WHEEL")
    assert not [name for name in wheel_files(wheel) if name.endswith((".so", ".pyd", ".pyc"))]


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in wheel_files(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert len(tops) == len(PACKAGES) + 1


def test_the_wheel_holds_the_generated_stubs(wheel: Path) -> None:
    files = wheel_files(wheel)
    for name in ("RemSvc_pb2.py", "RemSvc_pb2.pyi", "RemSvc_pb2_grpc.py"):
        assert files[f"remsvc_proto/{name}"]


def test_the_packages_are_marked_as_typed(wheel: Path) -> None:
    files = wheel_files(wheel)
    assert "remsvc/py.typed" in files
    assert "remsvc_provider/py.typed" in files


def test_the_sdist_holds_no_generated_stubs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert not [name for name in names if "_pb2" in name]
    assert [name for name in names if name.endswith("proto/RemSvc.proto")]


def test_a_wheel_is_the_same_whether_built_from_the_checkout_or_from_the_sdist(
    wheel: Path, wheel_of_checkout: Path
) -> None:
    assert wheel_files(wheel) == wheel_files(wheel_of_checkout)
    assert wheel.read_bytes() == wheel_of_checkout.read_bytes()


def test_the_base_install_needs_grpcio_and_protobuf_alone(wheel: Path) -> None:
    requirements = metadata(wheel).get_all("Requires-Dist", [])
    base = sorted(requirement for requirement in requirements if "extra ==" not in requirement)
    assert base == ["grpcio<2,>=1.67", "protobuf<8,>=5.28"]


def test_a_server_needs_a_grpc_that_no_packet_ends(wheel: Path) -> None:
    requirements = [text.partition(";") for text in metadata(wheel).get_all("Requires-Dist", [])]
    needed = sorted(text for text, _, marker in requirements if "grpc" in text and "'server'" in marker)
    names = ("grpcio-health-checking", "grpcio-reflection", "grpcio")
    assert needed == [f"{name}<1.84,>=1.67" for name in names]


def test_name_license_and_python_are_declared(wheel: Path) -> None:
    fields = metadata(wheel)
    assert fields["Name"] == "airflow-provider-remsvc"
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["Requires-Python"] == ">=3.10"
    assert "Apache License" in dist_info(wheel, "licenses/LICENSE")


def test_the_entry_points_are_declared(wheel: Path) -> None:
    lines = dist_info(wheel, "entry_points.txt").splitlines()
    assert "remsvc = remsvc.__main__:main" in lines
    assert lines[lines.index("[apache_airflow_provider]") + 1].endswith("= remsvc_provider:get_provider_info")
