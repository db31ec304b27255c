"""Arrays between guard bands: a stray read brings a NaN in, a stray write leaves a mark."""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import Any

import numpy as np

#: How an array lies in memory. "cropped" is a corner of a larger array (unit stride along the
#: last axis alone), "sparse" every second element; "odd" starts an element behind an aligned
#: address, "unaligned" a byte; "swapped" has the other byte order.
LAYOUTS = ("C", "F", "cropped", "sparse", "reversed", "odd", "unaligned", "swapped")

READ = 0xFF  # every byte so: NaN in any float, in either byte order; -1 or the largest integer
WRITE = 0xA5  # what no kernel computes, not even from guard bands that it has read

_ALIGNMENT = 64


class Guarded:
    """An array in the middle of a larger buffer, in any memory layout.

    Parameters
    ----------
    values : ndarray
        What the array holds.
    layout : str
        One of `LAYOUTS`.
    guard : int
        The byte that fills the buffer around the array, and the gaps between its elements. The
        default makes NaNs, for operands; an array to write to takes `Guarded.WRITE`.

    Attributes
    ----------
    array : ndarray
        The values, in that layout.

    Examples
    --------
    >>> guarded = Guarded(np.zeros(3))
    >>> beyond = np.lib.stride_tricks.as_strided(guarded.array, (4,))
    >>> beyond
    array([ 0.,  0.,  0., nan])
    >>> guarded.assert_untouched()
    >>> beyond[3] = 7
    >>> guarded.assert_untouched()
    Traceback (most recent call last):
    ...
    AssertionError: 8 bytes in or around the array were changed
    """

    READ, WRITE = READ, WRITE

    def __init__(self, values: np.ndarray, layout: str = "C", *, guard: int = READ) -> None:
        dtype = values.dtype
        if layout == "swapped" and dtype.num < 256:  # other packages' dtypes have one order
            dtype = dtype.newbyteorder("S")
        step = 2 if layout == "sparse" else 1
        more = 3 if layout == "cropped" else 0
        around = tuple(step * length + more for length in values.shape)
        strides = _strides(around, dtype.itemsize, fortran=layout == "F")
        nbytes = max(1, math.prod(around)) * dtype.itemsize
        # Enough for a row above and below, and for vectors past the end.
        band = 1024 + min(1 << 16, nbytes // max(1, around[0] if around else 1) * 2)
        band += -band % _ALIGNMENT
        self._bytes = np.full(_ALIGNMENT + 2 * band + nbytes + dtype.itemsize, guard, np.uint8)
        address = self._bytes.__array_interface__["data"][0]
        offset = -address % _ALIGNMENT + band
        offset += {"odd": dtype.itemsize, "unaligned": 1}.get(layout, 0)
        larger: np.ndarray = np.ndarray(around, dtype, self._bytes, offset, strides)
        crop: list[Any] = [slice(0, step * length, step) for length in values.shape]
        if layout == "reversed":
            crop = [slice(None, None, -1)] * values.ndim
        self.array = larger[*crop, ...]
        self.array[...] = values
        self._before = self._bytes.copy()

    @property
    def memory(self) -> np.ndarray:
        """The whole buffer, guard bands and all, as bytes."""
        return self._bytes

    def assert_untouched(self, *, inside: bool = True) -> None:
        """Assert that no byte has changed; with ``inside=False``, none outside of the array."""
        now = self._bytes
        if not inside and self.array.size:
            now = now.copy()
            offset = self._address(self.array) - self._address(self._bytes)
            place = (self.array.shape, self.array.dtype, now, offset, self.array.strides)
            before = np.ndarray(*place[:2], self._before, *place[3:])
            np.ndarray(*place)[...] = before
        changed = np.count_nonzero(now != self._before)
        where = "in or around" if inside else "outside of"
        assert not changed, f"{changed} bytes {where} the array were changed"

    @staticmethod
    def _address(array: np.ndarray) -> int:
        return array.__array_interface__["data"][0]


def _strides(shape: tuple[int, ...], itemsize: int, *, fortran: bool) -> tuple[int, ...]:
    """Return the strides of a contiguous array."""
    lengths = shape if fortran else shape[::-1]
    strides = [itemsize * math.prod(max(1, n) for n in lengths[:i]) for i in range(len(lengths))]
    return tuple(strides if fortran else strides[::-1])


def fenced(values: np.ndarray, side: str = "high") -> np.ndarray:
    """Return a copy that lies flush against a page of memory that nobody may touch.

    A stray access, read or write, kills the process: try it in one of its own, and print what
    is tried. POSIX only.

    Parameters
    ----------
    values : ndarray
    side : {"high", "low"}
        Whether the page lies behind the array or before it.

    Examples
    --------
    >>> import os
    >>> array = fenced(np.arange(3)) if os.name == "posix" else np.arange(3)
    >>> array
    array([0, 1, 2])
    """
    page = mmap.PAGESIZE
    room = -(-max(1, values.nbytes) // page) * page
    memory = np.frombuffer(mmap.mmap(-1, room + page), np.uint8)
    fence = memory.ctypes.data + (room if side == "high" else 0)
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(page), 0):
        raise OSError("mprotect failed")
    offset = room - values.nbytes if side == "high" else page
    array: np.ndarray = np.ndarray(values.shape, values.dtype, memory, offset)
    array[...] = values
    return array
