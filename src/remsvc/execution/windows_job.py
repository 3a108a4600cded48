"""Windows job objects: each holds a process with all its descendants, and can end them at once."""

from __future__ import annotations

import sys

# ruff: noqa: E402
# Above the imports: elsewhere, type checkers then skip the rest.
assert sys.platform == "win32"

import ctypes
from ctypes import wintypes

_KILL_ON_JOB_CLOSE = 0x2000
_EXTENDED_LIMIT_INFORMATION = 9
ENDED = 1
"""Exit code of the processes that :meth:`JobObject.terminate` ends."""


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", wintypes.LARGE_INTEGER),
        ("PerJobUserTimeLimit", wintypes.LARGE_INTEGER),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_ulonglong * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
_kernel32.CreateJobObjectW.restype = wintypes.HANDLE
_kernel32.SetInformationJobObject.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.POINTER(_ExtendedLimits),
    wintypes.DWORD,
)
_kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
_kernel32.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
_kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
_ntdll = ctypes.WinDLL("ntdll")
_ntdll.NtResumeProcess.argtypes = (wintypes.HANDLE,)
_ntdll.NtResumeProcess.restype = ctypes.c_long


class JobObject:
    """One job object. Closing it, as the system does when this process dies, ends what is in it.

    Every method raises ``OSError`` where the system refuses.
    """

    def __init__(self) -> None:
        self._handle: int | None = _checked(_kernel32.CreateJobObjectW(None, None))
        try:
            self._set_limits(_KILL_ON_JOB_CLOSE)
        except OSError:
            self.close()
            raise

    def start(self, process: int) -> None:
        """Put the process with this handle, started suspended, into the job, and let it run."""
        _checked(_kernel32.AssignProcessToJobObject(self._handle, process))
        # Resuming by process: subprocess.Popen has closed the thread's handle already.
        if (status := _ntdll.NtResumeProcess(process)) < 0:
            raise OSError(f"NtResumeProcess failed with status 0x{status & 0xFFFFFFFF:08x}")

    def terminate(self) -> None:
        """End all processes in it. Does nothing after :meth:`close`."""
        if self._handle is not None:
            _checked(_kernel32.TerminateJobObject(self._handle, ENDED))

    def release(self) -> None:
        """Close it without ending what is still in it."""
        self._set_limits(0)
        self.close()

    def close(self) -> None:
        """End what is still in it and free it. Idempotent."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            _checked(_kernel32.CloseHandle(handle))

    def _set_limits(self, flags: int) -> None:
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = flags
        _checked(
            _kernel32.SetInformationJobObject(
                self._handle, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
            )
        )


def _checked(result: int | None) -> int:
    """What a kernel32 function returned, unless that was 0."""
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result
