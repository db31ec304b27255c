"""A team of threads for one call: OpenMP's, or where its library is not found, Numba's.

GNU's OpenMP starts one in 1.4 microseconds, from any Python thread, and each of these has its own.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import TypeAlias

#: ``run(function, argument, threads)`` calls compiled code at an address with an int64 on each of
#: so many threads, and returns when all have.
Team: TypeAlias = Callable[[int, int, int], None]

_lock = threading.Lock()


@functools.cache
def team() -> Team:
    """Return what runs code on a team."""
    return openmp() or numbas()


def openmp() -> Team | None:
    """Return GNU's, if it is there, by what a compiler calls for ``#pragma omp parallel``."""
    try:
        parallel = ctypes.CDLL("libgomp.so.1").GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None
    return lambda function, argument, threads: parallel(function, argument, threads, 0)


def numbas() -> Team:
    """Return Numba's. Some of its layers take one caller at a time."""
    import numba
    from numba import njit, prange, types

    from .intrinsics import run_tile

    def on_threads(function, argument, threads):
        for _ in prange(threads):
            run_tile(function, argument)

    compile_ = functools.partial(njit, types.void(*[types.int64] * 3), nogil=True, parallel=True)
    try:
        parallel = compile_(cache=True)(on_threads)
    except Exception:  # as many as there are ways in which a folder cannot be read or written
        parallel = compile_()(on_threads)
    numba.set_num_threads(numba.get_num_threads())  # loads the layer
    several = numba.threading_layer() in ("omp", "tbb")

    def run(function: int, argument: int, threads: int) -> None:
        if not several:
            with _lock:
                parallel(function, argument, threads)
        elif threads >= (before := numba.get_num_threads()):
            parallel(function, argument, threads)
        else:  # its loops of this Python thread take no more threads than there is work for
            numba.set_num_threads(threads)
            try:
                parallel(function, argument, threads)
            finally:
                numba.set_num_threads(before)

    return run
