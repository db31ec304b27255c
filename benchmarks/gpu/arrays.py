"""A trial's numbers on the GPU, and what is exact of what is made of them."""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

import cupy
import numpy as np
from problem import PRODUCTS, RESULTS, Problem, ours, shapes

import convarith
from gpu.peers import loaded_torch
from gpu.trials import Trial

#: So many random numbers are drawn, on the host; larger arrays repeat them. It is odd, so that
#: no row of an array is the row before it.
DRAWN = 2**21 + 1
#: So many copies of a trial's arrays at most are rotated.
MAX_COPIES = 64


def dtype(name: str) -> np.dtype:
    """Return a dtype by its name, bfloat16 too where ml_dtypes is installed."""
    return np.dtype(importlib.import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name)


@functools.cache
def _drawn(name: str) -> cupy.ndarray:
    """Return standard normal numbers of a dtype.

    They are rounded on the host and uploaded as bits: that asks of CuPy no conversion from or to
    bfloat16.
    """
    numbers = np.random.default_rng(0).standard_normal(DRAWN, np.float32)
    return upload(numbers, name)


def upload(host: np.ndarray, name: str) -> cupy.ndarray:
    """Return an array of the host's, rounded to a dtype, on the GPU."""
    rounded = np.ascontiguousarray(host.astype(dtype(name)))
    return cupy.asarray(rounded.view(f"u{rounded.itemsize}")).view(rounded.dtype)


def problem(trial: Trial) -> Problem:
    """Return the trial's problem on CuPy arrays, with the same numbers every time."""
    case = trial.case
    product = PRODUCTS[case.group]
    arrays: dict[str, Any] = {}
    offset = 0
    for name, shape in shapes(case).items():
        size = math.prod(shape)
        if name == RESULTS[product]:
            bits = cupy.zeros(shape, f"u{dtype(case.dtype).itemsize}")
            arrays[name] = bits.view(dtype(case.dtype))
        else:
            arrays[name] = drawn(shape, case.dtype, offset)
        offset += size
    if case.bilinear:
        channels, (length, *_) = case.geometry.in_channels, case.geometry.kernel_size
        kernel = convarith.bilinear_kernel(channels, channels, length)
        arrays["kernel"] = upload(kernel, case.dtype)
    return Problem(product, case.geometry, **arrays, bilinear=case.bilinear, path=case.path)


def drawn(shape: tuple[int, ...], name: str, offset: int = 0) -> cupy.ndarray:
    """Return random numbers of a shape and dtype, which start `offset` into those drawn."""
    numbers = _drawn(name)
    bits = numbers.view(f"u{numbers.itemsize}")
    start, size = offset % DRAWN, math.prod(shape)
    repeated = cupy.tile(bits, -(-(start + size) // DRAWN))[start : start + size]
    return repeated.copy().view(numbers.dtype).reshape(shape)


def copies(nbytes: int, *, at_least: int = 1) -> int:
    """Return how many sets of arrays of `nbytes` together are twice the L2 cache."""
    cache = cupy.cuda.Device().attributes["L2CacheSize"]
    return max(at_least, min(MAX_COPIES, math.ceil(2 * cache / nbytes)))


def doubled(array: cupy.ndarray) -> cupy.ndarray:
    """Return an array in float64."""
    if array.dtype.name == "bfloat16":  # the upper half of a float32, without CuPy's conversion
        array = (array.view(cupy.uint16).astype(cupy.uint32) << 16).view(cupy.float32)
    return array.astype(cupy.float64)


def exact(problem: Problem) -> tuple[cupy.ndarray, str]:
    """Return the whole result in float64, and who computed it.

    torch's float64 on this GPU where it can: what checks ours is better not ours.
    """
    double = Problem(
        problem.product,
        problem.geometry,
        doubled(problem.x),
        doubled(problem.y),
        doubled(problem.kernel),
        problem.bilinear,
        problem.path,
    )
    if torch := loaded_torch():
        try:
            return torch.exact(double), "torch in float64 on the GPU"
        except Exception:
            # Not every convolution has an algorithm in float64 there: then the library's plain
            # kernel, which the tests compare with NumPy's.
            cupy.cuda.runtime.deviceSynchronize()
    run, _ = ours(double)
    return run(), "convarith in float64 on the GPU"


def error(result: Any, exact: cupy.ndarray, interior: int = 0) -> float:
    """Return the largest error, relative to the largest entry, over all entries.

    Parameters
    ----------
    result, exact : cupy.ndarray
        Channels last.
    interior : int
        How many entries along each spatial border do not count.
    """
    if result.shape != exact.shape:
        raise ValueError(f"made {result.shape} instead of {exact.shape}")
    inside: tuple[Any, ...] = (...,)
    if interior:
        inside = (slice(None), *(slice(interior, n - interior) for n in result.shape[1:3]))
    difference = cupy.abs(doubled(result[inside]) - exact[inside]).max()
    return float(difference / cupy.abs(exact).max())
