"""Record what a terminal shows of RemSvc as ``docs/images/terminal.svg``: a picture that plays once.

A real server, real commands: each line appears as long after the one before as it did here.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from local_airflow import BackgroundProcess
from secured_server import SecuredServer

if TYPE_CHECKING:
    from typing_extensions import Self

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "terminal.svg"
COLUMNS = 90
STORY = (
    "remsvc run -- 'for n in 1 2 3; do echo copying file $n; sleep 1; done'",
    "job=$(remsvc run --detach -- 'for n in 1 2 3 4 5 6; do echo line $n; sleep 1; done')",
    "kill -9 $(cat server.pid)    # the server is killed; the job goes on",
    "remsvc jobs logs -f $job     # the service manager has started the server again",
    "remsvc jobs list",
)
READING_SECONDS = 1.5
"""After a command's last line, before the next command."""
_DEADLINE = 60.0
_MARK = "-- end of command --"
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|\r")
_WIDTH, _HEIGHT, _MARGIN = 8.43, 20, 16


@dataclass(frozen=True)
class Line:
    """A line on the screen.

    Attributes:
        seconds: since the beginning, when it appeared.
        text: its text.
        typed: whether a person has typed it.
    """

    seconds: float
    text: str
    typed: bool = False


class Shell:
    """A shell in a terminal. A context manager."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._terminal, side = pty.openpty()
        self._process = subprocess.Popen(
            ["/bin/bash", "--norc", "--noprofile", "--noediting"],
            stdin=side,
            stdout=side,
            stderr=side,
            cwd=folder,
            env={**environment, "PS1": "", "TERM": "dumb", "COLUMNS": str(COLUMNS), "NO_COLOR": "1"},
            start_new_session=True,
        )
        os.close(side)
        list(self.run("stty -echo"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._terminal)

    def run(self, command: str) -> Iterator[str]:
        """Run a command and yield each line of its output as it comes.

        Raises:
            TimeoutError: it does not end.
        """
        os.write(self._terminal, f"{command}\necho '{_MARK}'\n".encode())
        deadline, rest = time.monotonic() + _DEADLINE, b""
        while time.monotonic() < deadline:
            if not select.select([self._terminal], [], [], 0.1)[0]:
                continue
            *lines, rest = (rest + os.read(self._terminal, 65536)).split(b"\n")
            for line in lines:
                text = _CONTROL.sub(b"", line).decode().rstrip()
                if text == _MARK:
                    return
                if _MARK not in text:
                    yield text
        raise TimeoutError(f"{command} does not end")


def start_server(folder: Path) -> BackgroundProcess:
    """Start the server whose files are in ``folder``; it is ready when this returns."""
    command = [sys.executable, "-m", "remsvc", "serve", "--config", str(folder / "server.ini")]
    process = BackgroundProcess(
        "remsvc serve", command, env=os.environ, cwd=folder, log_path=folder / "server.log"
    )
    process.wait_for_line("listening on ", _DEADLINE)
    (folder / "server.pid").write_text(str(process.pid), encoding="utf-8")
    (folder / "server.log").write_text("", encoding="utf-8")
    return process


def record(folder: Path) -> list[Line]:
    """Play the story, and note what a screen would have shown, and when."""
    files = SecuredServer(folder)
    environment = {
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "REMSVC_SERVER": files.target,
        "REMSVC_CA_CERT": files.ca_cert,
        "REMSVC_TOKEN": files.token,
    }
    lines: list[Line] = []
    server = start_server(folder)
    try:
        with Shell(folder, environment) as shell:
            now, real = 0.0, time.monotonic()
            for command in STORY:
                if not server.running:
                    server = start_server(folder)
                now, real = now + READING_SECONDS, time.monotonic()
                lines.append(Line(now, command, typed=True))
                lines.extend(Line(now + time.monotonic() - real, text) for text in shell.run(command))
                now += time.monotonic() - real
                if command.startswith("kill"):
                    server.wait(_DEADLINE)
    finally:
        server.stop()
    return lines


def draw(lines: list[Line]) -> str:
    """The recording as SVG. Where nothing moves, all of it is shown."""
    width = round(COLUMNS * _WIDTH + 2 * _MARGIN)
    top = 2 * _MARGIN + 8
    height = top + len(lines) * _HEIGHT + _MARGIN
    shown = []
    for number, line in enumerate(lines):
        prompt = '<tspan class="prompt">$ </tspan>' if line.typed else ""
        kind = ' class="typed"' if line.typed else ""
        y = top + (number + 1) * _HEIGHT - 5
        text = escape(line.text[: COLUMNS - 2])
        shown.append(
            f'<text x="{_MARGIN}" y="{y}"{kind} style="animation-duration:{line.seconds:.2f}s">'
            f"{prompt}{text}</text>"
        )
    dots = "".join(
        f'<circle cx="{_MARGIN + 6 + 18 * number}" cy="18" r="5.5" fill="{colour}"/>'
        for number, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="A terminal: {escape(STORY[0])}">\n'
        "<style>text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#d6deeb;"
        "white-space:pre;animation-name:wait;animation-timing-function:step-end}"
        ".typed{fill:#fff;font-weight:600}.prompt{fill:#7fdbca}@keyframes wait{from{opacity:0}to{opacity:0}}"
        "</style>\n"
        f'<rect width="{width}" height="{height}" rx="9" fill="#011627"/>{dots}\n'
        + "\n".join(shown)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="remsvc-terminal-") as directory:
        PICTURE.write_text(draw(record(Path(directory, "server"))), encoding="utf-8")
    print(f"made {PICTURE}")
