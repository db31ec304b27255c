"""Memory for results and scratch that is used again: fresh pages cost more than the arithmetic.

A buffer is an array that the pool and the views of it hold on to; it is free again when the pool
alone does. NumPy gives every view of a view the first array as its base, so a reference count of
one says that no view is left.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading

import numpy as np

#: Smaller arrays come from NumPy, whose allocator keeps them itself.
LEAST_BYTES = 2**16
#: What idle and used buffers may come to together; beyond it, arrays are NumPy's.
MOST_BYTES = 2**28

_ALIGNMENT = 64
_buffers: list[np.ndarray] = []
_lock = threading.Lock()


def _new_lock() -> None:
    """Replace the lock in a forked child: another thread may have held it at the time."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised C-contiguous array, as ``numpy.empty``."""
    nbytes = math.prod(shape) * dtype.itemsize
    if not LEAST_BYTES <= nbytes <= MOST_BYTES // 4:
        return np.empty(shape, dtype)
    with _lock:
        buffer = _buffer(nbytes)
        start = -address(buffer) % _ALIGNMENT
        return np.ndarray(shape, dtype, buffer, start)


def aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array that begins with a cache line, outside of the pool."""
    memory = np.empty(size * dtype.itemsize + _ALIGNMENT, np.uint8)
    return np.ndarray((size,), dtype, memory, -address(memory) % _ALIGNMENT)


def address(array: np.ndarray) -> int:
    """Return where an array's first entry lies.

    The official ways take a microsecond, and a small call needs five of them. This reads the
    pointer where NumPy's C interface has it, behind the head of every object.
    """
    return _pointer_at(id(array) + _HEAD).value or 0


def _slow_address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


_pointer_at = ctypes.c_size_t.from_address
_HEAD = object.__basicsize__
_probe = np.zeros(2)[1:]
if sys.implementation.name != "cpython" or address(_probe) != _slow_address(_probe):
    address = _slow_address


def clear() -> None:
    """Give the buffers that nothing uses back to the system."""
    with _lock:
        _drop(0)


def _buffer(nbytes: int) -> np.ndarray:
    """Return an idle buffer of at least `nbytes` and less than twice that, or a new one."""
    for place in range(len(_buffers)):
        if nbytes <= _buffers[place].nbytes - _ALIGNMENT < 2 * nbytes and _idle(place):
            return _buffers[place]
    eighth = 1 << max((nbytes - 1).bit_length() - 3, 0)  # of a power of two: few sizes recur
    new = np.empty(-(-nbytes // eighth) * eighth + _ALIGNMENT, np.uint8)
    _drop(MOST_BYTES - new.nbytes)
    if sum(buffer.nbytes for buffer in _buffers) + new.nbytes <= MOST_BYTES:
        _buffers.append(new)
    return new


def _drop(most: int) -> None:
    """Drop idle buffers, the oldest first, until all come to at most `most` bytes."""
    held = sum(buffer.nbytes for buffer in _buffers)
    place = 0
    while held > most and place < len(_buffers):
        if _idle(place):
            held -= _buffers.pop(place).nbytes
        else:
            place += 1


def _references(buffers: list[np.ndarray], place: int) -> int:
    return sys.getrefcount(buffers[place])


#: What a buffer has that is in the list alone.
_ALONE = _references([np.empty(0)], 0)


def _idle(place: int) -> bool:
    """Whether no view of the buffer is left; none can come about while only we know it."""
    return _references(_buffers, place) == _ALONE
