"""Bilinear filters: the kernels that make a transposed convolution an interpolation."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np

from .memory import require_bytes
from .validate import integer


def bilinear_kernel(
    in_channels: SupportsIndex, out_channels: SupportsIndex, kernel_size: SupportsIndex
) -> np.ndarray:
    """Return the kernel of a transposed convolution that interpolates bilinearly.

    Entry ``[a, b, c, d]`` is ``w[a]*w[b]`` where ``c == d``, else 0, with the triangle
    ``w[j] = 1 - |j - (k - 1)/2| / ceil(k/2)``. With strides ``f`` and ``k = 2f - f % 2`` the
    weights that meet at an output sum to 1 away from the border.

    Parameters
    ----------
    in_channels, out_channels : int
        Equal, since every channel is interpolated by itself.
    kernel_size : int
        The length of both spatial axes, at least 1.

    Returns
    -------
    ndarray
        ``(kernel_size, kernel_size, in_channels, out_channels)``, float32.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came.

    Notes
    -----
    Long, Shelhamer & Darrell, "Fully convolutional networks for semantic segmentation"
    (arXiv:1411.4038), section 3.3.

    Examples
    --------
    >>> bilinear_kernel(1, 1, 4)[:, :, 0, 0]
    array([[0.0625, 0.1875, 0.1875, 0.0625],
           [0.1875, 0.5625, 0.5625, 0.1875],
           [0.1875, 0.5625, 0.5625, 0.1875],
           [0.0625, 0.1875, 0.1875, 0.0625]], dtype=float32)
    """
    channels = integer("in_channels", in_channels, minimum=1)
    others = integer("out_channels", out_channels, minimum=1)
    if others != channels:
        raise ValueError(f"out_channels: expected in_channels = {channels}, got {others}")
    size = integer("kernel_size", kernel_size, minimum=1)
    require_bytes(
        f"a kernel of shape {(size, size, channels, channels)}",
        4 * size**2 * channels**2,
        way_out="use upsample_bilinear, which needs no kernel",
    )
    kernel = np.zeros((size, size, channels, channels), np.float32)
    kernel[:, :, range(channels), range(channels)] = np.multiply.outer(
        triangle(size), triangle(size)
    )[..., None]
    return kernel


def triangle(kernel_size: int) -> np.ndarray:
    """Return the weights of linear interpolation, ``(kernel_size,)`` in float64.

    >>> triangle(5)
    array([0.33333333, 0.66666667, 1.        , 0.66666667, 0.33333333])
    """
    center = (kernel_size - 1) / 2
    return 1 - np.abs(np.arange(kernel_size) - center) / ((kernel_size + 1) // 2)
