"""What hypothesis draws from: geometries, and arrays that fit them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..backends.protocol import Product
from ..geometry import ConvGeometry
from .guards import Guarded
from .values import DTYPES, random_array, structured_kernel


@st.composite
def geometries(
    draw: st.DrawFn,
    *,
    ranks: Sequence[int] = (1, 2, 3),
    max_size: int = 12,
    max_kernel: int = 4,
    max_stride: int = 4,
    max_dilation: int = 3,
    paddings: Sequence[str] = ("VALID", "SAME", "SAME_LOWER", "EXPLICIT"),
    min_padding: int = -3,
    max_channels: int = 3,
    max_groups: int = 3,
    max_products: int = 4000,
) -> ConvGeometry:
    """Draw a `ConvGeometry`; it shrinks towards a small one without strides.

    Parameters
    ----------
    ranks : sequence of int
        The numbers of spatial axes to draw from.
    max_size, max_kernel, max_stride, max_dilation : int
        Bounds along each axis. Sizes start at 0, the others at 1.
    paddings : sequence of str
        Padding words, and ``"EXPLICIT"`` for numbers from `min_padding` (a negative one crops)
        to the kernel's span.
    max_channels, max_groups : int
        Bounds on the channels in and out of a group, and on the groups.
    max_products : int
        A bound on the entries of W, to keep an example quick: longer axes are halved.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(geometries(ranks=(2,), paddings=("SAME",)))
    ... def test_same(g):
    ...     assert g.output_size == tuple(-(-i // s) for i, s in zip(g.input_size, g.strides))
    >>> test_same()
    """
    axes = range(draw(st.sampled_from(ranks)))
    kernel = [draw(st.integers(1, max_kernel)) for _ in axes]
    dilations = [draw(st.integers(1, max_dilation)) for _ in axes]
    padding: Any = draw(st.sampled_from(paddings))
    if padding == "EXPLICIT":
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        amount = [st.integers(min_padding, span) for span in spans]
        padding = [(draw(amount[axis]), draw(amount[axis])) for axis in axes]
    groups = draw(st.integers(1, max_groups))
    of_size = functools.partial(
        ConvGeometry,
        kernel_size=kernel,
        strides=[draw(st.integers(1, max_stride)) for _ in axes],
        dilations=dilations,
        padding=padding,
        groups=groups,
        in_channels=groups * draw(st.integers(1, max_channels)),
        out_channels=groups * draw(st.integers(1, max_channels)),
    )
    size = [draw(st.integers(0, max_size)) for _ in axes]
    while of_size(size).nnz > max_products and max(size) > 1:
        size[size.index(max(size))] //= 2
    return of_size(size)


#: Sizes at, just below and just above the pixels that a register tile holds.
TILE_SIZES = (1, 0, *sorted({n + more for n in (4, 8, 14, 16, 28, 32) for more in (-1, 0, 1)}))
#: Channels at, just below and just above multiples of the vector widths.
TILE_CHANNELS = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 21, 31, 32, 33, 48, 64, 65)
_STRIDES = (1, 1, 1, 2, 2, 3, 4, 5, 8)
_KERNELS = (1, 3, 3, 2, 4, 5, 6, 7)


@st.composite
def tile_geometries(
    draw: st.DrawFn,
    *,
    ranks: Sequence[int] = (2, 2, 1, 3),
    max_products: int = 150_000,
) -> ConvGeometry:
    """Draw a `ConvGeometry` at the edges of a fast kernel's tiles.

    The last axis has an input or an output of 4, 8, 14, 16, 28 or 32 entries, one less or one
    more; the other axes are short. Channels lie likewise around the widths of vectors: dense,
    in groups, or depthwise. Kernels are up to 7 long, or twice the stride as an upsampling has
    them, strides up to 8, dilations up to 3; padding is SAME, none, negative, or more than the
    kernel spans.

    Parameters
    ----------
    ranks : sequence of int
        The numbers of spatial axes to draw from.
    max_products : int
        A bound on the entries of W: first the leading axes get shorter, then the channels fewer.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> @settings(max_examples=20)
    ... @given(tile_geometries(ranks=(2,)))
    ... def test_short_leading_axis(g):
    ...     assert g.nnz <= 150_000 and g.output_size[0] <= 28
    >>> test_short_leading_axis()
    """
    rank = draw(st.sampled_from(ranks))
    window = [draw(_windows(last=axis == rank - 1)) for axis in range(rank)]
    kernel, strides, dilations = (list(each) for each in zip(*window, strict=True))
    padding: Any = draw(st.sampled_from(("VALID", "SAME", "SAME_LOWER", "EXPLICIT")))
    if padding == "EXPLICIT":
        padding = []
        for k, d in zip(kernel, dilations, strict=True):
            amount = st.integers(-3, (k - 1) * d + 3)
            padding.append((draw(amount), draw(amount)))
    channels = draw(_channels())
    size = []
    for axis in range(rank):
        wanted = st.sampled_from(TILE_SIZES if axis == rank - 1 else (1, 2, 3, 5, 0))
        along: Any = padding if isinstance(padding, str) else [padding[axis]]
        size.append(draw(_size(wanted, kernel[axis], strides[axis], dilations[axis], along)))
    return _bounded(
        max_products, size, kernel, channels, strides=strides, dilations=dilations, padding=padding
    )


def _bounded(
    max_products: int,
    size: list[int],
    kernel: list[int],
    channels: tuple[int, int, int],
    **window: Any,
) -> ConvGeometry:
    """Return the geometry, halving the leading axes and then the channels while it is too large."""
    groups, width_in, width_out = channels
    geometry = ConvGeometry(
        size,
        kernel,
        groups=groups,
        in_channels=groups * width_in,
        out_channels=groups * width_out,
        **window,
    )
    if geometry.nnz <= max_products:
        return geometry
    size, kernel, leading = [*size], [*kernel], range(len(size) - 1)
    length, axis = max(((size[axis], axis) for axis in leading), default=(0, 0))
    taps, at = max(((kernel[axis], axis) for axis in leading), default=(0, 0))
    if max(length, taps) > 3:
        if length > taps:
            size[axis] //= 2
        else:
            kernel[at] //= 2
    elif max(width_in, width_out) > 1:
        width_in, width_out = (width_in + 1) // 2, (width_out + 1) // 2
    elif groups > 1:
        groups = (groups + 1) // 2
    else:
        size[-1] //= 2
    return _bounded(max_products, size, kernel, (groups, width_in, width_out), **window)


@st.composite
def _size(
    draw: st.DrawFn,
    wanted: st.SearchStrategy[int],
    kernel: int,
    stride: int,
    dilation: int,
    along: Any,
) -> int:
    """Draw the size of an input that is wanted itself, or whose output is."""
    size = draw(wanted)
    if draw(st.integers(0, 3)) < 3:
        choices = ConvGeometry.input_sizes(
            size, kernel, strides=stride, dilations=dilation, padding=along
        )[0]
        return draw(st.sampled_from(choices)) if choices else size
    return size


@st.composite
def _windows(draw: st.DrawFn, *, last: bool) -> tuple[int, int, int]:
    """Draw a kernel's length, stride and dilation along one axis."""
    stride = draw(st.sampled_from(_STRIDES))
    if draw(st.integers(0, 5)) == 5:  # as an upsampling by that stride has it
        return 2 * stride - (stride % 2 if last else 0), stride, 1
    return (
        draw(st.sampled_from(_KERNELS)),
        stride,
        draw(st.sampled_from((1, 1, 1, 2, 3))),
    )


@st.composite
def _channels(draw: st.DrawFn) -> tuple[int, int, int]:
    """Draw groups, and the channels in and out of each."""
    kind = draw(st.sampled_from(("dense", "dense", "square", "depthwise", "grouped")))
    width = st.sampled_from(TILE_CHANNELS)
    if kind == "depthwise":
        return draw(width), 1, draw(st.sampled_from((1, 1, 2, 3)))
    if kind == "grouped":
        return draw(st.integers(2, 4)), draw(width), draw(width)
    width_in = draw(width)
    return 1, width_in, width_in if kind == "square" else draw(width)


@st.composite
def winograd_geometries(draw: st.DrawFn, *, max_products: int = 150_000) -> ConvGeometry:
    """Draw what Winograd's algorithm is for: 3x3, stride 1, any padding, sizes around its tiles.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> @settings(max_examples=20)
    ... @given(winograd_geometries())
    ... def test_kernel(g):
    ...     assert g.kernel_size == (3, 3) and g.strides == g.dilations == (1, 1)
    >>> test_kernel()
    """
    amount = st.integers(-2, 4)
    padding: Any = draw(st.sampled_from(("VALID", "SAME", "EXPLICIT")))
    if padding == "EXPLICIT":
        padding = [(draw(amount), draw(amount)) for _ in range(2)]
    size = []
    for axis, wanted in enumerate((st.integers(1, 10), st.sampled_from(TILE_SIZES))):
        along: Any = padding if isinstance(padding, str) else [padding[axis]]
        size.append(draw(_size(wanted, 3, 1, 1, along)))
    return _bounded(max_products, size, [3, 3], draw(_channels()), padding=padding)


def window(geometry: ConvGeometry) -> dict[str, Any]:
    """Return a geometry's strides, dilations, padding and groups, as operators take them.

    Examples
    --------
    >>> window(ConvGeometry((5, 4), 3, padding=1))
    {'strides': (1, 1), 'dilations': (1, 1), 'padding': ((1, 1), (1, 1)), 'groups': 1}
    """
    return {name: getattr(geometry, name) for name in ("strides", "dilations", "padding", "groups")}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A geometry with an input, a kernel, and an output-shaped array.

    Attributes
    ----------
    geometry : ConvGeometry
    x : ndarray
        ``(n, *geometry.input_shape)``.
    kernel : ndarray
        ``geometry.kernel_shape``.
    y : ndarray
        ``(n, *geometry.output_shape)``, for the transpose and the kernel gradient.
    arguments : dict
        The keyword arguments of `convarith.conv` that make this geometry.
    """

    geometry: ConvGeometry
    x: np.ndarray
    kernel: np.ndarray
    y: np.ndarray

    @property
    def arguments(self) -> dict[str, Any]:
        return window(self.geometry)

    def operands(self, product: Product) -> tuple[np.ndarray, np.ndarray]:
        """Return what `product` takes: x or y, and the kernel or y."""
        return {
            "forward": (self.x, self.kernel),
            "transpose": (self.y, self.kernel),
            "kernel_gradient": (self.x, self.y),
        }[product]

    def __repr__(self) -> str:
        return (
            f"Case({self.geometry!r}, n={len(self.x)}, {self.x.dtype}, x.strides={self.x.strides})"
        )


@st.composite
def kernels_and_inputs(
    draw: st.DrawFn,
    geometry: st.SearchStrategy[ConvGeometry] | None = None,
    *,
    dtypes: Sequence[Any] = DTYPES,
    max_batch: int = 2,
    layouts: Sequence[str] = ("C", "F", "sparse", "reversed"),
    structures: Sequence[str] = ("random",),
) -> Case:
    """Draw a `Case`: the arrays come from one drawn seed, never element by element.

    Parameters
    ----------
    geometry : strategy, optional
        Default: ``geometries()``.
    dtypes : sequence of dtype
        One is drawn for all three arrays. Integers fill their whole range, so sums wrap;
        floats are standard normal.
    max_batch : int
        The batch has 0 to this many entries.
    layouts : sequence of str
        Memory layouts to draw from, of `LAYOUTS`; whatever lies around is filled with NaN.
    structures : sequence of str
        Structures of the kernel to draw from, of `STRUCTURES`.
    """
    drawn = draw(geometries() if geometry is None else geometry)
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    batch = draw(st.integers(0, max_batch).map(lambda n: max_batch - n))
    layout = draw(st.sampled_from(layouts))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    structure = draw(st.sampled_from(structures))
    arrays = (
        random_array(rng, (batch, *drawn.input_shape), dtype),
        structured_kernel(rng, drawn, dtype, structure),
        random_array(rng, (batch, *drawn.output_shape), dtype),
    )
    return Case(drawn, *(Guarded(array, layout).array for array in arrays))
