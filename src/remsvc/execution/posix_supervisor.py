"""Finds the supervisor of a state directory, or starts one, and waits for its end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import remsvc
from remsvc.errors import ExecutionError
from remsvc.execution.supervisor.cgroup import GroupParent
from remsvc.execution.supervisor.link import connect, is_alive

# The engine's own: who reads the log need not know that it has this part.
_logger = logging.getLogger("remsvc.execution.posix")

# -I: neither the working directory nor the environment may decide which code a root process runs.
# -S: nor what is installed; the supervisor needs the standard library alone.
_BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from remsvc.execution.supervisor.main import main; main(int(sys.argv[2]), *sys.argv[3:])"
)
_ROOT = str(Path(remsvc.__file__).resolve().parents[1])
# All of the server's environment that the supervisor gets: it holds secrets, and a command may see it.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH")
_CLOSE_SECONDS = 10.0
_REACH_SECONDS = 10.0  # a supervisor whose socket was removed makes it anew within a second
_REACH_AGAIN_SECONDS = 0.1


class SupervisorProcess:
    """The process at the other end of an engine's connection, which it has found or started.

    Args:
        state_dir: where a supervisor that outlives this process listens; None for one that does not.
        groups: where control groups for commands can be had; None for nowhere.
    """

    def __init__(self, state_dir: Path | None, groups: GroupParent | None) -> None:
        self._state_dir = state_dir
        self._groups = groups
        self._process: subprocess.Popen[bytes] | None = None
        self._launched: socket.socket | None = None

    @property
    def is_child(self) -> bool:
        """Whether it was started here, and not found."""
        return self._process is not None

    def launch(self) -> None:
        """Start one, where there is none. :meth:`connect` gives the connection to it.

        Raises:
            ExecutionError: it cannot be started.
        """
        if not Path("/proc/self/fd").exists():
            raise ExecutionError("there is no /proc here, which commands cannot do without: mount it first")
        try:
            self._launched = self._connect()
            alive = self._launched is not None or self._is_alive()
        except OSError:
            return  # it is there, and may be reached in a moment: connect() tries again
        if not alive:
            self._launched = self.start()

    async def connect(self) -> socket.socket:
        """A connection to the one that there is; where there is none, to a new one.

        Raises:
            ExecutionError: there is one, and it cannot be reached; or none can be started.
        """
        connection, self._launched = self._launched, None
        return connection or await self._reach() or self.start()

    def start(self) -> socket.socket:
        """Start one, whether there is one or not; the connection to it. Raises :class:`ExecutionError`."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise ExecutionError(f"the supervisor could not be started: {error}") from error
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", "-c", _BOOTSTRAP, _ROOT, str(theirs.fileno())),
                        *(str(self._state_dir or ""), self._groups.to_argument() if self._groups else ""),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise ExecutionError(f"the supervisor could not be started: {error}") from error
        return ours

    async def wait_until_gone(self) -> None:
        """Wait until the one that was found has ended. Raises :class:`ExecutionError`: it lives on."""
        deadline = time.monotonic() + _REACH_SECONDS
        while self._is_alive():
            if time.monotonic() > deadline:
                raise ExecutionError(f"{self._state_dir}: its supervisor lives, and takes no server")
            await asyncio.sleep(_REACH_AGAIN_SECONDS)

    def let_go(self) -> None:
        """Close the connection that :meth:`launch` has made, where nobody has asked for it."""
        if self._launched is not None:
            self._launched.close()
            self._launched = None

    async def wait_for_end(self, *, jobs_running: bool) -> None:
        """Wait until the one that was started here has ended, which was told to.

        Args:
            jobs_running: it has durable jobs, and so outlives this process: it is not waited for.
        """
        process, self._process = self._process, None
        if process is not None and jobs_running:
            process.returncode = 0  # nobody here waits for it
        elif process is not None:
            try:
                await asyncio.to_thread(process.wait, _CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.wait)

    async def kill(self) -> None:
        """End the one that was started here at once, if any was."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    def _is_alive(self) -> bool:
        return self._state_dir is not None and is_alive(self._state_dir)

    def _connect(self) -> socket.socket | None:
        return connect(self._state_dir) if self._state_dir is not None else None

    async def _reach(self) -> socket.socket | None:
        """Connect to the one that is there; None where there is none.

        Raises:
            ExecutionError: there is one, and it cannot be reached.
        """
        if self._state_dir is None:
            return None
        deadline = time.monotonic() + _REACH_SECONDS
        while True:
            busy = False
            try:
                if (connection := self._connect()) is not None or not self._is_alive():
                    return connection
            except BlockingIOError:
                busy = True
            except OSError as error:
                raise ExecutionError(f"{self._state_dir}: no supervisor can be reached: {error}") from error
            if time.monotonic() > deadline:
                if busy:
                    raise ExecutionError(f"{self._state_dir}: the supervisor takes no connection")
                _logger.error("%s: the supervisor cannot be reached, its jobs are lost", self._state_dir)
                return None
            await asyncio.sleep(_REACH_AGAIN_SECONDS)
