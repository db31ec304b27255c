"""Arrays of other libraries, torch's and JAX's among them: seen through DLPack, never copied.

A call whose first operand is neither NumPy's nor CuPy's has all its arrays taken as views of
one of these two, by where they lie, and gives its result back to the library they came from.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .namespace import is_cupy, on_device_of

#: The arguments of the public functions that are arrays, and then those of `conventions`.
ARRAYS = frozenset(
    (
        *("x", "y", "g", "kernel", "scale", "bias", "residual", "out"),
        *("input", "filter", "filters", "weight", "inputs", "lhs", "rhs", "X", "W", "B"),
    )
)

#: DLPack's numbers of the devices whose memory NumPy reads (plain and pinned) and CuPy does
#: (a device's, and managed).
HOST, CUDA = (1, 3), (2, 13)

#: What exporters and importers raise for a tensor that they cannot hand over.
REFUSALS = (BufferError, RuntimeError, TypeError, ValueError)

Function = TypeVar("Function", bound=Callable[..., Any])


def any_library(function: Function) -> Function:
    """Let a function of NumPy and CuPy arrays take those of any library that speaks DLPack.

    It also makes the device of CuPy arrays the current one for as long as the call lasts.
    """
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    place = next(index for index, name in enumerate(names) if name in ARRAYS)

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        if len(arguments) > place:
            first = arguments[place]
            if type(first) is np.ndarray:  # at once: a small product takes a few microseconds
                return function(*arguments, **keywords)
        else:
            first = keywords.get(names[place])
        if is_cupy(first):
            with on_device_of(first):
                return function(*arguments, **keywords)
        if not _speaks(first) or len(arguments) > len(names):  # the function refuses these itself
            return function(*arguments, **keywords)
        library = _Library(names[place], first)
        views = {
            name: library.view(name, value) if name in ARRAYS else value
            for name, value in (*zip(names, arguments, strict=False), *keywords.items())
        }
        with on_device_of(views[names[place]]):
            result = function(**views)
            if result is views.get("out") and result is not None:
                if is_cupy(result):
                    library.own(result)  # which makes the caller's stream wait for this one
                return keywords["out"]
            return library.own(result)

    return call  # type: ignore[return-value]


def _speaks(value: Any) -> bool:
    """Whether `value` is an array of a library that is neither NumPy nor CuPy."""
    kind = type(value)
    return (
        hasattr(kind, "__dlpack__")
        and hasattr(kind, "__dlpack_device__")
        and not isinstance(value, (np.ndarray, np.generic))
        and not is_cupy(value)
    )


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


class _Library:
    """The library of a call's first operand."""

    def __init__(self, name: str, first: Any) -> None:
        self.name, self.kind = name, _kind(first)
        self.module = _module(first)
        if self.module is None:
            raise TypeError(
                f"{name}: expected an array of a library with from_dlpack, to which the result "
                f"is to go back, got {self.kind}"
            )

    def view(self, name: str, value: Any) -> Any:
        """Return an operand as a NumPy or CuPy array on the same memory."""
        if value is None or isinstance(value, (bool, int, float, complex, list, tuple, str)):
            return value  # numbers, and what the function refuses in its own words
        if not _speaks(value) or _module(value) is not self.module:
            raise TypeError(
                f"{name}: expected an array of the library of {self.name} ({self.kind}), "
                f"got {_kind(value)}"
            )
        if name == "out" and _kind(value).startswith("jax"):
            raise ValueError(f"out: expected a writeable array, got {_kind(value)}")
        try:
            return self._taken(name, value)
        except REFUSALS as error:
            if str(error).startswith(f"{name}: "):
                raise
            raise TypeError(
                f"{name}: expected an array that DLPack hands over as it lies in memory, "
                f"got {_kind(value)}: {error}"
            ) from error

    def _taken(self, name: str, value: Any) -> Any:
        device, _ = value.__dlpack_device__()
        if getattr(value, "is_neg", bool)():  # torch's, whose export keeps the sign from NumPy
            raise TypeError("the negative bit of a tensor is set, use tensor.resolve_neg()")
        if device in CUDA:
            return _cupy(name).from_dlpack(value)
        if device not in HOST:
            raise ValueError(
                f"{name}: expected an array on the CPU or on a CUDA device, "
                f"got one on DLPack's device {int(device)}"
            )
        if str(value.dtype) == "torch.bfloat16":  # which NumPy does not import, but views
            bits = np.from_dlpack(value.view(self.module.int16))
            return bits.view(_bfloat16(name))
        return np.from_dlpack(value)

    def own(self, result: Any) -> Any:
        """Return a result as an array of this library; what is no array stays what it is."""
        if isinstance(result, np.ndarray) and result.dtype.name == "bfloat16":
            bits = self.module.from_dlpack(result.view(np.int16))
            return bits.view(self.module.bfloat16)
        if isinstance(result, np.ndarray) or is_cupy(result):
            return self.module.from_dlpack(result)
        return result


def _module(value: Any) -> Any:
    """Return the module of an array's library that has from_dlpack, or None."""
    if hasattr(value, "__array_namespace__"):
        return value.__array_namespace__()
    for base in type(value).__mro__:
        module = sys.modules.get(base.__module__.partition(".")[0])
        if hasattr(module, "from_dlpack"):
            return module
    return None


def _cupy(name: str) -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise ValueError(f"{name}: expected CuPy for an array on a CUDA device: {error}") from error


def _bfloat16(name: str) -> np.dtype:
    try:
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError as error:
        raise TypeError(f"{name}: expected ml_dtypes for a bfloat16 array: {error}") from error
