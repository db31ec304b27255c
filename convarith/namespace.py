"""Whose arrays these are, NumPy's or CuPy's, and the module that computes with them.

CuPy is looked up, never imported: an array of its own can only show up where the caller has
imported it.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np


def is_cupy(value: Any) -> bool:
    """Whether `value` is a CuPy array.

    >>> is_cupy(np.ones(3))
    False
    """
    if type(value) is np.ndarray:
        return False
    return isinstance(value, getattr(sys.modules.get("cupy"), "ndarray", ()))


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
        if cuda.runtime.getDevice() != array.device.id:
            return cuda.Device(array.device.id)
    return contextlib.nullcontext()


def check_together(name: str, array: Any, first: Any) -> None:
    """Refuse an array that is not of the library and on the device of the call's first one."""
    if type(array) is type(first) is np.ndarray:
        return
    if is_cupy(array) != is_cupy(first):
        expected, came = ("CuPy", "NumPy") if is_cupy(first) else ("NumPy", "CuPy")
        raise TypeError(
            f"{name}: expected a {expected} array, as the first operand is, got a {came} array: "
            f"convert one with cupy.asarray or cupy.asnumpy"
        )
    if is_cupy(array) and array.device.id != first.device.id:
        raise ValueError(
            f"{name}: expected an array on CUDA device {first.device.id}, as the first operand "
            f"is, got one on device {array.device.id}"
        )
