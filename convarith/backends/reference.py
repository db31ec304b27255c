"""The executable specification: every product in NumPy, for any rank and dtype.

The sum over the kernel runs tap by tap in C order and, within a tap, channel by channel, each
step a product rounded and then a sum rounded, elementwise. So the bits of a result do not
depend on its position, on the spatial size, on the batch, or on threads.

Error bounds, with ``eps`` of the dtype computed in (float32 for half types) and ``m`` the terms
of a sum (taps times channels): ``|y - W x| <= (m + 1) * eps * (|W| |x|)`` for forward and
transpose, before the result is rounded to a half type; ``2 * eps * (|g| |x|)`` for a float32 or
half kernel gradient, whose products are summed in float64, and ``(m + 1) * eps * (|g| |x|)`` for
any other. Where products underflow, each adds at most the smallest subnormal.
"""

from __future__ import annotations

import math

import numpy as np

from ..arrays import computed_in
from ..geometry import ConvGeometry
from .protocol import Epilogue, Options, Product


def plan(
    product: Product, geometry: ConvGeometry, dtype: np.dtype, options: Options
) -> MapPlan | KernelGradientPlan:
    """Plan any product; there is nothing this backend leaves to another."""
    if options.algorithm == "winograd":
        raise ValueError("algorithm: expected None or 'direct' on the reference, got 'winograd'")
    if options.precision != "float32":
        raise ValueError(
            f"precision: expected 'float32' on the reference, got {options.precision!r}"
        )
    if product == "kernel_gradient":
        return KernelGradientPlan(geometry, dtype)
    return MapPlan(geometry, dtype, transposed=product == "transpose")


#: Arrays of the result's size that are alive at a time: sums, products and what is stored; for
#: complex numbers the products' parts too.
_ARRAYS = (3, 4)


class MapPlan:
    """``W x``, or ``W^T y``: the same loop with inputs and outputs exchanged."""

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        self.geometry, self.dtype, self.transposed = geometry, dtype, transposed

    def __str__(self) -> str:
        return "reference: direct, tap by tap in NumPy"

    def specialised(self, operand: np.ndarray, *, reused: bool) -> MapPlan:
        """Return this plan: it looks for no structure."""
        return self

    def pack(self, kernel: np.ndarray) -> np.ndarray:
        """Return the kernel as ``(*k, source channel, group, result channel)``."""
        split = _split_groups(kernel, self.geometry.groups)  # (*k, c_in, g, c_out), both a group's
        split = split.astype(computed_in(self.dtype), copy=False)
        return np.swapaxes(split, -1, -3) if self.transposed else split

    def nbytes(self, source: np.ndarray) -> int:
        """Count the widened source, the sums, and the products of one tap and channel."""
        geometry, computed = self.geometry, computed_in(self.dtype)
        shape = geometry.input_shape if self.transposed else geometry.output_shape
        entries = len(source) * math.prod(shape) * _ARRAYS[computed.kind == "c"]
        return (entries + (source.size if source.dtype != computed else 0)) * computed.itemsize

    def run(
        self, source: np.ndarray, packed: np.ndarray, out: np.ndarray | None, epilogue: Epilogue
    ) -> np.ndarray:
        """Sum ``result[o] += source[i] * kernel[k]`` with ``i = o*stride + k*dilation - low``."""
        geometry, computed = self.geometry, computed_in(self.dtype)
        shape = geometry.input_shape if self.transposed else geometry.output_shape
        size, channels = shape[:-1], shape[-1]
        source = _split_groups(source, geometry.groups).astype(computed, copy=False)
        groups, width = geometry.groups, channels // geometry.groups
        result = np.zeros((len(source), *size, groups, width), computed)
        with np.errstate(all="ignore"):  # infinities and NaNs propagate without a word
            for taps in geometry.taps():
                at = tuple(tap.k for tap in taps)
                read, write = tuple(tap.inputs for tap in taps), tuple(tap.outputs for tap in taps)
                if self.transposed:
                    read, write = write, read
                for channel, weights in enumerate(packed[at]):  # weights (g, result channel)
                    result[:, *write] += _times(source[:, *read, :, channel, None], weights)
            result = result.reshape(len(source), *shape)
            return _store(epilogue.applied(result), self.dtype, out)


class KernelGradientPlan:
    """``k'[k, c, d] = sum over n, o of x[n, i, c] * g[n, o, d]`` with the index law's i."""

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype) -> None:
        self.geometry, self.dtype = geometry, dtype

    def __str__(self) -> str:
        return "reference: direct, tap by tap in NumPy"

    def specialised(self, operand: np.ndarray, *, reused: bool) -> KernelGradientPlan:
        """Return this plan: it looks for no structure."""
        return self

    def pack(self, g: np.ndarray) -> np.ndarray:
        """Return g as ``(n, *spatial', g, c_out)``."""
        split = _split_groups(g, self.geometry.groups)
        return split.astype(computed_in(self.dtype), copy=False)

    def nbytes(self, x: np.ndarray) -> int:
        """Count the widened input, the sums, and the products of one tap and channel."""
        geometry, computed = self.geometry, computed_in(self.dtype)
        products = len(x) * math.prod(geometry.output_shape) * _ARRAYS[computed.kind == "c"]
        sums = 2 * math.prod(geometry.kernel_shape) * max(8, computed.itemsize)
        wide = x.size if x.dtype != computed else 0
        return (products + wide) * computed.itemsize + sums

    def run(
        self, x: np.ndarray, g: np.ndarray, out: np.ndarray | None, epilogue: Epilogue
    ) -> np.ndarray:
        """Multiply the slices that each tap joins and sum over batch and positions."""
        geometry, computed = self.geometry, computed_in(self.dtype)
        x = _split_groups(x, geometry.groups).astype(computed, copy=False)  # (n, *spatial, g, c)
        summed = np.dtype(np.float64) if computed == np.float32 else computed
        positions = tuple(range(1 + geometry.rank))
        split = (*geometry.kernel_size, x.shape[-1], geometry.groups, g.shape[-1])
        result = np.zeros(split, summed)
        with np.errstate(all="ignore"):
            for taps in geometry.taps():
                at = tuple(tap.k for tap in taps)
                read, write = tuple(tap.inputs for tap in taps), tuple(tap.outputs for tap in taps)
                for channel in range(x.shape[-1]):
                    products = _times(x[:, *read, :, channel, None], g[:, *write])
                    result[(*at, channel)] = products.sum(positions, dtype=summed)
            return _store(result.reshape(geometry.kernel_shape), self.dtype, out)


def _split_groups(array: np.ndarray, groups: int) -> np.ndarray:
    """Return ``(..., c)`` as a view ``(..., groups, c // groups)``."""
    return array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups)


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a*b`` in C order, every entry with the same roundings.

    C order whatever the operands' is, or the order of a sum over it would follow theirs. And
    complex products from real ones: NumPy's own fuse some roundings, depending on the position.
    """
    if a.dtype.kind != "c":
        return np.multiply(a, b, order="C")
    product = np.empty(np.broadcast_shapes(a.shape, b.shape), a.dtype)
    product.real = a.real * b.real - a.imag * b.imag
    product.imag = a.real * b.imag + a.imag * b.real
    return product


def _store(result: np.ndarray, dtype: np.dtype, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return result.astype(dtype, copy=False)
    out[...] = result.astype(dtype, copy=False)
    return out
