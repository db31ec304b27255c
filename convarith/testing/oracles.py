"""Two oracles that share no code with any backend, nor with each other.

`naive` is the index law word for word, one output and one kernel entry at a time. `quick` takes
all outputs of a kernel entry at once, for sizes that loops in Python are too slow for.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from ..arrays import computed_in
from ..backends.protocol import Product
from ..geometry import ConvGeometry


def naive(
    product: Product, geometry: ConvGeometry, source: np.ndarray, operand: np.ndarray
) -> np.ndarray:
    """Return a product by loops over the index law, an oracle that shares no code with any.

    Parameters
    ----------
    product : {"forward", "transpose", "kernel_gradient"}
    geometry : ConvGeometry
    source, operand : ndarray
        x and kernel, y and kernel, or x and g; see `Case.operands`.

    Returns
    -------
    ndarray
        Floats in a wider dtype than the operands' where NumPy has one, integers in theirs.
    """
    source, operand, result = _prepare(product, geometry, source, operand)
    c_in = geometry.in_channels // geometry.groups
    c_out = geometry.out_channels // geometry.groups
    for o in np.ndindex(*geometry.output_size):
        for k in np.ndindex(*geometry.kernel_size):
            i = tuple(
                o[a] * geometry.strides[a] + k[a] * geometry.dilations[a] - geometry.padding[a][0]
                for a in range(geometry.rank)
            )
            if not all(0 <= i[a] < geometry.input_size[a] for a in range(geometry.rank)):
                continue
            for group in range(geometry.groups):
                ins = slice(group * c_in, (group + 1) * c_in)
                outs = slice(group * c_out, (group + 1) * c_out)
                if product == "forward":
                    result[:, *o, outs] += source[:, *i, ins] @ operand[*k, :, outs]
                elif product == "transpose":
                    result[:, *i, ins] += source[:, *o, outs] @ operand[*k, :, outs].T
                else:
                    result[*k, :, outs] += source[:, *i, ins].T @ operand[:, *o, outs]
    return result


def quick(
    product: Product, geometry: ConvGeometry, source: np.ndarray, operand: np.ndarray
) -> np.ndarray:
    """Return what `naive` does, a kernel entry and a group at a time; see there.

    Examples
    --------
    >>> g = ConvGeometry(1000, 3, strides=2, padding="SAME")
    >>> x, kernel = np.ones((1, 1000, 1), np.float32), np.ones((3, 1, 1), np.float32)
    >>> quick("forward", g, x, kernel).sum()
    np.float64(1499.0)
    """
    source, operand, result = _prepare(product, geometry, source, operand)
    groups = geometry.groups
    with np.errstate(all="ignore"):  # infinities and NaNs are data
        for joined in itertools.product(*(_joined(geometry, a) for a in range(geometry.rank))):
            k, outputs, inputs = zip(*joined, strict=True)
            for ins, outs in zip(
                _channels(geometry.in_channels, groups),
                _channels(geometry.out_channels, groups),
                strict=True,
            ):
                if product == "forward":
                    at = (slice(None), *outputs, outs)
                    result[at] += source[:, *inputs, ins] @ operand[*k, :, outs]
                elif product == "transpose":
                    at = (slice(None), *inputs, ins)
                    result[at] += source[:, *outputs, outs] @ operand[*k, :, outs].T
                else:
                    x, g = source[:, *inputs, ins], operand[:, *outputs, outs]
                    rows = x.reshape(-1, x.shape[-1])
                    result[*k, :, outs] += rows.T @ g.reshape(-1, g.shape[-1])
    return result


def _joined(geometry: ConvGeometry, axis: int) -> list[tuple[int, slice, slice]]:
    """Return, for each kernel index of an axis, the outputs it serves and the inputs they read."""
    stride, size = geometry.strides[axis], geometry.input_size[axis]
    outputs = np.arange(geometry.output_size[axis])
    joined = []
    for k in range(geometry.kernel_size[axis]):
        read = outputs * stride + k * geometry.dilations[axis] - geometry.padding[axis][0]
        inside = outputs[(0 <= read) & (read < size)]
        if len(inside):
            first, last = int(inside[0]), int(inside[-1])
            inputs = slice(int(read[first]), int(read[last]) + 1, stride)
            joined.append((k, slice(first, last + 1), inputs))
    return joined


def _channels(channels: int, groups: int) -> list[slice]:
    width = channels // groups
    return [slice(group * width, (group + 1) * width) for group in range(groups)]


def exact(
    product: Product, geometry: ConvGeometry, source: np.ndarray, operand: np.ndarray
) -> np.ndarray:
    """Return `naive` where that is quick enough, else `quick`."""
    steps = math.prod((*geometry.output_size, *geometry.kernel_size, geometry.groups))
    return (naive if steps <= 500 else quick)(product, geometry, source, operand)


def _prepare(
    product: Product, geometry: ConvGeometry, source: np.ndarray, operand: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the operands in a wider dtype, and zeros of the result's shape in it."""
    dtype = wider(np.result_type(source, operand))
    shape = {
        "forward": (len(source), *geometry.output_shape),
        "transpose": (len(source), *geometry.input_shape),
        "kernel_gradient": geometry.kernel_shape,
    }[product]
    return source.astype(dtype), operand.astype(dtype), np.zeros(shape, dtype)


def wider(dtype: np.dtype) -> np.dtype:
    """Return a dtype whose rounding does not show beside that of `dtype`."""
    name = computed_in(dtype).name
    named = {"float32": "float64", "float64": "longdouble"}
    named |= {"complex64": "complex128", "complex128": "clongdouble"}
    return np.dtype(named.get(name, name))
