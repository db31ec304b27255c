"""Checks that are written for NumPy's arrays, run on CuPy's: memory mirrored, calls moved.

Needs CuPy and a CUDA device.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import reject

from ..namespace import on_host
from ..operator import ConvOperator

#: Of a line of memory: a mirrored array lies as far behind one as it does on the host.
_ALIGNMENT = 64


@functools.cache
def missing() -> str | None:
    """Return what is missing for CUDA here, or None where nothing is."""
    if importlib.util.find_spec("cupy") is None:
        return "needs CuPy, which is not installed"
    runtime = importlib.import_module("cupy").cuda.runtime
    try:
        if not runtime.getDeviceCount():
            return "needs a CUDA device: there is none"
        importlib.import_module("convarith.backends.cuda.device").current()  # refuses old cards
    except RuntimeError as error:  # CuPy's own is one
        return f"needs a CUDA device: {error}"
    return None


class Mirror:
    """A NumPy array's memory on the current CUDA device, where the array has the same strides.

    An array that CuPy cannot have, of another byte order or between its elements' natural
    addresses, is a C-contiguous copy there.

    Parameters
    ----------
    array : ndarray
    memory : ndarray of uint8, optional
        What to mirror of the memory that the array lies in. Default: from its first byte to its
        last.

    Attributes
    ----------
    array : cupy.ndarray
    """

    def __init__(self, array: np.ndarray, memory: np.ndarray | None = None) -> None:
        import cupy

        self._host, self._memory, self._block = array, None, None
        if array.size == 0 or not _is_cupys(array):
            self.array = cupy.asarray(array.astype(array.dtype.newbyteorder("="), order="C"))
            return
        self._memory = _span(array) if memory is None else memory
        pad = _address(self._memory) % _ALIGNMENT
        self._block = cupy.empty(pad + self._memory.size, np.uint8)[pad:]
        self._block.set(self._memory)
        place = self._block.data + (_address(array) - _address(self._memory))
        self.array = cupy.ndarray(array.shape, array.dtype, place, array.strides)

    def fetch(self) -> np.ndarray:
        """Copy what the device has now to where it came from; return the array there."""
        if self._memory is None:
            self._host[...] = self.array.get()
        else:
            self._memory[...] = self._block.get()
        return self._host

    def assert_untouched(self) -> None:
        """Assert that the device still has what the host has."""
        if self._memory is not None:
            assert (self._block.get() == self._memory).all(), "an operand was written to"


def _is_cupys(array: np.ndarray) -> bool:
    alignment = array.dtype.alignment
    aligned = not any(place % alignment for place in (_address(array), *array.strides))
    return aligned and array.dtype.isnative


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _span(array: np.ndarray) -> np.ndarray:
    """Return the bytes from the first to the last that belong to an array, whatever its strides."""
    first, end = np.lib.array_utils.byte_bounds(array)
    return np.ctypeslib.as_array((ctypes.c_uint8 * (end - first)).from_address(first))


def moved(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a product that takes and gives NumPy's arrays and runs on CuPy's if on "cuda".

    Complex arrays are to be refused there; the example that hypothesis drew is given up then.
    """

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        if keywords.get("backend") != "cuda":
            return function(*arguments, **keywords)
        return _called(function, *arguments, **keywords)

    return call


def moved_operator(kernel: np.ndarray, *arguments: Any, **keywords: Any) -> Any:
    """Return a `ConvOperator` that does what `moved` says of products."""
    if keywords.get("backend") != "cuda":
        return ConvOperator(kernel, *arguments, **keywords)
    inner = _called(ConvOperator, kernel, *arguments, **keywords)
    window = ("strides", "padding", "dilations", "groups")
    of_host = {name: keywords[name] for name in window if name in keywords}
    return MovedOperator(inner, ConvOperator(kernel, *arguments, **of_host, backend="reference"))


class MovedOperator:
    """A `ConvOperator` of a CuPy kernel that takes and gives NumPy's arrays.

    Parameters
    ----------
    inner : ConvOperator
        Of the CuPy kernel.
    twin : ConvOperator
        Of the same kernel as NumPy's.
    """

    def __init__(self, inner: ConvOperator, twin: ConvOperator) -> None:
        self.inner, self.twin = inner, twin
        self.geometry, self.shape, self.dtype = inner.geometry, inner.shape, inner.dtype

    def __call__(self, x: np.ndarray, **keywords: Any) -> np.ndarray:
        return _called(self.inner, x, **keywords)

    @property
    def T(self) -> MovedOperator:
        return MovedOperator(self.inner.T, self.twin.T)

    @property
    def H(self) -> MovedOperator:
        return MovedOperator(self.inner.H, self.twin.H)

    @property
    def plan(self) -> Any:
        return self.inner.plan

    @property
    def kernel(self) -> np.ndarray:
        kernel = self.inner.kernel.get()
        kernel.flags.writeable = False  # a copy of a copy: what is written here would be lost
        return kernel

    def with_kernel(self, kernel: np.ndarray) -> MovedOperator:
        inner = _called(self.inner.with_kernel, kernel)
        return MovedOperator(inner, self.twin.with_kernel(kernel))

    def norm(self, **keywords: Any) -> float:
        return self.inner.norm(**keywords)

    def as_matmul(self, **keywords: Any) -> Any:
        """Return the matrix as SciPy's; of integers, which CuPy's has not, the twin's."""
        if self.dtype.kind not in "iu":
            return self.inner.as_matmul(**keywords).get()
        try:
            self.inner.as_matmul(**keywords)
        except TypeError as error:
            assert str(error).startswith("kernel: expected floats"), error
        else:
            raise AssertionError(f"expected no sparse matrix of {self.dtype} from CuPy")
        return self.twin.as_matmul(**keywords)

    def as_linear_operator(self) -> Any:
        import cupy
        from scipy.sparse.linalg import LinearOperator

        inner = self.inner.as_linear_operator()
        products = {
            name: functools.partial(
                lambda product, vectors: product(cupy.asarray(vectors)).get(), getattr(inner, name)
            )
            for name in ("matvec", "rmatvec", "matmat", "rmatmat")
        }
        return LinearOperator(inner.shape, dtype=inner.dtype, **products)


def _called(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    mirrors: dict[int, Mirror] = {}  # by the array: one that is given twice is one there too

    def mirrored(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        if id(value) not in mirrors:
            mirrors[id(value)] = Mirror(value)
        return mirrors[id(value)].array

    arguments = tuple(map(mirrored, arguments))
    keywords = {name: mirrored(value) for name, value in keywords.items()}
    out = keywords.get("out")
    try:
        result = function(*arguments, **keywords)
    except ValueError as error:
        kinds = {mirror.array.dtype.kind for mirror in mirrors.values()}
        if "c" in kinds and str(error).startswith("backend: 'cuda' has no kernel"):
            reject()
        raise
    for mirror in mirrors.values():
        if out is None or mirror.array is not out:
            mirror.assert_untouched()
        elif result is out:
            result = mirror.fetch()
    return on_host(result)
