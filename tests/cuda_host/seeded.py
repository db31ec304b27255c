"""Kernels with a seeded bug, by name, and a run of one.

``python -m tests.cuda_host.seeded pipeline BUG_NO_WAIT`` is a process to end with a report.
"""

from __future__ import annotations

import sys

import numpy as np

from . import build
from .host import HostDevice

THREADS, ROWS = 64, 7
#: Blocks, and bytes of dynamic shared memory, of each kernel in broken/.
LAUNCHES = {"pipeline": (1, 3 * 256), "bounds": (1, 256), "order": (2, 0), "waits": (1, 0)}


def run(kernel: str, bug: str | None = None, *, seed: int = 0, cp_mode: int = 0) -> np.ndarray:
    """Return what a kernel makes of the same numbers with a bug or without one."""
    device = HostDevice(build.SHIM.parent / "broken")
    device.seed, device.cp_mode = seed, cp_mode
    rows = ROWS if kernel == "pipeline" else 1
    x = np.arange(rows * THREADS, dtype=np.float32)
    y = np.full(THREADS, np.nan, np.float32)
    blocks, shared = LAUNCHES[kernel]
    launch = device.kernel(kernel, **({bug: 1} if bug else {}))
    launch((blocks, 1, 1), THREADS, (x, y, np.int32(rows)), shared)
    return y


if __name__ == "__main__":
    for seed in range(3):
        for cp_mode in range(3):
            run(*sys.argv[1:], seed=seed, cp_mode=cp_mode)
