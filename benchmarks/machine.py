"""The machine that the figures are of."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import grpc

_SYNCS = 50


def describe(folder: Path) -> dict[str, str]:
    """What to know about this machine, in words; ``folder`` is on the disk that is measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "protobuf": version("protobuf"),
        "remsvc": _revision(),
        "disk": f"{_file_system(folder)}, {sync_ms(folder):.2f} ms for an append of 4 KiB and its fsync",
        "load": ", ".join(f"{load:.2f}" for load in os.getloadavg()) + " at the start",
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _revision() -> str:
    """The version, and the commit where there is one."""
    root = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return version("airflow-provider-remsvc")
    return f"{version('airflow-provider-remsvc')} ({described.strip()})"


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, point, name, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, name
    return kind


def sync_ms(folder: Path) -> float:
    """Milliseconds that an append and its fsync take; the median of some."""
    path = folder / "sync"
    taken = []
    with path.open("ab", buffering=0) as file:
        for _ in range(_SYNCS):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - started)
    path.unlink()
    return statistics.median(taken) * 1000


if __name__ == "__main__":
    for key, value in describe(Path.cwd()).items():
        sys.stdout.write(f"{key}: {value}\n")
