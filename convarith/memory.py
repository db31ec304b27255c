"""How much memory there is, on the host or on a GPU, and the refusal to ask for more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .namespace import is_cupy, on_device_of
from .validate import integer

#: Arrays below this are made without asking: an answer costs more than a small kernel runs.
UNCHECKED_BYTES = 2**28


def require_bytes(
    what: str,
    nbytes: int,
    *,
    max_bytes: object = None,
    way_out: str = "ask for less",
    beside: Any = None,
) -> None:
    """Raise a `ValueError` where `what` would take more than `max_bytes` (default: what is free).

    What is free is asked of the host, or of the device that holds the array `beside`.

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
        limit, reason = available_bytes(beside), "of memory available"
    if nbytes > limit:
        raise ValueError(
            f"{what} would take {nbytes} bytes, more than the {limit} {reason}: {way_out}"
        )


def available_bytes(beside: Any = None) -> int:
    """Return the bytes that can be allocated without swapping, a container's limit included.

    Beside a CuPy array, those of its device: what is free there and in CuPy's pool.
    """
    if is_cupy(beside):
        return _device_available(beside)
    if sys.platform == "win32":
        return _windows_available()
    try:
        free = _linux_available(Path("/proc/meminfo").read_text())
    except OSError:  # no procfs: macOS and the BSDs tell the whole memory, not what is free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([free, *_cgroups_available(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _device_available(array: Any) -> int:
    cupy = sys.modules["cupy"]
    with on_device_of(array):
        pool = cupy.get_default_memory_pool()
        free, _ = cupy.cuda.runtime.memGetInfo()
        free += pool.free_bytes()
        limit = pool.get_limit()  # 0 where there is none
        return min(free, limit - pool.used_bytes()) if limit else free


def _linux_available(meminfo: str) -> int:
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _cgroups_available(membership: Path, root: Path) -> Iterator[int]:
    """Yield what each memory limit on this process leaves: its cgroups and those around them."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no cgroups
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):  # version 1
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inner = base / path.lstrip("/")
        for group in (inner, *inner.parents):
            if not group.is_relative_to(base):
                break
            yield from _limit_leaves(group, *names)


def _limit_leaves(group: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    try:
        allowed, used = (int((group / name).read_text()) for name in (limit, usage))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # the group lies outside of this container, or has no limit
        return
    # Page cache counts as used and is given back.
    yield max(0, allowed - used + int(stat.get(cache, 0)))


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
