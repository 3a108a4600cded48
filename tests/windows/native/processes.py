"""What the system says about processes and handles."""

from __future__ import annotations

import ctypes
import time

_SYNCHRONIZE = 0x0010_0000
_PROCESS_TERMINATE = 0x0001
_WAIT_TIMEOUT = 0x102
_FILLERS = 4096

_kernel32 = ctypes.WinDLL("kernel32")
_kernel32.OpenProcess.restype = ctypes.c_void_p
_kernel32.CreateEventW.restype = ctypes.c_void_p
_kernel32.WaitForSingleObject.argtypes = (ctypes.c_void_p, ctypes.c_ulong)
_kernel32.TerminateProcess.argtypes = (ctypes.c_void_p, ctypes.c_uint)
_kernel32.GetProcessHandleCount.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
_kernel32.CloseHandle.argtypes = (ctypes.c_void_p,)


def alive(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    handle = _kernel32.OpenProcess(_SYNCHRONIZE, 0, pid)
    if not handle:
        return False
    try:
        return bool(_kernel32.WaitForSingleObject(handle, 0) == _WAIT_TIMEOUT)
    finally:
        _kernel32.CloseHandle(handle)


def wait_until_gone(pid: int, deadline: float = 30.0) -> None:
    end = time.monotonic() + deadline
    while alive(pid):
        assert time.monotonic() < end, f"process {pid} is still there"
        time.sleep(0.02)


def kill(pid: int) -> None:
    handle = _kernel32.OpenProcess(_PROCESS_TERMINATE | _SYNCHRONIZE, 0, pid)
    if handle:
        _kernel32.TerminateProcess(handle, 1)
        _kernel32.WaitForSingleObject(handle, 10_000)
        _kernel32.CloseHandle(handle)


def open_handles() -> int:
    """A number that grows with the handles that this process has open."""
    count = ctypes.c_ulong()
    _kernel32.GetProcessHandleCount(ctypes.c_void_p(-1), ctypes.byref(count))
    if count.value:
        return count.value
    # Wine does not count, but gives each new handle the lowest number that is free (in steps of 4):
    # with all gaps filled, the highest number tells how many there are.
    fillers: list[int] = [_kernel32.CreateEventW(None, 0, 0, None) for _ in range(_FILLERS)]
    for handle in fillers:
        _kernel32.CloseHandle(handle)
    return max(fillers) // 4 - _FILLERS
