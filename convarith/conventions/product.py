"""What the frameworks' calls share: checked operands, moved to our axes, to our products."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ..arrays import numeric
from ..geometry import ConvGeometry
from ..ops import conv, conv_transpose
from .layout import ARRAY, KERNEL, Spelling, moved


def operands(allowed: Collection[str], **values: Any) -> list[np.ndarray]:
    """Return arrays of one library and dtype, the first one's, which is one of those allowed.

    >>> operands(("float32",), input=np.zeros(3, "f"), weight=np.zeros(3))
    Traceback (most recent call last):
    ...
    TypeError: weight: expected the dtype of input, float32, got float64
    """
    (first, leading), *others = values.items()
    leading = numeric(first, leading)
    others = [(name, numeric(name, value, leading)) for name, value in others]
    if leading.dtype.name not in allowed:
        raise TypeError(f"{first}: expected one of {', '.join(allowed)} here, got {leading.dtype}")
    for name, array in others:
        if array.dtype.newbyteorder("=") != leading.dtype.newbyteorder("="):
            raise TypeError(
                f"{name}: expected the dtype of {first}, {leading.dtype}, got {array.dtype}"
            )
    return [leading, *(array for _, array in others)]


def check_bias(name: str, bias: np.ndarray | None, channels: int) -> None:
    """Refuse a bias that has not one entry an output channel."""
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"{name}: expected shape ({channels},), got {bias.shape}")


def called(
    geometry: ConvGeometry,
    spelling: Spelling,
    x: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """Return the product of arrays laid out as a framework has them, laid out so as well."""
    kernel = moved(kernel, spelling.kernel, KERNEL[geometry.transposed])
    result = product(geometry, moved(x, spelling.array, ARRAY), kernel, bias)
    return moved(result, ARRAY, spelling.array)


def product(
    geometry: ConvGeometry, source: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    """Return what the map that `geometry` describes, transposed or not, makes of `source`.

    Parameters
    ----------
    source : ndarray
        ``(n, *geometry.input_shape)``.
    kernel : ndarray
        ``geometry.kernel_shape``.
    bias : ndarray, optional
        ``(geometry.out_channels,)``.
    """
    convolution = geometry.convolution
    arguments = {
        name: getattr(convolution, name) for name in ("strides", "dilations", "padding", "groups")
    }
    if geometry.transposed:
        size = convolution.input_size
        return conv_transpose(source, kernel, output_size=size, bias=bias, **arguments)
    return conv(source, kernel, bias=bias, **arguments)
