"""A real server in a process of its own: plaintext, or with TLS and a token; its memory, threads and CPU."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import psutil

from benchmarks.settings import Settings
from remsvc.client.grpc_transport.channel import open_async_channel, open_channel
from remsvc.client.metadata import call_metadata
from remsvc.client.options import ConnectionOptions
from remsvc.status import Metadata

if TYPE_CHECKING:
    from typing_extensions import Self

_READY = b"listening on "
_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
_MB = 1e6


@dataclass(frozen=True)
class Memory:
    """Megabytes (1,000,000 bytes) of the server, and of its supervisors together."""

    server: float
    supervisors: float

    @property
    def total(self) -> float:
        return self.server + self.supervisors


class Server:
    """``remsvc serve`` on a free port of this machine, with a state directory of its own. A context manager.

    Leaving it ends the server, its supervisors and every command.

    Args:
        settings: of this run.
        name: for its folder.
        secured: with TLS and a token, as ``remsvc init`` sets them up.
        config: sections to add to its configuration, except ``[server]``, ``[tls]`` and ``[auth]``.
        server_keys: lines for the section ``[server]``.
        state_dir: use this one, in place of a new one.
        host: the address that it listens on.

    Attributes:
        options: how clients reach it.
        process: the server's own process.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        *,
        secured: bool = False,
        config: str = "",
        server_keys: str = "",
        state_dir: Path | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.folder = settings.new_folder(name)
        self.state_dir = state_dir or self.folder / "state"
        self._secured = secured
        tls = _secure(self.folder / "init", host) if secured else ""
        text = f"[server]\nhost = {host}\nport = 0\n{server_keys}\n{tls}\n[log]\nlevel = warning\n{config}\n"
        self._config = self.folder / "server.ini"
        self._config.write_text(text, encoding="utf-8")
        self.options = ConnectionOptions("")
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """The command line that starts it."""
        serve = [sys.executable, "-m", "remsvc", "serve", "--config", str(self._config)]
        return [*serve, "--state-dir", str(self.state_dir)]

    @property
    def log(self) -> str:
        """What it has written to standard error."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        with (self.folder / "log").open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.options = self._reach(self._first_line())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, its supervisors, and whatever they run."""
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_STOP_SECONDS)
        finally:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
            self._end_supervisors()

    # What clients need

    @property
    def metadata(self) -> Metadata:
        """The metadata of each call: the token, where there is one."""
        return call_metadata(self.options)

    def channel(self) -> grpc.Channel:
        """A new channel for blocking calls, as the client opens it."""
        return open_channel(self.options)

    def async_channel(self) -> grpc.aio.Channel:
        """A new channel for asyncio, as the client opens it."""
        return open_async_channel(self.options)

    @property
    def run_true(self) -> list[str]:
        """The command line of ``remsvc run -- true`` to it."""
        command = [str(Path(sys.executable).with_name("remsvc")), "run", "--server", self.options.target]
        if self.options.ca_cert is not None:
            command += ["--ca-cert", str(self.options.ca_cert)]
            command += ["--token-file", str(self.options.ca_cert.with_name("token"))]
        return [*command, "--", "true"]

    # What it takes

    @property
    def process(self) -> psutil.Process:
        assert self._child is not None
        return psutil.Process(self._child.pid)

    @property
    def supervisors(self) -> list[psutil.Process]:
        """The processes below it that are Python as well: commands never are, here."""
        ours = self.process.exe()
        found = []
        for process in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.exe() == ours:
                    found.append(process)
        return found

    def memory(self) -> Memory:
        """Resident now."""
        return self._memory("VmRSS")

    def pss(self) -> Memory:
        """Resident now, with pages that processes share counted in part for each."""
        return Memory(_pss(self.process.pid), sum(_pss(process.pid) for process in self.supervisors))

    def peak_memory(self) -> Memory:
        """The most that was resident, since :meth:`forget_peak`: of each process on its own."""
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        """Let the peak begin anew."""
        for process in (self.process, *self.supervisors):
            Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")

    def threads(self) -> int:
        """Of the server and its supervisors."""
        return sum(process.num_threads() for process in (self.process, *self.supervisors))

    def cpu_seconds(self) -> float:
        """Processor time that the threads of the server and its supervisors have taken so far."""
        return sum(_cpu_seconds(process.pid) for process in (self.process, *self.supervisors))

    def own_cpu_seconds(self) -> float:
        """The server's alone, without its supervisors'."""
        return _cpu_seconds(self.process.pid)

    def _memory(self, key: str) -> Memory:
        return Memory(
            _status(self.process.pid, key), sum(_status(process.pid, key) for process in self.supervisors)
        )

    # Its life

    def _first_line(self) -> str:
        """HOST:PORT, from the line that says that it listens."""
        assert self._child is not None
        assert self._child.stdout is not None
        line, until = b"", time.monotonic() + _START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise RuntimeError(f"the server did not start in time: {self.log}")
                piece = os.read(self._child.stdout.fileno(), 1024)
                if not piece:
                    raise RuntimeError(f"the server did not start: {self.log}")
                line += piece
        return line.removeprefix(_READY).decode().strip()

    def _reach(self, target: str) -> ConnectionOptions:
        if not self._secured:
            return ConnectionOptions(target)
        init = self.folder / "init"
        token = (init / "token").read_text(encoding="utf-8").strip()
        return ConnectionOptions(target, tls=True, ca_cert=init / "ca.pem", token=token)

    def _end_supervisors(self) -> None:
        """They outlive a server that has jobs, and a server that crashed."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                arguments = process.cmdline()
                if "-I" in arguments and str(self.state_dir) in arguments:
                    process.suspend()
                    for descendant in process.children(recursive=True):
                        descendant.kill()
                    process.kill()


def _secure(folder: Path, host: str) -> str:
    """What ``remsvc init`` puts into its configuration about TLS and tokens."""
    command = [sys.executable, "-m", "remsvc", "init", str(folder), "--host", host, "--json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, timeout=_START_SECONDS, check=True)
    text = Path(json.loads(result.stdout)["config"]).read_text(encoding="utf-8")
    return text[text.index("[tls]") :]


def _status(pid: int, key: str) -> float:
    """A size from /proc/PID/status, in MB; 0 for a process that is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024 / _MB
    return 0.0


def _pss(pid: int) -> float:
    """From /proc/PID/smaps_rollup, in MB; 0 for a process that is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / _MB
    return 0.0


def _cpu_seconds(pid: int) -> float:
    """Of all threads of a process, to the nanosecond: the times of /proc/PID/stat go by hundredths."""
    nanoseconds = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            nanoseconds += int((thread / "schedstat").read_text(encoding="ascii").split()[0])
    return nanoseconds / 1e9


class PingProbe:
    """Pings a server every 10 ms from a process of its own, while something else goes on.

    A context manager; ``latencies_ms`` is there after it.
    """

    def __init__(self, server: Server) -> None:
        self._options = server.options
        self.latencies_ms: list[float] = []

    def __enter__(self) -> Self:
        options = self._options
        arguments = {
            "target": options.target,
            "tls": options.tls,
            "ca_cert": str(options.ca_cert) if options.ca_cert else None,
            "token": options.token,
        }
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ping"],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(arguments).encode() + b"\n")
        self._child.stdin.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                answer, _ = self._child.communicate(timeout=_STOP_SECONDS)
                self.latencies_ms = json.loads(answer)
        finally:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
