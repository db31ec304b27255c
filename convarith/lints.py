"""What a transposed convolution does to a constant: checkerboards and partitions of unity."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from .arrays import numeric
from .dlpack import any_library
from .geometry import ConvGeometry
from .memory import require_bytes
from .namespace import on_host

__all__ = ["Checkerboard", "checkerboard", "partition_of_unity"]


@dataclasses.dataclass(frozen=True, eq=False)
class Checkerboard:
    """What the output entries of each phase get, away from the border; true where it differs.

    Attributes
    ----------
    counts : ndarray
        ``counts[p]`` windows reach an output entry ``u`` with ``u % strides == p``.
    sums : ndarray or None
        ``sums[p]`` is what an input of ones gives there, ``(*strides, c // groups, c')``: what the
        transpose gives first, what it takes second, as in the kernel.
    found : bool
        Whether sums (counts, where there is no kernel) differ between phases by more than the
        rounding of the kernel's entries.
    """

    counts: np.ndarray
    sums: np.ndarray | None
    found: bool

    def __bool__(self) -> bool:
        return self.found

    def __str__(self) -> str:
        counts = f"{self.counts.min()} to {self.counts.max()} windows reach an entry"
        if self.sums is None:
            return f"{'uneven' if self.found else 'even'}: {counts}"
        spatial = tuple(range(self.counts.ndim))
        spread = np.abs(self.sums.max(spatial) - self.sums.min(spatial)).max()
        verdict = f"checkerboard: kernel sums differ by up to {spread:.3g} between phases"
        return f"{verdict if self.found else 'no checkerboard: kernel sums agree'}; {counts}"


@any_library
def checkerboard(geometry: ConvGeometry, kernel: Any = None) -> Checkerboard:
    """Find out whether a transposed convolution prints a checkerboard on a constant.

    Parameters
    ----------
    geometry : ConvGeometry
        Of the convolution or its transpose; the latter is looked at.
    kernel : ndarray, optional
        ``geometry.kernel_shape``, or ``kernel_size`` for one channel, real. Without it only
        the overlap is judged, which training may or may not even out. One of CuPy's, or another
        tensor on a CUDA device, is waited for and read: the verdict is the host's.

    Returns
    -------
    Checkerboard
        True where there is one; ``str()`` says it in words.

    Notes
    -----
    With strides above 1 the output's entries fall into phases that see different entries of the
    kernel: those with ``k*dilation == u + low`` modulo the stride. Uneven counts come from a
    kernel size that the stride does not divide, uneven sums from the weights. Odena, Dumoulin
    & Olah, "Deconvolution and checkerboard artifacts" (Distill, 2016).

    Examples
    --------
    >>> from convarith import bilinear_kernel
    >>> print(checkerboard(ConvGeometry.of_transpose((8, 8), 5, strides=2)))
    uneven: 4 to 9 windows reach an entry
    >>> g = ConvGeometry.of_transpose((8, 8), 4, strides=2, padding=1)
    >>> print(checkerboard(g, bilinear_kernel(1, 1, 4)))
    no checkerboard: kernel sums agree; 4 to 4 windows reach an entry
    >>> bool(checkerboard(g, [[1, 1, 1, 1]] * 3 + [[1, 1, 1, 2]]))
    True
    """
    _require(geometry, 8 * math.prod(_geometry(geometry).kernel_size))
    counts = _phases(geometry, np.ones((*geometry.kernel_size, 1, 1), np.int64))[..., 0, 0]
    if kernel is None:
        return Checkerboard(counts, None, bool(counts.min() < counts.max()))
    sums, rounding = _sums(geometry, kernel)
    spatial = tuple(range(geometry.rank))
    found = sums.max(spatial) > sums.min(spatial) + rounding
    return Checkerboard(counts, sums, bool(found.any()))


@any_library
def partition_of_unity(geometry: ConvGeometry, kernel: Any) -> bool:
    """Tell whether the transpose maps constants to themselves, channel by channel.

    That is what a kernel that interpolates does: away from the border the weights that meet
    at an output sum to 1.

    Parameters
    ----------
    geometry, kernel
        As `checkerboard` takes them.

    Returns
    -------
    bool
        Up to the rounding of the kernel's entries.

    Examples
    --------
    >>> from convarith import bilinear_kernel
    >>> g = ConvGeometry.of_transpose((8, 8), 6, strides=3, in_channels=2, out_channels=2)
    >>> partition_of_unity(g, bilinear_kernel(2, 2, 6))
    True
    >>> partition_of_unity(g, 2 * bilinear_kernel(2, 2, 6))
    False
    """
    sums, rounding = _sums(_geometry(geometry), kernel)
    if geometry.in_channels != geometry.out_channels:
        return False
    width, channels = sums.shape[-2:]
    identity = np.arange(width)[:, None] == np.arange(channels) % width
    return bool((np.abs(sums - identity) <= rounding).all())


def _geometry(geometry: Any) -> ConvGeometry:
    if not isinstance(geometry, ConvGeometry):
        raise TypeError(f"geometry: expected a ConvGeometry, got {geometry!r}")
    return geometry


def _sums(geometry: ConvGeometry, kernel: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel's sum in each phase, and what rounding may make of their differences.

    Integers are summed as integers, and agree or do not.
    """
    kernel = on_host(numeric("kernel", kernel))
    if kernel.shape == geometry.kernel_size and geometry.kernel_shape[-2:] == (1, 1):
        kernel = kernel[..., None, None]
    if kernel.shape != geometry.kernel_shape:
        raise ValueError(f"kernel: expected shape {geometry.kernel_shape}, got {kernel.shape}")
    if kernel.dtype.kind == "c":
        raise TypeError(f"kernel: expected real numbers, got dtype {kernel.dtype}")
    if kernel.dtype.kind in "iu":
        sums = _phases(geometry, kernel.astype(f"{kernel.dtype.kind}8"))
        return sums, np.zeros(sums.shape[-2:], sums.dtype)
    wide = kernel.astype(np.float64)
    if not np.isfinite(wide).all():
        raise ValueError("kernel: expected finite numbers, got an infinity or NaN")
    taps = math.prod(geometry.kernel_size)
    total = np.abs(wide).sum(tuple(range(geometry.rank)))
    return _phases(geometry, wide), (_eps(kernel.dtype) + taps * 2.0**-52) * total


def _eps(dtype: np.dtype) -> float:
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


def _require(geometry: ConvGeometry, nbytes: int) -> None:
    require_bytes(
        f"the sums of {geometry.strides} phases",
        nbytes,
        way_out="look at smaller strides and kernels",
    )


def _phases(geometry: ConvGeometry, kernel: np.ndarray) -> np.ndarray:
    """Return ``(*strides, ...)``: the sum over the kernel's entries that each phase sees."""
    phases = math.prod(geometry.strides) * math.prod(kernel.shape[-2:])
    _require(geometry, 2 * kernel.itemsize * (phases + kernel.size))
    for axis, a in enumerate(geometry.axes):
        s = a.stride
        seen = (np.arange(a.kernel) * (a.dilation % s) - a.low % s) % s
        shape = (*kernel.shape[:axis], s, *kernel.shape[axis + 1 :])
        summed = np.zeros(shape, kernel.dtype)
        np.add.at(np.moveaxis(summed, axis, 0), seen, np.moveaxis(kernel, axis, 0))
        kernel = summed
    return kernel
