"""From arrays to a backend, loaded on first use, and from a question to its cached plan."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import numpy as np

from ..geometry import ConvGeometry
from ..validate import one_of
from .protocol import Epilogue, Options, Plan, Product

__all__ = ["BACKENDS", "Epilogue", "Options", "Plan", "Product", "choose", "plan"]

#: Every backend: the module that plans, and what it needs besides NumPy. NumPy arrays go to the
#: first whose need is installed.
BACKENDS: dict[str, tuple[str, str | None]] = {
    "cpu": ("convarith.backends.cpu", "numba"),
    "reference": ("convarith.backends.reference", None),
}


def choose(name: str | None) -> str:
    """Return the backend for NumPy arrays: the one named, or the first that is installed."""
    one_of("backend", name, (None, *BACKENDS))
    if name is None:
        return _default()
    need = BACKENDS[name][1]
    if not _installed(need):
        raise ValueError(f"backend: {name!r} needs {need}, which is not installed")
    return name


@functools.cache
def _default() -> str:
    return next(name for name, (_, need) in BACKENDS.items() if _installed(need))


def _installed(module: str | None) -> bool:
    return module is None or importlib.util.find_spec(module) is not None


@functools.lru_cache(maxsize=1024)
def plan(
    backend: str, product: Product, geometry: ConvGeometry, dtype: np.dtype, options: Options
) -> Plan:
    """Return the backend's plan, or the reference's where it has no fast path.

    Raises
    ------
    ValueError
        Where neither can do what `options` ask.
    """
    for name in (backend, "reference"):
        module: Any = importlib.import_module(BACKENDS[name][0])
        made = module.plan(product, geometry, dtype, options)
        if made is not None:
            return made
    raise AssertionError(f"the reference has no plan for {product} of {geometry} in {dtype}")
