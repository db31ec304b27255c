"""Arrays as the tiled kernels read them: a group's channels in whole chunks of 16 bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...remembered import Remembered
from .device import Device
from .law import CHUNK_BYTES, ELEMENTS

LAYOUT = np.dtype(
    [
        *((name, np.int32) for name in ("b", "c", "padded", "length")),
        *((name, np.int64) for name in ("of_a", "of_b", "of_c", "of_d")),
    ],
    align=True,
)
THREADS = 256


def blocks_of(entries: int, threads: int) -> tuple[int, int, int]:
    """Return a grid of a thread an entry."""
    return (-(-entries // threads), 1, 1)


def aligned(array: Any) -> bool:
    """Whether an array begins at a multiple of 16 bytes."""
    return address(array) % CHUNK_BYTES == 0


def address(array: Any) -> int:
    """Return where an array begins."""
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def whole_chunks(channels: int, itemsize: int) -> int:
    """Return the next number of channels that fills chunks."""
    chunk = CHUNK_BYTES // itemsize
    return -(-channels // chunk) * chunk


def simple(device: Device, array: Any, dtype: np.dtype) -> Any:
    """Return an array C-contiguous and of a dtype: itself, or a copy."""
    if array.dtype == dtype and array.flags.c_contiguous and aligned(array):
        return array
    itemsize = array.dtype.itemsize
    if address(array) % itemsize:  # no kernel can read it so, not even CuPy's own
        if not array.flags.c_contiguous:
            raise ValueError(
                f"array of {array.dtype}: expected an address that is a multiple of {itemsize}, or "
                f"contiguous memory, got {address(array):#x} and strides {array.strides}"
            )
        array = array.view(np.uint8).copy().view(array.dtype)
    if array.dtype == dtype and array.flags.c_contiguous:
        return array
    return device.xp.ascontiguousarray(array, dtype=dtype)


class LayOut:
    """A launch of ``lay_out.cu``: entries of an array as ``(a, *shape)``, the last axis padded.

    Parameters
    ----------
    dtype : dtype
    shape : tuple of int
        The last three of the four axes, the last of them without its padding.
    strides : tuple of int
        Of all four, in entries of the array.
    padded : int
        The length of the last axis, zeros from ``shape[2]`` on.
    round_tf32 : bool
        Whether to round to TF32.
    """

    def __init__(
        self,
        dtype: np.dtype,
        shape: tuple[int, int, int],
        strides: tuple[int, int, int, int],
        padded: int,
        *,
        round_tf32: bool = False,
    ) -> None:
        self.dtype, self.shape = dtype, (*shape[:2], padded)
        self.constants = {"ELEMENT": ELEMENTS[dtype.name], "ROUND": int(round_tf32)}
        self._kernels = Remembered()
        self.struct = np.array([(*shape[:2], padded, shape[2], *strides)], LAYOUT)

    def __call__(
        self, device: Device, array: Any, length: int, careful: Any = None, *, keep: bool = True
    ) -> Any:
        """Return the array laid out, `length` long on its first axis.

        `careful` is a flag to raise where an entry is not finite; without `keep` that is all that
        is done, and the array is returned as it is.
        """
        result = device.xp.empty((length, *self.shape), self.dtype) if keep else None
        entries = length * math.prod(self.shape)
        kernel = self._kernels.get(device, lambda: device.kernel("lay_out", **self.constants))
        grid = (min(-(-entries // THREADS), 2**20), 1, 1)  # a thread may have several
        arguments = (array, result, careful, self.struct, np.int64(entries))
        kernel(grid, THREADS, arguments, 0)
        return result if keep else array
