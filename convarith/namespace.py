"""Whose arrays these are, NumPy's or CuPy's, and the module that computes with them.

CuPy is looked up, never imported: an array of its own can only show up where the caller has
imported it.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np

_cupys: Any = ()  # the type of CuPy's arrays, once one may have shown up


def is_cupy(value: Any) -> bool:
    """Whether `value` is a CuPy array.

    >>> is_cupy(np.ones(3))
    False
    """
    kind = type(value)
    if kind is np.ndarray or kind is _cupys:  # at once: it is asked a dozen times a call
        return kind is _cupys
    return _is_cupy_after_all(value)


def _is_cupy_after_all(value: Any) -> bool:
    global _cupys
    _cupys = getattr(sys.modules.get("cupy"), "ndarray", ())
    return isinstance(value, _cupys)


def namespace(array: Any) -> Any:
    """Return the module whose functions make and take arrays of this kind.

    >>> namespace(np.ones(3)).__name__
    'numpy'
    """
    return sys.modules["cupy"] if is_cupy(array) else np


def on_host(array: Any) -> np.ndarray:
    """Return a CuPy array's numbers as NumPy's, which waits for them; NumPy's as they are."""
    return array.get() if is_cupy(array) else array


def on_device_of(array: Any) -> contextlib.AbstractContextManager[Any]:
    """Make the device that holds a CuPy array the current one: launches and memory are its own."""
    if is_cupy(array):
        cuda = sys.modules["cupy"].cuda
        if cuda.runtime.getDevice() != array.data.device_id:
            return cuda.Device(array.data.device_id)
    return contextlib.nullcontext()


def check_together(name: str, array: Any, first: Any) -> None:
    """Refuse an array that is not of the library and on the device of the call's first one."""
    if array is first or type(array) is type(first) is np.ndarray:
        return
    if type(array) is not type(first) and is_cupy(array) != is_cupy(first):
        expected, came = ("CuPy", "NumPy") if is_cupy(first) else ("NumPy", "CuPy")
        raise TypeError(
            f"{name}: expected a {expected} array, as the first operand is, got a {came} array: "
            f"convert one with cupy.asarray or cupy.asnumpy"
        )
    if is_cupy(array) and array.data.device_id != first.data.device_id:
        raise ValueError(
            f"{name}: expected an array on CUDA device {first.device.id}, as the first operand "
            f"is, got one on device {array.device.id}"
        )


def may_overlap(array: Any, *others: Any) -> bool:
    """Whether an array may have memory in common with others of its library, by their bounds."""
    if not is_cupy(array):
        return any(np.may_share_memory(array, other) for other in others)
    first, last = _bounds(array)
    for other in others:
        begin, end = _bounds(other)
        if first < end and begin < last:
            return True
    return False


def _bounds(array: Any) -> tuple[int, int]:
    """Return the first address of a CuPy array and the one past its last."""
    start = array.data.ptr
    if array.flags.c_contiguous:
        return start, start + array.nbytes
    if array.size == 0:
        return start, start
    steps = [s * (n - 1) for s, n in zip(array.strides, array.shape, strict=True)]
    return (
        start + sum(step for step in steps if step < 0),
        start + sum(step for step in steps if step > 0) + array.itemsize,
    )
