"""Importing any part of the project opens no connection and starts nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import sys
forbidden = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen",
             "os.system", "os.exec", "os.posix_spawn", "urllib.Request", "http.client.connect"}
def watch(event, arguments):
    if event in forbidden:
        sys.stderr.write(f"{event} {arguments!r}\\n")
        sys.stderr.flush()
        import os
        os._exit(3)
sys.addaudithook(watch)
import importlib, pkgutil
package = importlib.import_module(sys.argv[1])
skipped = {
    "remsvc.execution.windows", "remsvc.execution.windows_job", "remsvc.server.windows_service",
    "remsvc.cli.service", "remsvc.__main__", "remsvc.execution.supervisor.main",
}
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name not in skipped:
        importlib.import_module(module.name)
"""


@pytest.mark.parametrize("package", ["remsvc", "remsvc_proto"])
def test_no_network_and_no_process_at_import(package: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, package], capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 0, ended.stderr
