"""How much memory there is, and the refusal to ask for more."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .validate import integer

#: Arrays below this are made without asking: an answer costs more than a small kernel runs.
UNCHECKED_BYTES = 2**28


def require_bytes(
    what: str, nbytes: int, *, max_bytes: object = None, way_out: str = "ask for less"
) -> None:
    """Raise a `ValueError` where `what` would take more than `max_bytes` (default: what is free).

    >>> require_bytes("W", 4096, max_bytes=1024)
    Traceback (most recent call last):
    ...
    ValueError: W would take 4096 bytes, more than the 1024 allowed (max_bytes=): ask for less
    """
    if max_bytes is not None:
        limit, reason = integer("max_bytes", max_bytes, minimum=0), "allowed (max_bytes=)"
    elif nbytes <= UNCHECKED_BYTES:
        return
    else:
        limit, reason = available_bytes(), "of memory available"
    if nbytes > limit:
        raise ValueError(
            f"{what} would take {nbytes} bytes, more than the {limit} {reason}: {way_out}"
        )


def available_bytes() -> int:
    """Return the bytes that can be allocated without swapping, a container's limit included."""
    if sys.platform == "win32":
        return _windows_available()
    try:
        free = _linux_available(Path("/proc/meminfo").read_text())
    except OSError:  # no procfs: macOS and the BSDs tell the whole memory, not what is free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(free, _cgroup_available(Path("/sys/fs/cgroup"), free))


def _linux_available(meminfo: str) -> int:
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _cgroup_available(group: Path, free: int) -> int:
    """Return what a container's limit (cgroup v2) leaves, or `free` where there is none."""
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no cgroup of its own, or the word "max"
        return free
    cache = int(stat.get("inactive_file", 0))  # page cache counts as used and is given back
    return max(0, limit - used + cache)


def _windows_available() -> int:
    import ctypes

    class MemoryStatus(ctypes.Structure):  # MEMORYSTATUSEX
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "available", *"abcde")),
        ]

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined]
        raise OSError("GlobalMemoryStatusEx failed: pass max_bytes=")
    return status.available
