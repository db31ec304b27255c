"""What a kernel's numbers say: that no channel meets another, that one tap is rows times columns.

Both are looked for at packing, so a kernel that has neither must be told apart at once: the first
look is at one tap.

A separable sum runs along one axis and then the other. With ``wy*wx = w*(1 + delta)``, ``|delta|
<= 2 eps``, and a rounding of ``eps/2`` at most for each of the ``kw + kh`` terms that an entry's
product passes through, its error is below ``((kh + kw)/2 + 2)*eps`` of ``|W||x|``, to first order.
The library promises ``(kh*kw + 1)*eps``, which for ``kh, kw >= 2`` leaves at least one eps for all
higher orders: they come to ``((kh + kw)*eps)**2``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..geometry import ConvGeometry


class Factors(NamedTuple):
    """Weights ``(kh, c)`` and ``(kw, c)``; their outer product, channel by channel, is a kernel."""

    y: np.ndarray
    x: np.ndarray


def diagonal(kernel: np.ndarray) -> np.ndarray | None:
    """Return the weights ``(*k, c)`` of a kernel in which no channel meets another, else None.

    Parameters
    ----------
    kernel : ndarray
        ``(*k, c_in, c_out)``, of one group. A single channel is no structure.

    Examples
    --------
    >>> diagonal(np.eye(3)[None] * 5)
    array([[5., 5., 5.]])
    >>> diagonal(np.ones((1, 3, 3))) is None
    True
    """
    *size, c_in, c_out = kernel.shape
    if c_in != c_out or c_in == 1:
        return None
    tap = kernel[tuple(length // 2 for length in size)]
    weights = np.einsum("...cc->...c", kernel)
    # A NaN counts as nonzero: on the diagonal it is a weight like others, beside it the end.
    for whole, along in ((tap, tap.diagonal()), (kernel, weights)):
        if np.count_nonzero(whole != 0) != np.count_nonzero(along):  # of bools it is faster
            return None
    return weights


def channel_weights(kernel: np.ndarray, groups: int) -> np.ndarray | None:
    """Return the weights ``(*k, c)`` of a kernel in as many groups as channels, or a diagonal one.

    None for any other.
    """
    if kernel.shape[-2:] == (1, groups):
        return kernel[..., 0, :]
    return diagonal(kernel) if groups == 1 else None


def by_channels(g: ConvGeometry) -> ConvGeometry:
    """Return the geometry with a group a channel, as a diagonal kernel's weights have it.

    >>> by_channels(ConvGeometry(9, 3, in_channels=4, out_channels=4)).groups
    4
    """
    return ConvGeometry(
        g.input_size,
        g.kernel_size,
        strides=g.strides,
        dilations=g.dilations,
        padding=g.padding,
        groups=g.in_channels,
        in_channels=g.in_channels,
        out_channels=g.out_channels,
    )


def separable(weights: np.ndarray) -> Factors | None:
    """Return the factors of depthwise weights ``(kh, kw, c)``, or None where there are none.

    The product of two factors lies within ``2 eps`` of each weight, relative to it, and is zero
    where the weight is; all weights are finite, and both axes have two taps or more. The weights
    along y are at most 1: what underflows in the sums along x is not made larger, and they
    overflow only where a sum of `weights` does.

    Parameters
    ----------
    weights : ndarray
        float32 or float64.

    Examples
    --------
    >>> separable(np.array([[4.0, 8.0], [1.0, 2.0]])[..., None])
    Factors(y=array([[0.8],
           [0.2]]), x=array([[ 5.],
           [10.]]))
    >>> separable(np.array([[4.0, 8.0], [1.0, 2.001]])[..., None]) is None
    True
    """
    kh, kw, channels = weights.shape
    if min(kh, kw) < 2 or channels == 0:
        return None
    single = weights[..., :1]
    alike = channels > 1 and bool((weights == single).all())
    with np.errstate(all="ignore"):
        factors = _factors(single if alike or channels == 1 else weights)
    if factors is None or not alike:
        return factors
    return Factors(*(np.broadcast_to(part, (len(part), channels)) for part in factors))


def _factors(weights: np.ndarray) -> Factors | None:
    kh, kw, channels = weights.shape
    eps = np.finfo(weights.dtype).eps
    # A look at one channel, by its largest weight's row and column: four weights, each within
    # the tolerance.
    first = weights[..., 0].astype(np.float64)
    if not np.isfinite(first).all():
        return None
    row, column = np.unravel_index(np.argmax(np.abs(first)), (kh, kw))
    pivot = first[row, column]
    if pivot:
        product = np.multiply.outer(first[:, column], first[row] / pivot)
        if not (np.abs(product - first) <= 8 * eps * np.abs(first)).all():
            return None
    if not np.isfinite(weights).all():
        return None
    # Sums with the signs of the largest weight's row and column cancel nothing, and average
    # over the roundings of the weights. They also leave whole numbers whole, so that the factors
    # of interpolation by a power of two are exact. Longer floats, where there are any, let
    # float64 be as float32.
    wide = weights.astype(np.float64 if weights.dtype == np.float32 else np.longdouble)
    flat = np.abs(weights).reshape(kh * kw, channels).argmax(axis=0)
    each = np.arange(channels)
    of_rows = np.sign(wide[:, flat % kw, each])
    of_columns = np.sign(wide[flat // kw, :, each]).T
    x = (wide * of_rows[:, None]).sum(axis=0)
    y = (wide * of_columns).sum(axis=1)
    total = (x * of_columns).sum(axis=0)
    y /= np.where(total == 0, 1, total)  # which is 0 where all of a channel is
    _, exponent = np.frexp(np.abs(y).max(axis=0))
    exact = np.abs(np.ldexp(y, -exponent)).max(axis=0) == 0.5
    exponent -= exact  # a power of two becomes 1
    y = np.ldexp(y, -exponent).astype(weights.dtype)
    x = np.ldexp(x, exponent).astype(weights.dtype)
    product = y.astype(wide.dtype)[:, None] * x.astype(wide.dtype)
    # Where the product itself is rounded, by half an eps at most, that much less is allowed.
    allowed = 2 if wide.dtype.itemsize > weights.dtype.itemsize else 1.5
    close = np.abs(product - wide) <= allowed * eps * np.abs(wide)
    if not (close & ((product == 0) == (wide == 0))).all():
        return None
    return Factors(y, x)
