"""From a framework's geometry and arrays, moved to our axes, to our products."""

from __future__ import annotations

import numpy as np

from ..geometry import ConvGeometry
from ..ops import conv, conv_transpose


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
