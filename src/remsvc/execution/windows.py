"""The engine on Windows: runs commands in job objects, from a thread with an event loop of its own.

That loop, on an I/O completion port, starts the commands, reads their output and waits for their end. So the
server's event loop is never held up, and a command needs no thread of its own.
"""

from __future__ import annotations

import sys

# ruff: noqa: E402
# Above the imports: elsewhere, type checkers then skip the rest.
assert sys.platform == "win32"

import asyncio
import codecs
import concurrent.futures
import logging
import msvcrt
import os
import subprocess
import threading
from asyncio.windows_events import IocpProactor, ProactorEventLoop
from asyncio.windows_utils import PIPE, PipeHandle, Popen
from pathlib import Path
from typing import Any

from remsvc.errors import ExecutionError, StartError
from remsvc.execution.engine import Output, Process, ProcessEnd, ProcessSpec
from remsvc.execution.shell import command_line
from remsvc.execution.supervisor.protocol import DRAIN_GRACE
from remsvc.execution.windows_job import JobObject

_logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0
_DRAIN_STEPS = 10
_CREATE_SUSPENDED = 0x4


class WindowsEngine:
    """Starts processes in job objects; see :class:`remsvc.execution.engine.Engine`."""

    can_start_after = False
    trees = ""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._loop: _Loop | None = None

    async def open(self) -> None:
        # Commands inherit this: a box on a screen that nobody sees must not hold them up.
        msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)
        ready: concurrent.futures.Future[_Loop] = concurrent.futures.Future()
        self._thread = threading.Thread(target=_run_loop, args=(ready,), name="commands", daemon=True)
        self._thread.start()
        try:
            self._loop = await asyncio.wrap_future(ready)
        except OSError as error:
            raise ExecutionError(f"the thread that runs commands cannot work: {error}") from error

    def start(self, spec: ProcessSpec, after: Process | None = None) -> WindowsProcess:
        return WindowsProcess(spec, self._loop)

    async def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(loop.end_all(), loop))
            loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)


class WindowsProcess:
    """A process in its job object. See :class:`remsvc.execution.engine.Process`."""

    def __init__(self, spec: ProcessSpec, loop: _Loop | None) -> None:
        self._spec = spec
        self._loop = loop
        self._job: JobObject | None = None
        self._end_wanted = False
        self._timed_out = False
        self._outcome: concurrent.futures.Future[ProcessEnd]
        if loop is None:
            self._outcome = concurrent.futures.Future()
            self._outcome.set_exception(StartError("the thread that starts commands is not running"))
        else:
            self._outcome = asyncio.run_coroutine_threadsafe(self._run(loop), loop)

    async def wait(self) -> ProcessEnd:
        return await asyncio.shield(asyncio.wrap_future(self._outcome))

    def end(self) -> None:
        if self._loop is not None and not self._outcome.done():
            self._loop.call_soon_threadsafe(self.end_now)

    @property
    def withdrawn(self) -> bool:
        return False

    def withdraw(self) -> None:
        """It has started: none waits for another one."""

    # The rest runs in the engine's thread.

    def end_now(self) -> None:
        self._end_wanted = True
        if self._job is not None:
            self._job.terminate()

    def _time_out(self) -> None:
        self._timed_out = True
        self.end_now()

    async def _run(self, loop: _Loop) -> ProcessEnd:
        loop.running.add(self)
        try:
            if self._end_wanted:
                raise StartError("the command was ended before it was started")
            self._job = JobObject()
            outcome = await self._run_in(self._job, loop)
            if not self._end_wanted:
                # What a command leaves running in the background stays, as it does on POSIX.
                self._job.release()
            return outcome
        except OSError as error:
            raise ExecutionError(f"the command cannot be watched: {error}") from error
        except asyncio.CancelledError as error:
            raise ExecutionError("the command's process cannot be ended: it is left behind") from error
        finally:
            if self._job is not None:
                self._job.close()
                self._job = None
            loop.running.discard(self)

    async def _run_in(self, job: JobObject, loop: _Loop) -> ProcessEnd:
        process = _start(self._spec, job)
        stdout, stderr = (_Stream(loop, self._spec.output_limit) for _ in range(2))
        timer = None
        if self._spec.time_limit is not None:
            timer = loop.call_later(self._spec.time_limit, self._time_out)
        try:
            await stdout.read_from(process.stdout)
            await stderr.read_from(process.stderr)
            await loop.proactor.wait_for_handle(_handle(process))
            if timer is not None:
                timer.cancel()
            # In steps: each reads on, however long this thread was kept from running meanwhile.
            for _ in range(_DRAIN_STEPS):
                await asyncio.wait((stdout.ended, stderr.ended), timeout=DRAIN_GRACE / _DRAIN_STEPS)
            exit_code = process.wait()
        finally:
            if timer is not None:
                timer.cancel()
            stdout.close()
            stderr.close()
            _handle(process).Close()
        # Windows counts exit codes without a sign, people and the wire (int32) with one: a crash
        # is -1073741819, not 3221225477.
        exit_code = exit_code - 2**32 if exit_code >= 2**31 else exit_code
        return ProcessEnd(exit_code, None, self._timed_out, stdout.output(), stderr.output())


class _Loop(ProactorEventLoop):
    """The event loop of the engine's thread, and the processes that it runs."""

    def __init__(self) -> None:
        self.proactor: Any = IocpProactor()  # Any: typeshed gets wait_for_handle() wrong
        self.running: set[WindowsProcess] = set()
        super().__init__(self.proactor)

    async def end_all(self) -> None:
        """End every process and wait until it is gone."""
        this_task = asyncio.current_task()
        for process in self.running:
            process.end_now()
        tasks = asyncio.all_tasks() - {this_task}
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
            for task in left:
                task.cancel()
            if left:
                _logger.error("%d commands cannot be ended: their processes are left behind", len(left))
                await asyncio.wait(left)


def _run_loop(ready: concurrent.futures.Future[_Loop]) -> None:
    try:
        loop = _Loop()
    except OSError as error:
        ready.set_exception(error)
        return
    loop.call_soon(ready.set_result, loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


class _Stream(asyncio.Protocol):
    """One output stream of a process."""

    def __init__(self, loop: _Loop, limit: int) -> None:
        self._loop = loop
        self._limit = limit
        self._head = bytearray()
        self._total = 0
        self._transport: asyncio.ReadTransport | None = None
        self.ended: asyncio.Future[None] = loop.create_future()

    async def read_from(self, pipe: PipeHandle | None) -> None:
        self._transport, _ = await self._loop.connect_read_pipe(lambda: self, pipe)

    def data_received(self, data: bytes) -> None:
        self._total += len(data)
        if (room := self._limit - len(self._head)) > 0:
            self._head += data[:room]

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def output(self) -> Output:
        head = _utf8(bytes(self._head), complete=self._total == len(self._head))
        total = self._total + len(head) - len(self._head)
        return Output(head[: self._limit], total)


def _start(spec: ProcessSpec, job: JobObject) -> Popen[bytes]:
    """Start the process inside the job. Raises StartError; then nothing ran and nothing is left."""
    program = _find_program(spec)
    try:
        process = Popen[bytes](
            command_line(spec.argv),
            executable=program,
            stdin=subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            cwd=spec.cwd if Path(spec.cwd).is_dir() else Path(program).anchor,
            env=dict(spec.env),
            # A console of its own, without a window: what a command does to its console (its code
            # page, Ctrl-C to all who share it) reaches neither the server nor other commands.
            creationflags=_CREATE_SUSPENDED | subprocess.CREATE_NO_WINDOW,
        )
    except OSError as error:
        raise StartError(f"{spec.argv[0]} cannot be started: {error.strerror}") from error
    try:
        job.start(_handle(process))
    except OSError as error:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        raise StartError(f"{spec.argv[0]} cannot be started in a job object: {error}") from error
    return process


def _find_program(spec: ProcessSpec) -> str:
    name = spec.argv[0]
    if Path(name).is_absolute():
        return name
    # Not left to CreateProcess: it would look in the server's own folders first.
    folders = next((value for key, value in spec.env.items() if key.upper() == "PATH"), "")
    for folder in filter(None, folders.split(os.pathsep)):
        for suffix in ("", ".exe", ".com"):
            path = Path(folder, name + suffix)
            if path.is_absolute() and path.is_file():
                return str(path)
    raise StartError(f"{name} cannot be started: there is no such program in PATH")


def _handle(process: Popen[bytes]) -> Any:
    return process._handle  # type: ignore[attr-defined]  # the only name it has; asyncio uses it too


def _utf8(data: bytes, complete: bool) -> bytes:
    """Console programs write UTF-8, or text in the OEM code page: each line is taken as what it is.

    A line of the former is left alone, any other converted. ``complete`` says that the last line
    was not cut (perhaps in a character).
    """
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, complete)
        return data
    except UnicodeDecodeError:
        lines = data.splitlines(keepends=True)
    last = len(lines) - 1
    for number, line in enumerate(lines):
        try:
            codecs.getincrementaldecoder("utf-8")().decode(line, complete or number < last)
        except UnicodeDecodeError:
            lines[number] = line.decode("oem", "replace").encode()
    return b"".join(lines)
