"""`upsample_bilinear`: interpolation as a transposed convolution."""

from __future__ import annotations

import functools
import sys
from typing import Any, Literal, SupportsIndex

import numpy as np

from .arrays import computed_in, numeric
from .dlpack import any_library
from .filters import triangle
from .geometry import ConvGeometry
from .memory import require_bytes
from .namespace import is_cupy
from .operator import ConvOperator
from .ops import conv_transpose
from .validate import integer, one_of


@any_library
def upsample_bilinear(
    x: np.ndarray,
    factor: SupportsIndex,
    *,
    border: Literal["zero", "edge"] = "zero",
    backend: str | None = None,
) -> np.ndarray:
    """Return `x` enlarged `factor` times along both spatial axes, interpolated bilinearly.

    It is the transposed convolution with `bilinear_kernel` of size ``2f - f % 2``, strides
    ``f`` and padding ``f // 2``.

    Parameters
    ----------
    x : ndarray
        ``(n, h, w, c)``, or ``(h, w)``.
    factor : int
        At least 1.
    border : {"zero", "edge"}
        ``"zero"`` is that transposed convolution as it stands: half-pixel resizing in the
        interior ``[f//2, size - f//2)``, fading towards zero outside of it. ``"edge"`` divides
        by the upsampled ones, which is half-pixel resizing with the edge repeated everywhere.
    backend
        As in `conv`.

    Returns
    -------
    ndarray
        ``(n, f*h, f*w, c)`` or ``(f*h, f*w)``, of dtype ``np.result_type(x, np.float32)``
        (float16 and bfloat16 stay).

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came.

    Notes
    -----
    Long, Shelhamer & Darrell (arXiv:1411.4038), section 3.3.

    Examples
    --------
    >>> upsample_bilinear(np.array([[0.0, 4.0]]), 2, border="edge")
    array([[0., 1., 3., 4.],
           [0., 1., 3., 4.]])
    """
    x = numeric("x", x)
    if x.ndim not in (2, 4) or (x.ndim == 4 and x.shape[-1] == 0):
        raise ValueError(f"x: expected (n, h, w, c) with c >= 1, or (h, w), got shape {x.shape}")
    f = integer("factor", factor, minimum=1)
    one_of("border", border, ("zero", "edge"))
    half = computed_in(x.dtype) != x.dtype
    dtype = x.dtype if half else np.result_type(x.dtype, np.float32)
    bare = x.ndim == 2
    image = x[None, ..., None] if bare else x
    channels = image.shape[-1]
    size = 2 * f - f % 2
    computed = computed_in(dtype)
    require_bytes("the interpolation kernel", 2 * size**2 * channels * computed.itemsize, beside=x)
    if x.dtype != computed:
        require_bytes(f"x as {computed}", x.size * computed.itemsize, beside=x)
    device = x.device.id if is_cupy(x) else None
    # What is computed in float32 need not lie in memory as such, but to be divided.
    given = dtype if half and border == "zero" else computed
    operator = _operator(image.shape[1:3], f, channels, given, backend, device)
    if given != computed:
        result = operator(image)
        return result[0, ..., 0] if bare else result
    result = operator(image.astype(computed, copy=False))
    if border == "edge":
        rows, columns = (_coverage(length, f, device) for length in image.shape[1:3])
        covered = (rows[:, None] * columns)[..., None].astype(computed)
        with np.errstate(all="ignore"):
            result /= covered
    result = result.astype(dtype, copy=False)
    return result[0, ..., 0] if bare else result


def _library(device: int | None) -> Any:
    """Return the module of arrays on a CUDA device, the current one, or on the host."""
    return np if device is None else sys.modules["cupy"]


@functools.lru_cache(maxsize=8)
def _operator(
    size: tuple[int, int],
    factor: int,
    channels: int,
    dtype: np.dtype,
    backend: str | None,
    device: int | None,
) -> ConvOperator:
    """Return the transposed convolution of each channel by itself, as planned for the last few."""
    kernel = triangle(2 * factor - factor % 2)
    xp = _library(device)
    computed = computed_in(dtype)
    weights = xp.asarray(np.multiply.outer(kernel, kernel).astype(computed))
    geometry = ConvGeometry.of_transpose(size, weights.shape, strides=factor, padding=factor // 2)
    return ConvOperator(
        xp.broadcast_to(weights[..., None, None], (*weights.shape, 1, channels)),
        geometry.input_size,
        strides=factor,
        padding=factor // 2,
        groups=channels,
        dtype=None if dtype == computed else dtype,
        backend=backend,
    ).T


@functools.lru_cache(maxsize=16)
def _coverage(length: int, factor: int, device: int | None) -> np.ndarray:
    """Return what upsampled ones are along an axis: 1 inside, less at the border."""
    kernel = triangle(2 * factor - factor % 2)
    ones = conv_transpose(np.ones(length), kernel, strides=factor, padding=factor // 2)
    return _library(device).asarray(ones)
