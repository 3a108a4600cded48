"""Runs the server as a Windows service: answers what the service control manager asks of a process.

The service manager calls from threads of its own. The server keeps the main thread, because only there it
can handle signals. A request to stop reaches it as SIGTERM.
"""

from __future__ import annotations

import sys

# ruff: noqa: E402
# Above the imports: elsewhere, type checkers then skip the rest.
assert sys.platform == "win32"

import _thread
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from ctypes import wintypes
from pathlib import Path
from typing import Any

from remsvc.errors import ConfigurationError, RemSvcError

DEFAULT_NAME = "remsvc"

_SERVICE_WIN32_OWN_PROCESS = 0x10
_STOPPED, _START_PENDING, _STOP_PENDING, _RUNNING = 1, 2, 3, 4
_ACCEPT_STOP_AND_SHUTDOWN = 0x1 | 0x4
_CONTROL_STOP, _CONTROL_INTERROGATE, _CONTROL_SHUTDOWN = 1, 4, 5
_ERROR_CALL_NOT_IMPLEMENTED = 120
_ERROR_SERVICE_SPECIFIC_ERROR = 1066
_ERROR_FAILED_SERVICE_CONTROLLER_CONNECT = 1063
_EVENTLOG_ERROR_TYPE = 1

_CONNECT_SECONDS = 60.0
# How long the service manager should wait for the next step before it calls the service stuck.
_HINT_MILLISECONDS = 120_000


class ServiceError(RemSvcError):
    """The service control manager refused something."""


class _Status(ctypes.Structure):
    _fields_ = tuple(
        (name, wintypes.DWORD)
        for name in (
            *("dwServiceType", "dwCurrentState", "dwControlsAccepted", "dwWin32ExitCode"),
            *("dwServiceSpecificExitCode", "dwCheckPoint", "dwWaitHint"),
        )
    )


_ServiceMain = ctypes.WINFUNCTYPE(None, wintypes.DWORD, ctypes.POINTER(wintypes.LPWSTR))
_Handler = ctypes.WINFUNCTYPE(
    wintypes.DWORD, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID, wintypes.LPVOID
)


class _TableEntry(ctypes.Structure):
    _fields_ = (("lpServiceName", wintypes.LPWSTR), ("lpServiceProc", _ServiceMain))


_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
_advapi32.StartServiceCtrlDispatcherW.argtypes = (ctypes.POINTER(_TableEntry),)
_advapi32.RegisterServiceCtrlHandlerExW.argtypes = (wintypes.LPCWSTR, _Handler, wintypes.LPVOID)
_advapi32.RegisterServiceCtrlHandlerExW.restype = wintypes.HANDLE
_advapi32.SetServiceStatus.argtypes = (wintypes.HANDLE, ctypes.POINTER(_Status))
_advapi32.RegisterEventSourceW.argtypes = (wintypes.LPCWSTR, wintypes.LPCWSTR)
_advapi32.RegisterEventSourceW.restype = wintypes.HANDLE
_advapi32.ReportEventW.argtypes = (
    *(wintypes.HANDLE, wintypes.WORD, wintypes.WORD, wintypes.DWORD, wintypes.LPVOID),
    *(wintypes.WORD, wintypes.DWORD, ctypes.POINTER(wintypes.LPCWSTR), wintypes.LPVOID),
)
_advapi32.DeregisterEventSource.argtypes = (wintypes.HANDLE,)


def run(name: str, serve: Callable[[Callable[[str], None]], int]) -> int:
    """Be the service ``name``, from its start by the service manager to its stop.

    Args:
        name: as given to :func:`install`.
        serve: runs the server until SIGTERM and returns its exit code. It is called with a
            function that it calls once the server accepts calls: only then the service counts as
            running.

    Returns:
        What ``serve`` returned.

    Raises:
        ServiceError: the process was not started by the service manager.
        Exception: what ``serve`` raised; it is in the system's event log as well.
    """
    if sys.stderr is None:  # a service may have no standard streams
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    service = _Service(name)
    service.connect()
    try:
        code = serve(service.running)
    except Exception as error:
        _report_event(name, f"{name} cannot run:\n{error}")
        # One that has run is left to end without a word: that is a crash, after which it is started again.
        if not service.is_running:
            service.stopped(2 if isinstance(error, ConfigurationError) else 255)
        raise
    service.stopped(code)
    return code


def install(name: str, config: Path, account: str) -> None:
    """Create the service, started with the system.

    Args:
        name: the service's name.
        config: the server's configuration file.
        account: the account it runs as.

    Raises:
        ServiceError: with what ``sc.exe`` says.
    """
    arguments = [sys.executable, "-m", "remsvc", "service", "run", "--name", name, "--config", str(config)]
    command = subprocess.list2cmdline(arguments)
    title = "RemSvc server" if name == DEFAULT_NAME else f"RemSvc server ({name})"
    _sc("create", name, "binPath=", command, "start=", "auto", "obj=", account, "DisplayName=", title)
    _sc("description", name, "Runs commands for authorised clients (gRPC).")
    # After a crash; a server that refuses its configuration ends by itself and is left alone.
    _sc("failure", name, "reset=", "86400", "actions=", "restart/5000/restart/5000/restart/60000")


def remove(name: str) -> None:
    """Stop and delete the service.

    Raises:
        ServiceError: with what ``sc.exe`` says.
    """
    with suppress(ServiceError):  # it may not be running; the deletion tells whether it exists
        _sc("stop", name)
    _sc("delete", name)


def _sc(verb: str, name: str, *arguments: str) -> None:
    program = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "sc.exe")
    process = subprocess.run(
        [program, verb, name, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if process.returncode != 0:
        reason = " ".join(process.stdout.decode("oem", "replace").split())
        raise ServiceError(f"sc {verb} {name} failed with code {process.returncode}: {reason}")


class _Service:
    """This process, as the service manager knows it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: int | None = None
        self._refusal: OSError | None = None
        self._connected = threading.Event()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._state = _START_PENDING
        self._dispatcher = threading.Thread(target=self._dispatch, name="service-control", daemon=True)
        # The system calls these: they must live as long as the process.
        self._main_callback = _ServiceMain(self._main)
        self._handler_callback = _Handler(self._control)

    def connect(self) -> None:
        self._dispatcher.start()
        if not self._connected.wait(_CONNECT_SECONDS):
            raise ServiceError("the service control manager did not answer")
        if self._refusal is not None:
            if self._refusal.winerror == _ERROR_FAILED_SERVICE_CONTROLLER_CONNECT:
                raise ServiceError(
                    "only the service control manager can start this: "
                    "use 'remsvc service install' and 'sc start', or 'remsvc serve'"
                )
            raise ServiceError(f"the service control manager refused: {self._refusal}")

    @property
    def is_running(self) -> bool:
        """Whether it accepts calls, and nobody has asked it to stop."""
        return self._state == _RUNNING

    def running(self, _address: str) -> None:
        self._report(_RUNNING, accept=_ACCEPT_STOP_AND_SHUTDOWN)

    def stopped(self, code: int) -> None:
        self._report(_STOPPED, code=code)
        self._stopped.set()
        self._dispatcher.join(_CONNECT_SECONDS)

    # The rest runs in threads of the service manager's.

    def _dispatch(self) -> None:
        table = (_TableEntry * 2)(_TableEntry(self._name, self._main_callback))
        if not _advapi32.StartServiceCtrlDispatcherW(table):
            self._refusal = ctypes.WinError(ctypes.get_last_error())
            self._connected.set()

    def _main(self, _count: int, _arguments: Any) -> None:
        handle = _advapi32.RegisterServiceCtrlHandlerExW(self._name, self._handler_callback, None)
        if handle:
            self._handle = handle
            self._report(_START_PENDING)
        else:
            self._refusal = ctypes.WinError(ctypes.get_last_error())
        self._connected.set()
        if handle:
            self._stopped.wait()

    def _control(self, control: int, _type: int, _data: Any, _context: Any) -> int:
        if control in (_CONTROL_STOP, _CONTROL_SHUTDOWN):
            self._report(_STOP_PENDING)
            _thread.interrupt_main(signal.SIGTERM)
        elif control != _CONTROL_INTERROGATE:
            return _ERROR_CALL_NOT_IMPLEMENTED
        return 0

    def _report(self, state: int, accept: int = 0, code: int = 0) -> None:
        pending = state in (_START_PENDING, _STOP_PENDING)
        status = _Status(
            dwServiceType=_SERVICE_WIN32_OWN_PROCESS,
            dwCurrentState=state,
            dwControlsAccepted=accept,
            dwWin32ExitCode=_ERROR_SERVICE_SPECIFIC_ERROR if code else 0,
            dwServiceSpecificExitCode=code,
            dwWaitHint=_HINT_MILLISECONDS if pending else 0,
        )
        with self._lock:
            if self._state in (_STOP_PENDING, _STOPPED) and state != _STOPPED:
                return  # a stop asked for twice
            self._state = state
            _advapi32.SetServiceStatus(self._handle, ctypes.byref(status))


def _report_event(source: str, text: str) -> None:
    handle = _advapi32.RegisterEventSourceW(None, source)
    if handle:
        strings = (wintypes.LPCWSTR * 1)(text)
        _advapi32.ReportEventW(handle, _EVENTLOG_ERROR_TYPE, 0, 0, None, 1, 0, strings, None)
        _advapi32.DeregisterEventSource(handle)
