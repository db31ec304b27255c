"""`argmax_channels`: from scores to labels."""

from __future__ import annotations

import numpy as np

from . import backends
from .arrays import numeric
from .dlpack import any_library
from .namespace import is_cupy


@any_library
def argmax_channels(x: np.ndarray, *, backend: str | None = None) -> np.ndarray:
    """Return the channel with the largest value, for every pixel.

    Parameters
    ----------
    x : ndarray
        ``(..., c)`` of real numbers, ``c >= 1``.
    backend : {None, "cpu", "reference", "cuda"}
        As in `conv`. On the host both are NumPy's own `argmax`.

    Returns
    -------
    ndarray of int64
        ``(...)``: the first of the largest; a NaN counts as larger than any number.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came.

    Examples
    --------
    >>> argmax_channels(np.array([[0.1, 0.7, 0.2], [0.5, 0.0, 0.5]]))
    array([1, 0])
    """
    x = numeric("x", x)
    if x.dtype.kind == "c":
        raise TypeError(f"x: expected real numbers, got dtype {x.dtype}")
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"x: expected channels on the last axis, got shape {x.shape}")
    backends.choose(backend, x)
    if is_cupy(x):
        from .backends.cuda.labels import argmax  # where CuPy is

        return argmax(x)
    return np.argmax(x, axis=-1).astype(np.int64, copy=False)
