"""What arrays hold: random numbers, small integers, and kernels of every structure."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..filters import triangle
from ..geometry import ConvGeometry

DTYPES = (
    *("float32", "float64", "float16", "int32", "int64", "int8", "uint8"),
    *("complex64", "complex128"),
)

#: Structures of a kernel that a backend may find and use. The "nearly" ones are off by one
#: entry: to take the short cut there is a mistake.
STRUCTURES = (
    *("random", "diagonal", "separable", "diagonal separable", "bilinear", "constant"),
    *("sparse", "zero", "one tap", "nearly diagonal", "nearly separable", "nearly bilinear"),
)


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return standard normal floats, or integers over their whole range."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    values = rng.standard_normal(shape)
    if dtype.kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def small_integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return whole numbers from -4 to 4 (0 to 4 where unsigned), also as floats.

    Their products and short sums are exact in every dtype, so two implementations of a
    convolution must agree to the bit.
    """
    dtype = np.dtype(dtype)
    lowest = 0 if dtype.kind == "u" else -4
    values = rng.integers(lowest, 5, shape)
    if dtype.kind == "c":
        values = values + 1j * rng.integers(lowest, 5, shape)
    return values.astype(dtype)


def structured_kernel(
    rng: np.random.Generator, geometry: ConvGeometry, dtype: Any, structure: str = "random"
) -> np.ndarray:
    """Return a kernel of `geometry` with one of the `STRUCTURES`.

    Parameters
    ----------
    rng : numpy.random.Generator
    geometry : ConvGeometry
    dtype : dtype
    structure : str
        ``"diagonal"``: no channel of a group reaches another; ``"separable"``: an outer product
        over the spatial axes; ``"bilinear"``: diagonal triangles, the same for every channel;
        ``"sparse"``: every other entry, and a whole tap, is zero.

    Examples
    --------
    >>> g = ConvGeometry(5, 3, in_channels=2, out_channels=2)
    >>> structured_kernel(np.random.default_rng(0), g, "float32", "bilinear")[:, 0]
    array([[0.5, 0. ],
           [1. , 0. ],
           [0.5, 0. ]], dtype=float32)
    """
    dtype = np.dtype(dtype)
    shape, size = geometry.kernel_shape, geometry.kernel_size
    kernel = random_array(rng, shape, dtype)
    kind = structure.removeprefix("nearly ")
    if "separable" in kind:
        vectors = [random_array(rng, (length,), dtype) for length in size]
        kernel = _outer(vectors, kernel[(0,) * len(size)])
    elif kind == "bilinear":
        scale = 1 if dtype.kind in "fcV" else 64  # integers would round to 0
        vectors = [(triangle(length) * scale).astype(dtype) for length in size]
        kernel = _outer(vectors, np.ones(shape[-2:], dtype))
    elif kind == "constant":
        kernel[...] = kernel.flat[0]
    elif kind == "sparse":
        kernel.reshape(-1)[::2] = 0
        kernel[(-1,) * len(size)] = 0
    elif kind == "zero":
        kernel[...] = 0
    elif kind == "one tap":
        at = tuple(int(rng.integers(length)) for length in size)
        tap = kernel[at].copy()
        kernel[...] = 0
        kernel[at] = tap
    if "diagonal" in kind or kind == "bilinear":
        groups = geometry.groups
        of_group = np.arange(shape[-1]) % (shape[-1] // groups)
        kernel[..., np.arange(shape[-2])[:, None] != of_group] = 0
    if kind != structure:
        kernel.reshape(-1)[rng.integers(kernel.size)] += np.asarray(1, dtype)
    return kernel


def _outer(vectors: list[np.ndarray], channels: np.ndarray) -> np.ndarray:
    """Return ``vectors[0][a] * vectors[1][b] * ... * channels[c, d]``."""
    return functools.reduce(lambda a, b: np.multiply.outer(b, a), vectors[::-1], channels)
