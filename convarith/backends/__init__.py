"""From arrays to a backend, loaded on first use, and from a question to its cached plan."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import numpy as np

from ..geometry import ConvGeometry
from ..namespace import is_cupy
from ..validate import one_of
from .protocol import Epilogue, Options, Plan, Product
from .zeros import ZerosPlan

__all__ = ["BACKENDS", "Epilogue", "Options", "Plan", "Product", "choose", "plan"]

#: Every backend: the module that plans, and what it needs besides NumPy.
BACKENDS: dict[str, tuple[str, str | None]] = {
    "cpu": ("convarith.backends.cpu", "numba"),
    "reference": ("convarith.backends.reference", None),
    "cuda": ("convarith.backends.cuda", "cupy"),
}

#: Those of NumPy's arrays, which go to the first whose need is installed.
HOST = ("cpu", "reference")


def choose(name: str | None, array: Any = None) -> str:
    """Return the backend for an array of this kind: the one named, or the first installed.

    Without an array only the name and its need are checked; None is NumPy's then.
    """
    if name is not None:
        one_of("backend", name, (None, *BACKENDS))
        if array is not None and (name in HOST) == is_cupy(array):
            raise ValueError(_misplaced(name))
        need = BACKENDS[name][1]
        if not _installed(need):
            raise ValueError(f"backend: {name!r} needs {need}, which is not installed")
        return name
    return "cuda" if is_cupy(array) else _default()


def _misplaced(name: str) -> str:
    """Say what a backend computes on: nothing is copied behind the caller's back."""
    if name in HOST:
        came, expected, convert = "CuPy", "None or 'cuda'", "cupy.asnumpy"
    else:
        came, expected, convert = "NumPy", "None, 'cpu' or 'reference'", "cupy.asarray"
    return (
        f"backend: expected {expected} for {came} arrays, got {name!r}: "
        f"convert them with {convert} for it"
    )


@functools.cache
def _default() -> str:
    return next(name for name in HOST if _installed(BACKENDS[name][1]))


def _installed(module: str | None) -> bool:
    return module is None or importlib.util.find_spec(module) is not None


@functools.lru_cache(maxsize=1024)
def plan(
    backend: str, product: Product, geometry: ConvGeometry, dtype: np.dtype, options: Options
) -> Plan:
    """Return the backend's plan, or on the host the reference's where it has no fast path.

    Raises
    ------
    ValueError
        Where there is none that can do what `options` ask.
    """
    for name in (backend, "reference") if backend in HOST else (backend,):
        module: Any = importlib.import_module(BACKENDS[name][0])
        made = module.plan(product, geometry, dtype, options)
        if made is not None:
            return made
    if 0 in (*geometry.input_size, *geometry.output_size):
        return ZerosPlan(product, geometry, dtype)
    raise ValueError(
        f"backend: {backend!r} has no kernel for the product {product!r} over "
        f"{geometry.rank} spatial axes in {dtype}: convert the arrays with cupy.asnumpy, "
        f"and 'reference' computes it"
    )
