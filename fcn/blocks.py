"""What inference does besides convolutions, in blocks that a core's cache holds."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from convarith import ConvGeometry, get_num_threads

from . import gpu
from .layers import Array, namespace

#: Pixels of a block of the softmax: some 100 KiB of 20 classes.
PIXELS = 2048
#: Entries below which a second thread is not worth its start.
SINGLE = 2**16
#: Logits between -this and this have powers, and sums of powers, that float32 holds.
MODEST = 80.0


def softmax(x: Array, out: Array) -> Array:
    """Write the probabilities over the channels of logits ``(n, h, w, c)`` to `out`; return it.

    The largest logit of a pixel is taken off only in blocks where one is so large that its power
    might overflow: it changes nothing else.

    Parameters
    ----------
    x, out : ndarray
        Of one shape; both float32, `out` C-contiguous, and they may be the same. On a GPU `x` may
        be of a half type.

    Examples
    --------
    >>> x = np.zeros((1, 1, 1, 4), np.float32)
    >>> softmax(x, out=x).ravel()
    array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    if namespace(x) is not np:
        return gpu.softmax(x, out)
    logits, result = (array.reshape(-1, x.shape[-1]) for array in (x, out))
    ones = np.ones(x.shape[-1], np.float32)

    @np.errstate(all="ignore")  # of threads of their own; NaN and infinities go where they go
    def work(start: int, stop: int) -> None:
        for at in range(start * PIXELS, min(stop * PIXELS, len(logits)), PIXELS):
            block, powers = logits[at : at + PIXELS], result[at : at + PIXELS]
            if not (block.max() < MODEST and block.min() > -MODEST):
                block = np.subtract(block, block.max(axis=1, keepdims=True), out=powers)
            np.exp(block, out=powers)
            powers *= (1 / (powers @ ones))[:, None]

    _on_threads(work, -(-len(logits) // PIXELS), x.size)
    return out


def max_pool(x: Array, geometry: ConvGeometry, outside: float, out: Array) -> None:
    """Write the greatest entry of each window of ``(n, h, w, c)`` to `out`.

    Parameters
    ----------
    x, out : ndarray
        Of one dtype.
    geometry : ConvGeometry
        Of the windows over `x`.
    outside : float
        What lies around the picture: ``-inf`` where padding is never the greatest, or 0.
    """
    if namespace(x) is not np:
        gpu.max_pool(x, geometry, outside, out)
        return
    rows, columns = (_Windows(axis, outside) for axis in geometry.axes)

    def work(start: int, stop: int) -> None:
        scratch = np.empty(x.shape[2:], x.dtype)
        for at in range(start, stop):
            image, row = divmod(at, rows.count)
            inside = rows.inputs[row]
            if not inside:
                out[image, row] = outside
                continue
            greatest = x[image, inside[0]]
            for other in inside[1:]:
                greatest = np.maximum(greatest, x[image, other], out=scratch)
            columns.greatest(greatest, out[image, row], 0)
            if len(inside) < rows.length and outside > -math.inf:
                np.maximum(out[image, row], outside, out=out[image, row])

    _on_threads(work, len(x) * rows.count, x.size)


class _Windows:
    """The windows along one axis."""

    def __init__(self, axis: Any, outside: float) -> None:
        taps = [(tap.inputs, tap.outputs) for tap in axis.taps()]
        self.outside, self.length, self.count = outside, axis.kernel, axis.output
        #: Entries of the window that all windows have inside of the picture, and the others.
        self.whole = [inputs for inputs, outputs in taps if outputs == slice(0, self.count)]
        self.partly = [tap for tap in taps if tap[1] != slice(0, self.count)]
        #: What each window has inside.
        self.inputs: list[list[int]] = [[] for _ in range(self.count)]
        for inputs, outputs in taps:
            reached = range(*outputs.indices(self.count))
            for window, at in zip(reached, range(*inputs.indices(axis.size)), strict=True):
                self.inputs[window].append(at)
        full = [len(inside) == self.length for inside in self.inputs]
        #: The windows that reach outside: those up to the first, and those from the second.
        self.ends = (self.count, self.count)
        if True in full:
            self.ends = (full.index(True), self.count - full[::-1].index(True))

    def greatest(self, source: Array, out: Array, axis: int) -> None:
        """Write the greatest of each window along an axis to `out`."""
        lead = (slice(None),) * axis
        first, *more = self.whole or [None]
        if first is None:
            out[...] = -math.inf
        elif more:
            np.maximum(source[(*lead, first)], source[(*lead, more[0])], out=out)
        else:
            out[...] = source[(*lead, first)]
        for inputs in more[1:]:
            np.maximum(out, source[(*lead, inputs)], out=out)
        for inputs, outputs in self.partly:
            part = out[(*lead, outputs)]
            np.maximum(part, source[(*lead, inputs)], out=part)
        if self.outside > -math.inf:
            for end in (slice(0, self.ends[0]), slice(self.ends[1], self.count)):
                part = out[(*lead, end)]
                np.maximum(part, self.outside, out=part)


def _on_threads(work: Callable[[int, int], None], length: int, entries: int) -> None:
    """Do ``work(start, stop)`` on parts of ``range(length)``, as many as there are threads."""
    count = min(get_num_threads(), length) if entries >= SINGLE else 1
    if count <= 1:
        work(0, length)
        return
    bounds = [length * part // count for part in range(count + 1)]
    waiting = [
        _threads(os.getpid()).submit(work, *pair)
        for pair in zip(bounds[1:-1], bounds[2:], strict=True)
    ]
    work(*bounds[:2])
    for future in waiting:
        future.result()


@functools.lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """Return the threads of this process: those of a parent are not there after a fork."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fcn")
