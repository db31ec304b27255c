"""The card: what it is, and what it can do at most, measured in the same run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import cupy
from hardware import machine as host

from gpu import arrays
from gpu.clocks import Candidate, Clock, cupy_clock, pace
from gpu.peers import in_turn, loaded_torch
from gpu.trials import DTYPES, PRECISIONS

#: What a copy reads, and writes.
COPY_BYTES = 2**31
#: The side of the matrices whose product is the peak's measure.
SIDE = 8192
ROUNDS = 5


def machine() -> dict[str, Any]:
    """Return what the figures depend on, but for the versions of packages."""
    runtime = cupy.cuda.runtime
    card = cupy.cuda.Device()
    properties = runtime.getDeviceProperties(card.id)
    return {
        **host(),
        "card": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "memory_bytes": properties["totalGlobalMem"],
        "cache_bytes": card.attributes["L2CacheSize"],
        "driver": driver(),
        "driver_cuda": version(runtime.driverGetVersion()),
        "runtime_cuda": version(runtime.runtimeGetVersion()),
    }


def version(number: int) -> str:
    """Return CUDA's own number of a version as it is written, 13000 as 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def driver() -> str:
    """Return the driver's version, or that it does not say."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):  # the figures are as good without its name
        return "of unknown version"
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else "of unknown version"


def limits() -> dict[str, Any]:
    """Return GB/s of copying, and TFLOP/s of a large matrix product by precision.

    A precision that cannot be measured here is not in it.
    """
    return {"gbytes_per_second": copy_gbytes(), "tflops": dict(peaks())}


def copy_gbytes() -> float:
    """Return how many GB/s a large copy reads and writes, both counted."""
    source = cupy.zeros(COPY_BYTES, cupy.uint8)
    target = cupy.empty_like(source)
    time = least(partial(cupy.copyto, target, source), cupy_clock())
    return 2 * COPY_BYTES / time / 1e6


def copying(nbytes: int, sets: int) -> dict[str, Candidate]:
    """Return ways to copy as much as reads and writes `nbytes`, so many arrays in turn.

    The driver's way and a kernel's: neither is always the quicker.
    """
    length = max(1, nbytes // 2 // 8)
    pairs = [(cupy.zeros(length), cupy.zeros(length)) for _ in range(sets)]
    ways = {
        "copy": [partial(cupy.copyto, target, source) for source, target in pairs],
        "copy by a kernel": [
            partial(cupy.multiply, source, 1.0, out=target) for source, target in pairs
        ],
    }
    return {name: Candidate(in_turn(runs), cupy_clock()) for name, runs in ways.items()}


def quicker(timings: dict[str, dict[str, Any]], ways: dict[str, Candidate]) -> dict[str, Any]:
    """Take the ways to copy out of the timings, and return the quicker one's."""
    return min((timings.pop(name) for name in ways), key=lambda timing: timing["median"])


def peaks() -> list[tuple[str, float]]:
    """Return the TFLOP/s by precision, by torch or, without it, by CuPy where that can."""
    flops = 2 * SIDE**3
    found: list[tuple[str, float]] = []
    if peer := loaded_torch():
        for precision in PRECISIONS:
            peer.use(precision)
            a = peer.tensor(arrays.drawn((SIDE, SIDE), DTYPES[precision]))
            out = peer.torch.empty_like(a)
            time = least(partial(peer.torch.matmul, a, a, out=out), peer.clock())
            found.append((precision, flops / time / 1e9))
        return found
    for precision in ("float32", "float16"):  # TF32 is a setting of CuPy's environment
        a = arrays.drawn((SIDE, SIDE), precision)
        time = least(partial(cupy.matmul, a, a), cupy_clock())
        found.append((precision, flops / time / 1e9))
    return found


def least(run: Callable[[], Any], clock: Clock) -> float:
    """Return the least time of several samples in ms: a limit is what nothing disturbed."""
    count, hold = pace(Candidate(run, clock))
    return min(clock.sample(run, count, hold).time for _ in range(ROUNDS))


def release() -> None:
    """Give back the memory that CuPy and torch keep, so that either can have it.

    Not while there is enough: to take it again costs time.
    """
    free, total = cupy.cuda.runtime.memGetInfo()
    if free > total / 2:
        return
    cupy.cuda.runtime.deviceSynchronize()
    cupy.get_default_memory_pool().free_all_blocks()
    if peer := loaded_torch():
        peer.torch.cuda.empty_cache()
