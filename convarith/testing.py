"""Oracles and hypothesis strategies for anyone with a convolution of their own to check.

Needs hypothesis besides NumPy. A kernel is fuzzed over ranks, sizes, strides, dilations,
paddings, groups, dtypes and memory layouts in three lines::

    @given(kernels_and_inputs())
    def test_mine(case):
        assert_close(my_conv(case.x, case.kernel, case.geometry), "forward", case)
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .arrays import computed_in
from .backends.protocol import Product
from .geometry import ConvGeometry

__all__ = ["Case", "assert_adjoint", "assert_close", "geometries", "kernels_and_inputs", "naive"]

DTYPES = (
    *("float32", "float64", "float16", "int32", "int64", "int8", "uint8"),
    *("complex64", "complex128"),
)


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
        names = ("strides", "dilations", "padding", "groups")
        return {name: getattr(self.geometry, name) for name in names}

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
        Memory layouts to draw from: C or Fortran order, every second element of a larger
        array, or all axes reversed.
    """
    drawn = draw(geometries() if geometry is None else geometry)
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    batch = draw(st.integers(0, max_batch).map(lambda n: max_batch - n))
    layout = draw(st.sampled_from(layouts))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = (
        (batch, *drawn.input_shape),
        drawn.kernel_shape,
        (batch, *drawn.output_shape),
    )
    return Case(drawn, *(_lay_out(random_array(rng, s, dtype), layout) for s in shapes))


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


def _lay_out(array: np.ndarray, layout: str) -> np.ndarray:
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "sparse":
        larger = np.zeros(tuple(2 * length for length in array.shape), array.dtype)
        view = larger[(slice(None, None, 2),) * array.ndim]
        view[...] = array
        return view
    if layout == "reversed":
        backwards = (slice(None, None, -1),) * array.ndim
        return np.ascontiguousarray(array[backwards])[backwards]
    return array


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
    dtype = _wider(np.result_type(source, operand))
    source, operand = source.astype(dtype), operand.astype(dtype)
    batch = (len(source),)
    result = np.zeros(
        {
            "forward": (*batch, *geometry.output_shape),
            "transpose": (*batch, *geometry.input_shape),
            "kernel_gradient": geometry.kernel_shape,
        }[product],
        dtype,
    )
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


def _wider(dtype: np.dtype) -> np.dtype:
    """Return a dtype whose rounding does not show beside that of `dtype`."""
    name = computed_in(dtype).name
    wider = {"float32": "float64", "float64": "longdouble"}
    wider |= {"complex64": "complex128", "complex128": "clongdouble"}
    return np.dtype(wider.get(name, name))


def assert_close(
    actual: np.ndarray, product: Product, case: Case, *, constant: float | None = None
) -> None:
    """Assert that `actual` is `product` of `case`: shape, dtype, and values to a strict bound.

    Integers must be equal. For floats ``|actual - exact| <= constant * eps * (|W| |x|)``,
    entry by entry, with ``eps`` of the dtype computed in (float32 for half types, whose results
    are rounded once more); `constant` defaults to one more than the terms of the longest sum.

    Parameters
    ----------
    actual : ndarray
        With batch and channel axes.
    product : {"forward", "transpose", "kernel_gradient"}
    case : Case
    constant : float, optional
        A tighter or wider bound.
    """
    geometry, operands = case.geometry, case.operands(product)
    dtype = np.result_type(*operands)
    exact = naive(product, geometry, *operands)
    assert actual.shape == exact.shape, f"expected shape {exact.shape}, got {actual.shape}"
    assert actual.dtype == dtype, f"expected dtype {dtype}, got {actual.dtype}"
    if dtype.kind in "iu":
        np.testing.assert_array_equal(actual, exact)
        return
    taps = math.prod(geometry.kernel_size)
    terms = {
        "forward": taps * geometry.in_channels // geometry.groups,
        "transpose": taps * geometry.out_channels // geometry.groups,
        "kernel_gradient": len(case.x) * math.prod(geometry.output_size),
    }[product]
    magnitude = naive(product, geometry, *(np.abs(operand) for operand in operands))
    bound = (terms + 1 if constant is None else constant) * magnitude
    bound *= _eps(computed_in(dtype))
    bound += terms * np.finfo(computed_in(dtype)).smallest_subnormal  # products that underflow
    if computed_in(dtype) != dtype:  # rounded once more, near zero to the subnormals' spacing
        bound += np.maximum(_eps(dtype) * np.abs(exact), 2.0**-24)
    error = np.abs(actual.astype(exact.dtype) - exact)
    worst = int(np.argmax(error - bound)) if error.size else 0
    assert (error <= bound).all(), (
        f"{product} of {case}: error {error.flat[worst]:.3g} at "
        f"{np.unravel_index(worst, error.shape)}, allowed {bound.flat[worst]:.3g}"
    )


def _eps(dtype: np.dtype) -> float:
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


def assert_adjoint(
    forward: Callable[[np.ndarray], np.ndarray],
    adjoint: Callable[[np.ndarray], np.ndarray],
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    *,
    dtype: Any = np.float64,
    seed: int = 0,
    rtol: float | None = None,
) -> None:
    """Assert ``<forward(x), y> == <x, adjoint(y)>`` for random x and y.

    Parameters
    ----------
    forward, adjoint : callable
        Maps between arrays of the two shapes.
    input_shape, output_shape : tuple of int
    dtype : dtype
        Of x and y. Integers must agree exactly; the inner product conjugates its first
        argument, as an adjoint of complex maps has it.
    seed : int
    rtol : float, optional
        Allowed relative to ``|forward(x)| |y| + |x| |adjoint(y)|``. Default: 64 eps.

    Examples
    --------
    >>> import convarith
    >>> kernel = np.arange(6.0).reshape(3, 2)
    >>> assert_adjoint(
    ...     lambda x: convarith.conv(x, kernel, strides=2),
    ...     lambda y: convarith.conv_transpose(y, kernel, strides=2, output_size=(8, 5)),
    ...     (8, 5), (3, 2))
    """
    rng = np.random.default_rng(seed)
    x, y = random_array(rng, input_shape, dtype), random_array(rng, output_shape, dtype)
    fx, ay = forward(x), adjoint(y)
    assert fx.shape == y.shape, f"forward: expected shape {y.shape}, got {fx.shape}"
    assert ay.shape == x.shape, f"adjoint: expected shape {x.shape}, got {ay.shape}"
    left, right = np.vdot(y, fx), np.vdot(ay, x)
    if left.dtype.kind in "iu":
        assert left == right, f"<y, forward(x)> = {left}, but <adjoint(y), x> = {right}"
        return
    size = np.linalg.norm(fx) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(ay)
    allowed = (64 * _eps(left.dtype) if rtol is None else rtol) * size
    assert abs(left - right) <= allowed, (
        f"<y, forward(x)> = {left}, but <adjoint(y), x> = {right}: "
        f"they differ by {abs(left - right):.3g}, allowed {allowed:.3g}"
    )
