"""The machine: what it is, and what it can do at most, measured in the same run."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

#: Independent chains of multiply-adds: enough to hide the latency, few enough for 16 registers.
CHAINS = 12
#: Larger than any cache's share: what a copy moves is not in one of them.
COPY_BYTES = 2**28


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Return what the figures depend on, but for the versions."""
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:  # not Linux: the short name has to do
        processor = platform.machine()
    return {
        "processor": processor,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def vectors() -> str:
    """Return the name of the vector path that the library's kernels take here."""
    from convarith.backends.cpu import vector

    return vector.path().name


def others_seconds() -> float:
    """Return the processor time that everyone but this process and its children has used.

    What is measured beside others is not what it would be alone: threads that wait for each other
    wait for theirs too. 0 where the system does not say.
    """
    try:
        user, nice, system, _, _, *interrupts = map(
            int, Path("/proc/stat").read_text(encoding="utf-8").split("\n")[0].split()[1:8]
        )
    except OSError:
        return 0.0
    every = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return every - own.user - own.system - own.children_user - own.children_system


def cache_bytes() -> int:
    """Return the size of the largest cache, 32 MiB where the system does not say."""
    sizes = [2**25]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="utf-8").strip()
        sizes.append(int(text.rstrip("KMG")) * 2 ** {"K": 10, "M": 20, "G": 30}.get(text[-1], 0))
    return max(sizes)


def use_threads(threads: int) -> None:
    """Let the library and Numba use so many threads, and the processes that we start.

    Before Numba is loaded; the peers are told one by one.
    """
    for name in ("CONVARITH_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(threads)


def limits(threads: int) -> dict[str, float]:
    """Return the peak of float32 multiply-adds in GFLOP/s and of copying in GB/s."""
    return {"gflops": peak_gflops(threads), "gbytes_per_second": copy_gbytes(threads)}


def peak_gflops(threads: int) -> float:
    """Return the most float32 GFLOP/s that all threads together reach in registers alone."""
    chains, width = _chains()
    count = 4_000_000
    flops = 2 * CHAINS * width * count * threads

    def run() -> None:
        list(pool.map(lambda _: chains(count, np.float32(0.5), np.float32(0.5)), range(threads)))

    with ThreadPoolExecutor(threads) as pool:
        return flops / _least(run) / 1e9


def copy_gbytes(threads: int) -> float:
    """Return how many GB/s a large copy reads and writes, both counted."""
    source = np.ones(COPY_BYTES // 8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def run() -> None:
            list(pool.map(lambda part: np.copyto(*part), parts))

        return 2 * COPY_BYTES / _least(run) / 1e9


def _least(run: Callable[[], None]) -> float:
    """Return the least time of several runs in s: a limit is what nothing disturbed."""
    times = []
    for _ in range(12):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@functools.cache
def _chains() -> tuple[Callable[[int, np.float32, np.float32], float], int]:
    """Return a kernel of nothing but vector multiply-adds, and the floats in a vector.

    Vectors as the processor has them: LLVM is told the width, so that the peak is the hardware's
    and not that of what a compiler makes of a loop.
    """
    import llvmlite.binding
    import numba
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    features = llvmlite.binding.get_host_cpu_features()
    width = 16 if features.get("avx512f") else 8 if features.get("avx") else 4
    vector = ir.VectorType(ir.FloatType(), width)

    @intrinsic
    def chains(context, count, a, b):
        def generate(context, builder, signature, arguments):
            count, *factors = arguments
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{width}f32"
            )
            a, b = (
                builder.shuffle_vector(
                    builder.insert_element(
                        ir.Constant(vector, ir.Undefined), factor, ir.IntType(32)(0)
                    ),
                    ir.Constant(vector, ir.Undefined),
                    ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width),
                )
                for factor in factors
            )
            # Each begins elsewhere, or LLVM would see that they are one and the same.
            sums = [cgutils.alloca_once(builder, vector) for _ in range(CHAINS)]
            for start, place in enumerate(sums):
                builder.store(ir.Constant(vector, [float(start)] * width), place)
            with cgutils.for_range(builder, count):
                for place in sums:
                    builder.store(builder.call(fma, [builder.load(place), a, b]), place)
            total = functools.reduce(builder.fadd, map(builder.load, sums))
            return builder.extract_element(total, ir.IntType(32)(0))

        return types.float32(types.int64, types.float32, types.float32), generate

    @numba.njit("float32(int64, float32, float32)", nogil=True)
    def kernel(count, a, b):
        return chains(count, a, b)

    return kernel, width


@functools.cache
def filler() -> Callable[[np.ndarray], None]:
    """Return a function that fills an array with ones, on all threads: the floor of a result."""
    import numba

    @numba.njit("void(float32[::1])", parallel=True)
    def fill(out):
        for i in numba.prange(out.size):
            out[i] = 1

    return fill
