"""Half types: what a GPU computes with, and float32 to and fro."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from . import gpu
from .layers import Array, namespace

#: What a program may compute with.
DTYPES = ("float32", "bfloat16", "float16")


def dtype_of(name: str) -> np.dtype:
    """Return a dtype by its name.

    Raises
    ------
    ModuleNotFoundError
        For bfloat16 without ml_dtypes, which NumPy and CuPy have it from.
    """
    if name == "bfloat16":
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    return np.dtype(name)


def empty(xp: Any, shape: tuple[int, ...], name: str) -> Array:
    """Return an array of a dtype whose entries are whatever was there.

    >>> empty(np, (2, 3), "float16").dtype
    dtype('float16')
    """
    if name != "bfloat16":
        return xp.empty(shape, name)
    return xp.empty(shape, xp.uint16).view(dtype_of(name))  # of which CuPy may make none


def narrowed(x: Array, name: str) -> Array:
    """Return float32 rounded to a dtype, to the nearest and ties to even; itself if it is that.

    >>> narrowed(np.array([1.0, 1e-3], np.float32), "float16").dtype
    dtype('float16')
    """
    if x.dtype.name == name:
        return x
    if name != "bfloat16" or namespace(x) is np:
        return x.astype(dtype_of(name))
    return gpu.narrowed(x).view(dtype_of(name))


def widened(x: Array) -> Array:
    """Return an array as float32: itself if it is that.

    >>> widened(np.ones(1, np.float16)).dtype
    dtype('float32')
    """
    if namespace(x) is not np:
        return gpu.widened(x)
    return x.astype(np.float32, copy=False)
