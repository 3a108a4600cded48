"""The Windows Python that ``scripts/windows_python.sh`` makes, and servers running in it."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

FOLDER = Path(__file__).resolve().parents[3] / ".venv-windows"
PYTHON = str(FOLDER / "python.exe")
PREFIX = FOLDER / "prefix"
DEADLINE = 60.0


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "WINEPREFIX": str(PREFIX), "WINEDEBUG": "-all", **extra}


def windows_path(path: Path) -> str:
    """The path as Windows programs see it: Wine shows the root of the file system as drive Z:."""
    return "Z:" + str(path).replace("/", "\\")


def wine(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a Windows program to its end."""
    return subprocess.run(
        ["wine", *arguments],
        env=environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=DEADLINE,
        check=False,
    )


def remsvc(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in the Windows Python to its end."""
    return wine(PYTHON, "-m", "remsvc", *arguments, **environ)


@dataclass
class WindowsServer:
    """``remsvc serve`` in the Windows Python. Its process is also an ordinary one of this system."""

    process: subprocess.Popen[bytes]
    target: str = ""
    lines: list[str] = field(default_factory=list)
    """What it wrote to standard error so far."""

    @classmethod
    def start(cls, *flags: str, **environ: str) -> WindowsServer:
        process = subprocess.Popen(
            ["wine", PYTHON, "-m", "remsvc", "serve", *flags],
            env=environment(**environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        server = cls(process)
        assert process.stdout is not None
        assert process.stderr is not None
        threading.Thread(target=server._collect, args=(process.stderr,), daemon=True).start()
        with process.stdout as stdout:
            line = stdout.readline().decode()
        if not line.startswith("listening on "):
            server.stop()
            raise AssertionError(f"the server did not start: {line!r}\n" + "".join(server.lines))
        server.target = line.removeprefix("listening on ").strip()
        return server

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)

    def _collect(self, stderr: IO[bytes]) -> None:
        with stderr:
            for line in stderr:
                self.lines.append(line.decode(errors="replace"))


def processes(text: str) -> list[int]:
    """The ids of all processes with ``text`` in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if re.search(re.escape(text.encode()), command):
            found.append(int(folder.name))
    return found


def wait_until(condition: Callable[[], object], deadline: float = DEADLINE) -> None:
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
