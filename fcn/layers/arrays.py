"""Whose arrays these are, NumPy's or CuPy's, and what a layer expects of them."""

from __future__ import annotations

import math
import sys
from typing import Any, TypeAlias

import numpy as np

#: NumPy's or CuPy's ndarray, of float32 wherever nothing else is said.
Array: TypeAlias = Any


def namespace(array: Array) -> Any:
    """Return the module whose functions make and take arrays of this kind.

    CuPy is looked up, never imported: who holds an array of its own has imported it.

    Raises
    ------
    TypeError
        For anything but an array of NumPy or CuPy.

    Examples
    --------
    >>> namespace(np.ones(3)).__name__
    'numpy'
    """
    if isinstance(array, np.ndarray):
        return np
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return cupy
    raise TypeError(f"expected an array of NumPy or CuPy, got {type(array).__qualname__}")


def moved(array: Array, xp: Any) -> Array:
    """Return an array as one of `xp`, numpy or cupy: itself where it is one already.

    >>> ones = np.ones(3)
    >>> moved(ones, np) is ones
    True
    """
    if namespace(array) is xp:
        return array
    return array.get() if xp is np else xp.asarray(array)


def checked(name: str, array: Array, axes: int) -> Array:
    """Return `array` where it is float32 with this number of axes and no empty one.

    >>> checked("bias", np.ones((2, 2), np.float32), 1)
    Traceback (most recent call last):
    ...
    ValueError: bias: expected a float32 array with 1 axis, none empty, got float32 of shape (2, 2)
    """
    expected = f"a float32 array with {axes} {'axis' if axes == 1 else 'axes'}, none empty"
    try:
        namespace(array)
    except TypeError:
        kind = type(array).__qualname__
        raise TypeError(f"{name}: expected {expected}, got {kind}") from None
    if array.dtype != np.float32 or array.ndim != axes or 0 in array.shape:
        raise ValueError(
            f"{name}: expected {expected}, got {array.dtype} of shape {tuple(array.shape)}"
        )
    return array


def check_numbers(name: str, array: Array) -> None:
    """Refuse numbers that no network computes with: Inf, NaN, and variances below 0.

    >>> check_numbers("bn/moving_variance", np.array([1.0, -2.0]))
    Traceback (most recent call last):
    ValueError: bn/moving_variance: expected variances, got -2.0
    """
    if array.size == 0:
        return
    low, high = float(array.min()), float(array.max())  # NaN, if there is one
    if not math.isfinite(high - low):
        found = "NaN" if math.isnan(low) else f"{low:.3g} to {high:.3g}"
        raise ValueError(f"{name}: expected finite numbers, got {found}")
    if low < 0 and name.endswith("variance"):
        raise ValueError(f"{name}: expected variances, got {low}")


def channel_sums(*factors: Array) -> Array:
    """Return the sum of an array, or of the product of two, over all axes but the channels.

    Parameters
    ----------
    *factors : ndarray
        One or two arrays ``(n, h, w, c)``.

    Returns
    -------
    ndarray
        ``(c,)``, float64, accumulated in float64: a float32 sum over a batch's pixels, millions
        of them, would keep three digits. The same on every run.
    """
    xp, channels = namespace(factors[0]), factors[0].shape[-1]
    product = factors[0] if len(factors) == 1 else factors[0] * factors[1]
    return xp.sum(product.reshape(-1, channels), axis=0, dtype=xp.float64)
