"""Memory as a kernel sees it: copies of arrays that end where the array ends."""

from __future__ import annotations

import ctypes

import numpy as np

#: What allocations on a GPU are aligned to, at least.
ALIGNMENT = 256

_c = ctypes.CDLL(None)
_c.posix_memalign.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
_c.free.argtypes = [ctypes.c_void_p]


class Buffer:
    """A copy of an array, in an allocation of its own.

    Its address is as the array's modulo 16, for views that are not aligned; after its last byte
    AddressSanitizer finds none.
    """

    def __init__(self, array: np.ndarray) -> None:
        offset = array.ctypes.data % 16
        start = ctypes.c_void_p()
        if _c.posix_memalign(ctypes.addressof(start), ALIGNMENT, max(array.nbytes + offset, 1)):
            raise MemoryError(f"{array.nbytes} bytes for the copy of an array")
        self._start = start.value
        self.address = start.value + offset
        ctypes.memmove(self.address, array.ctypes.data, array.nbytes)

    def copy_to(self, array: np.ndarray) -> None:
        """Copy back what a kernel wrote."""
        ctypes.memmove(array.ctypes.data, self.address, array.nbytes)

    def __del__(self) -> None:
        _c.free(self._start)
