"""`jax.lax`'s convolutions: any layout, and an input that may be stretched by zeros.

JAX has one convolution with two dilations. ``rhs_dilation`` is ours. ``lhs_dilation`` puts zeros
between the inputs, and convolving the stretched input, padded by ``(a, b)``, is our transpose by
that stride with the crops ``(ke - 1 - a, ke - 1 - b)`` and the kernel read back to front. Strides
besides take every so many of its outputs. ``conv_transpose`` is such a call, and its default kernel
is *not* that of the convolution it transposes (``transpose_kernel=True`` is). An input of no
entries stays so when stretched: its output has ``a + b - ke + 1``, where our own default differs.

Refused, as JAX does: operands of different dtypes, numbers that are not one an axis, words with a
stretched input, crops beyond the input, feature groups together with batch groups. The dtypes are
those under ``jax.enable_x64``: 64 bits stay 64. Refused in every case: empty channels, no spatial
axes, dtypes that `convarith.conv` has not (bool, 4 and 8 bits of float), algorithms as `precision`,
and what slips through JAX's checks (bools and whole floats as numbers, conv_transpose without
strides, more pairs or amounts than needed under ``use_consistent_padding``, an empty
``lhs_dilation`` or ``rhs_dilation``), and JAX's own bfloat16 arrays on the CPU, which NumPy does
not take from DLPack. ``out_sharding`` is left out.

Source: JAX 0.10.2, ``jax/_src/lax/convolution.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dlpack import any_library
from ..geometry import ConvGeometry
from ..namespace import namespace
from ..padding import PADDING_WORDS, resolve_padding
from ..validate import integer, is_sequence, one_of, per_axis, spatial_rank
from .inexpressible import Inexpressible, Pairs, expressed, in_words
from .layout import ARRAY, KERNEL, Spelling, flipped, moved
from .product import operands, product

__all__ = [
    *("conv", "conv_general_dilated", "conv_transpose", "conv_with_general_padding"),
    *("arguments", "geometry_of", "spelling"),
]

DTYPES = (
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
)
PRECISIONS = (
    *("default", "fastest", "bfloat16", "high", "bfloat16_3x", "tensorfloat32"),
    *("highest", "float32"),
)
#: The names of what `jax.lax.Precision` holds.
LEVELS = ("DEFAULT", "HIGH", "HIGHEST")


def geometry_of(
    input_size: Any,
    kernel_size: Any,
    *,
    padding: Any = None,
    transposed: bool = False,
    in_channels: int = 1,
    out_channels: int = 1,
    window_strides: Any = None,
    strides: Any = None,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    transpose_kernel: bool = False,
    use_consistent_padding: bool = False,
) -> ConvGeometry:
    """Return the geometry of a `jax.lax` call of these arguments.

    Parameters
    ----------
    input_size, kernel_size : int or tuple of int
        Spatial sizes, in the order of the kernel's axes.
    padding, window_strides, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count
        As `conv_general_dilated` takes them, and `strides`, `transpose_kernel` and
        `use_consistent_padding` as `conv_transpose` does; the strides are 1 by default.
    transposed : bool
        Whether the call is ``conv_transpose``.
    in_channels, out_channels : int
        What the call takes and gives.
    batch_group_count : int
        1; batch groups join several inputs, and a geometry is that of one.

    Returns
    -------
    ConvGeometry
        With ``transposed=True`` for ``conv_transpose`` and for an ``lhs_dilation`` above 1.

    Raises
    ------
    TypeError, ValueError
        Where JAX refuses, and where strides and an ``lhs_dilation`` above 1 meet, which
        `conv_general_dilated` computes, but no one geometry describes.

    Examples
    --------
    >>> geometry_of(16, 4, transposed=True, strides=(2,), padding="SAME").output_size
    (32,)
    >>> geometry_of(16, 4, window_strides=(1,), lhs_dilation=(2,), padding=[(2, 2)])
    ConvGeometry((32,), (4,), strides=(2,), padding=((1, 1),)).adjoint
    """
    if transposed:
        foreign = {
            "window_strides": window_strides,
            "lhs_dilation": lhs_dilation,
            "feature_group_count": None if feature_group_count == 1 else feature_group_count,
        }
    else:
        foreign = {
            "strides": strides,
            "transpose_kernel": transpose_kernel or None,
            "use_consistent_padding": use_consistent_padding or None,
        }
    for name, value in foreign.items():
        if value is not None:
            raise TypeError(f"{name}: expected none with transposed={transposed}, got {value!r}")
    rank = spatial_rank(input_size=input_size, kernel_size=kernel_size)
    sizes = per_axis("input_size", input_size, rank, minimum=0)
    kernels = per_axis("kernel_size", kernel_size, rank, minimum=1)
    spreads = _per_axis("rhs_dilation", rhs_dilation, rank)
    steps = _per_axis("window_strides", window_strides, rank)
    if transposed:
        stretch = _per_axis("strides", strides, rank)
    else:
        stretch = _per_axis("lhs_dilation", lhs_dilation, rank)
    _layouts(dimension_numbers, rank, transposed)
    feature_groups = integer("feature_group_count", feature_group_count, minimum=1)
    if integer("batch_group_count", batch_group_count, minimum=1) > 1:
        raise ValueError(f"batch_group_count: expected 1 for one input, got {batch_group_count}")

    spans = [(k - 1) * d + 1 for k, d in zip(kernels, spreads, strict=True)]
    if transposed:
        padding = _for_the_stretched(padding, spans, stretch, bool(use_consistent_padding))
    if isinstance(padding, str):
        if max(stretch) > 1:
            raise ValueError(f"padding: expected pairs for a stretched input, got {padding!r}")
        word: Any = one_of("padding", padding.upper(), PADDING_WORDS)
        padding = resolve_padding(word, sizes, kernels, steps, spreads)
    pads = _pairs(padding, rank)
    crops, results = [], []
    for axis, (i, ke, s, (a, b)) in enumerate(zip(sizes, spans, stretch, pads, strict=True)):
        padded = _stretched(i, s) + a + b
        if padded < 0:
            raise ValueError(
                f"padding[{axis}]: expected to crop at most the {padded - a - b} there are, "
                f"got {(a, b)}"
            )
        fits = padded - ke + 1
        results.append(max(0, fits))
        crops.append((ke - 1 - a, ke - 1 - b + min(0, fits)))  # at most all is cropped
    options: dict[str, Any] = {
        "dilations": spreads,
        "groups": feature_groups,
        "in_channels": in_channels,
        "out_channels": out_channels,
    }
    if not transposed and max(stretch) == 1:
        return ConvGeometry(sizes, kernels, strides=steps, padding=pads, **options)
    if max(steps) > 1:
        raise ValueError(
            f"window_strides: expected 1 with an lhs_dilation of {stretch} (the two together are "
            f"not one geometry, though conv_general_dilated computes them), got {steps}"
        )
    return ConvGeometry.of_transpose(
        sizes, kernels, output_size=results, strides=stretch, padding=crops, **options
    ).adjoint


def _stretched(size: int, stretch: int) -> int:
    """Return the size with zeros between the entries; nothing stays nothing."""
    return (size - 1) * stretch + 1 if size else 0


def _per_axis(name: str, value: Any, rank: int) -> tuple[int, ...]:
    """Return one integer an axis; JAX takes none alone for all axes."""
    if value is None:
        return (1,) * rank
    if not is_sequence(value):
        raise TypeError(f"{name}: expected {rank} integers (one a spatial axis), got {value!r}")
    return per_axis(name, value, rank, minimum=1)


def _for_the_stretched(
    padding: Any, spans: list[int], stretch: tuple[int, ...], consistent: bool
) -> Any:
    """Return what pads the stretched input, from `conv_transpose`'s padding."""
    if isinstance(padding, str):
        if not consistent and padding not in ("SAME", "VALID"):
            return padding  # is read as that of a plain convolution
        one_of("padding", padding, ("SAME", "VALID"))
        pads = []
        for ke, s in zip(spans, stretch, strict=True):
            total, low = ke + s - 2, ke - 1
            if padding == "VALID":
                total += max(0, ke - s)
            elif s < ke:
                low = (total + 1) // 2
            pads.append((low, total - low))
        return pads
    if not consistent:
        return padding
    pairs = _pairs(padding, len(spans))
    if not all(isinstance(pair, tuple) for pair in padding):
        raise ValueError(
            f"padding: expected tuples (low, high) with use_consistent_padding, got {padding!r}"
        )
    return [(ke - 1 - low, ke - 1 - high) for ke, (low, high) in zip(spans, pairs, strict=True)]


def _pairs(padding: Any, rank: int) -> Pairs:
    pairs = tuple(padding) if is_sequence(padding) and len(padding) == rank else ()
    if not pairs or not all(is_sequence(pair) and len(pair) == 2 for pair in pairs):
        raise ValueError(
            f"padding: expected one of {', '.join(map(repr, PADDING_WORDS))} or {rank} pairs "
            f"(low, high), one a spatial axis, got {padding!r}"
        )
    return tuple(
        (integer(f"padding[{axis}]", low), integer(f"padding[{axis}]", high))
        for axis, (low, high) in enumerate(pairs)
    )


def _layouts(dimension_numbers: Any, rank: int, transposed: bool) -> tuple[str, ...]:
    """Return the axes of input, kernel and output by letter; the kernel numbers the spatial ones.

    >>> _layouts(("NWHC", "HWIO", "NCHW"), 2, False)
    ('n10c', '*io', 'nc*')
    """
    if dimension_numbers is None:
        if transposed and rank > 3:
            raise ValueError(f"dimension_numbers: expected some for {rank} spatial axes, got None")
        return ("n*c", "*io", "n*c") if transposed else ("nc*", "oi*", "nc*")
    letters = ("NC", "OI", "NC")
    if hasattr(dimension_numbers, "rhs_spec"):  # a ConvDimensionNumbers
        specs = [getattr(dimension_numbers, f"{name}_spec") for name in ("lhs", "rhs", "out")]
    elif (
        isinstance(dimension_numbers, (tuple, list))
        and len(dimension_numbers) == 3
        and all(isinstance(word, str) and len(word) == rank + 2 for word in dimension_numbers)
    ):
        spatial = [letter for letter in dimension_numbers[1] if letter not in letters[1]]
        specs = [
            tuple(word.find(letter) for letter in (*pair, *spatial))
            for word, pair in zip(dimension_numbers, letters, strict=True)
        ]
    else:
        specs = []
    every = range(rank + 2)
    if not specs or not all(isinstance(s, tuple) and sorted(s) == list(every) for s in specs):
        raise TypeError(
            f"dimension_numbers: expected None, a ConvDimensionNumbers or three strings of "
            f"{rank + 2} distinct letters with 'NC', 'OI' and 'NC' among them and the same "
            f"others, got {dimension_numbers!r}"
        )
    digits = "".join(map(str, range(rank)))
    return tuple(
        "".join((pair.lower() + digits)[spec.index(axis)] for axis in every).replace(digits, "*")
        for spec, pair in zip(specs, letters, strict=True)
    )


def arguments(geometry: ConvGeometry, *, transposed: bool = False) -> dict[str, Any]:
    """Return JAX's keyword arguments for a geometry.

    Parameters
    ----------
    geometry : ConvGeometry
    transposed : bool
        Whether to write its transpose, as ``conv_transpose``; so is a transposed geometry
        anyway.

    Returns
    -------
    dict
        ``window_strides``, ``padding``, ``rhs_dilation`` and ``feature_group_count`` for
        ``conv_general_dilated``; ``strides``, ``padding``, ``rhs_dilation`` and
        ``transpose_kernel`` for ``conv_transpose``. Layouts are the defaults.

    Raises
    ------
    Inexpressible
        For a transpose with groups.

    Examples
    --------
    >>> arguments(ConvGeometry(8, 3, strides=2, padding="SAME"))
    {'window_strides': (2,), 'padding': 'SAME', 'rhs_dilation': (1,), 'feature_group_count': 1}
    >>> arguments(ConvGeometry(8, 3, strides=2, padding=2))["padding"]
    ((2, 2),)
    >>> arguments(ConvGeometry(8, 3, strides=2, padding=(1,)), transposed=True)
    {'strides': (2,), 'padding': ((1, 2),), 'rhs_dilation': (1,), 'transpose_kernel': True}
    """
    return expressed(geometry, transposed, _candidate, geometry_of)


def _candidate(geometry: ConvGeometry) -> dict[str, Any]:
    words = PADDING_WORDS
    if geometry.transposed:
        words = ("VALID", "SAME")
        padding = tuple(
            (axis.effective_kernel - 1 - axis.low, axis.size + axis.low - _stretched(i, s))
            for axis, i, s in zip(geometry.axes, geometry.input_size, geometry.strides, strict=True)
        )
        if geometry.groups > 1:
            raise Inexpressible(
                f"groups: jax.lax.conv_transpose has none, this has {geometry.groups}; "
                f"conv_general_dilated with lhs_dilation={geometry.strides}, padding={padding} and "
                f"feature_group_count={geometry.groups} has, of the kernel reversed along its "
                "spatial axes and its channels exchanged group by group"
            )
        found: dict[str, Any] = {
            "strides": geometry.strides,
            "padding": padding,
            "rhs_dilation": geometry.dilations,
            "transpose_kernel": True,
        }
    else:
        found = {
            "window_strides": geometry.strides,
            # Where the kernel does not fit, JAX wants a high padding that leaves at least nothing.
            "padding": tuple(
                (axis.low, max(axis.high, -axis.low - axis.size)) for axis in geometry.axes
            ),
            "rhs_dilation": geometry.dilations,
            "feature_group_count": geometry.groups,
        }
    return in_words(geometry, found, words, geometry_of) or found


def spelling(
    rank: int,
    *,
    transposed: bool = False,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    lhs_dilation: Any = None,
    **arguments: Any,
) -> Spelling:
    """Return the function's name and the axes of its input and its kernel."""
    array, kernel, output = _layouts(dimension_numbers, rank, transposed)
    if not transposed:
        stretched = max(_per_axis("lhs_dilation", lhs_dilation, rank)) > 1
        return Spelling("conv_general_dilated", array, kernel, stretched, output)
    if transpose_kernel:  # its I is where the output's channels are
        kernel = kernel.translate(str.maketrans("io", "oi"))
    return Spelling("conv_transpose", array, kernel, not transpose_kernel, output)


def _call(
    lhs: Any,
    rhs: Any,
    precision: Any,
    preferred_element_type: Any,
    *,
    transposed: bool = False,
    batch_group_count: int = 1,
    **arguments: Any,
) -> np.ndarray:
    lhs, rhs = operands(DTYPES, lhs=lhs, rhs=rhs)
    if lhs.ndim != rhs.ndim or lhs.ndim < 3:
        raise ValueError(
            f"rhs: expected as many axes as lhs, at least 3, got {rhs.shape} and {lhs.shape}"
        )
    _check_precision(precision)
    dtype = _preferred(lhs.dtype, preferred_element_type)
    rank = lhs.ndim - 2
    name = "strides" if transposed else "window_strides"
    if arguments[name] is None:
        raise TypeError(f"{name}: expected {rank} integers (one a spatial axis), got None")
    written = spelling(rank, transposed=transposed, **arguments)
    x = moved(lhs, written.array, ARRAY).astype(dtype, copy=False)
    kernel = moved(rhs, written.kernel, KERNEL[transposed]).astype(dtype, copy=False)
    size, steps = x.shape[1:-1], (1,) * rank
    if written.flipped:
        kernel = flipped(kernel)
        if not transposed:  # a stretched input; what strides then skip is taken out at the end
            steps = _per_axis(name, arguments[name], rank)
            arguments[name] = None

    groups = integer("feature_group_count", arguments.get("feature_group_count", 1), minimum=1)
    batches = integer("batch_group_count", batch_group_count, minimum=1)
    if batches > 1:
        if len(x) % batches or groups > 1:
            raise ValueError(
                f"batch_group_count: expected a divisor of the batch {len(x)}, and no feature "
                f"groups, got {batches} and feature_group_count={groups}"
            )
        # Batch groups are feature groups once they are moved next to the channels.
        each, channels = (len(x) // batches, *x.shape[1:-1]), x.shape[-1]
        x = namespace(x).moveaxis(x.reshape(batches, *each, channels), 0, -2)
        x = x.reshape(*each, batches * channels)
        groups = arguments["feature_group_count"] = batches
    c_in, c_out = kernel.shape[-2:] if not transposed else kernel.shape[:-3:-1]
    if x.shape[-1] != c_in * groups or 0 in (c_in, c_out):
        raise ValueError(
            f"lhs: expected {c_in} >= 1 channels in each of {groups} groups for an rhs of shape "
            f"{rhs.shape}, got shape {lhs.shape}"
        )
    made = geometry_of(
        size,
        kernel.shape[:-2],
        transposed=transposed,
        in_channels=x.shape[-1],
        out_channels=c_out,
        **arguments,
    )
    if made.transposed and not transposed:  # from (*k, i // groups, o) to (*k, o // groups, i)
        kernel = kernel.reshape(*kernel.shape[:-1], groups, c_out // groups)
        kernel = kernel.swapaxes(-1, -3).reshape(made.kernel_shape)
    result = product(made, x, kernel)[:, *(slice(None, None, s) for s in steps)]
    return moved(result, ARRAY, written.output or written.array)


def _preferred(dtype: np.dtype, preferred: Any) -> np.dtype:
    """Return the dtype that the operands are converted to before anything is summed."""
    try:
        wanted = dtype if preferred is None else np.dtype(preferred)
    except (TypeError, ValueError) as error:
        raise TypeError(f"preferred_element_type: expected a dtype ({error})") from None
    kind, other = ("f" if d.name == "bfloat16" else d.kind for d in (dtype, wanted))
    allowed, largest = {"i": ("if", 8), "u": ("iuf", 8), "f": ("f", 8), "c": ("c", 16)}[kind]
    if other not in allowed or not dtype.itemsize <= wanted.itemsize <= largest:
        raise TypeError(
            f"preferred_element_type: expected one of the kinds {allowed!r} with "
            f"{dtype.itemsize} to {largest} bytes for {dtype} operands, got {wanted}"
        )
    return wanted


def _check_precision(precision: Any) -> None:
    """Refuse what JAX does not know; what it knows changes nothing."""
    pair = isinstance(precision, (tuple, list)) and len(precision) == 2
    for one in precision if pair else (precision,):
        known = getattr(one, "name", None) in LEVELS or (one is None and not pair)
        if not (one in PRECISIONS if isinstance(one, str) else known):
            raise ValueError(
                f"precision: expected None, one of {', '.join(map(repr, PRECISIONS))}, a "
                f"Precision, or two of them, got {precision!r}"
            )


@any_library
def conv_general_dilated(
    lhs: np.ndarray,
    rhs: np.ndarray,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> np.ndarray:
    """Return ``jax.lax.conv_general_dilated`` of arrays.

    Parameters
    ----------
    lhs : ndarray
        ``(n, c_in, *spatial)``, or as `dimension_numbers` say.
    rhs : ndarray
        ``(c_out, c_in // feature_group_count, *k)``, or as they say; of the dtype of `lhs`.
    window_strides : sequence of int
        One an axis, in the order of the kernel's axes, as all that follow.
    padding : {"SAME", "VALID", "SAME_LOWER"} or sequence of (int, int)
        The words in any case. Pairs pad the stretched input; negative ones crop it.
    lhs_dilation, rhs_dilation : sequence of int, optional
        How far apart the entries of the input and of the kernel are put.
    dimension_numbers : sequence of str, or ConvDimensionNumbers, optional
        The axes of `lhs`, `rhs` and the result, as in ``("NHWC", "HWIO", "NHWC")``.
    feature_group_count, batch_group_count : int
        Into how many groups the channels, or the batch, are split; not both.
    precision
        Changes nothing here.
    preferred_element_type : dtype, optional
        What the operands are converted to, and the dtype of the result.

    Returns
    -------
    ndarray
        ``(n // batch_group_count, c_out, ...)``, a view of channels-last memory. Along an axis
        the size is ``floor((lhs_dilation*(i - 1) + 1 + a + b - ke)/stride) + 1``.

    Raises
    ------
    TypeError, ValueError
        Where JAX refuses, naming the argument.

    Examples
    --------
    >>> x, k = np.ones((1, 2, 5, 5)), np.ones((2, 2, 3, 3))
    >>> conv_general_dilated(x, k, (2, 2), "SAME").shape
    (1, 2, 3, 3)
    >>> conv_general_dilated(x, k, (1, 1), [(1, 1)] * 2, lhs_dilation=(2, 2)).shape
    (1, 2, 9, 9)
    """
    return _call(
        lhs,
        rhs,
        precision,
        preferred_element_type,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
    )


@any_library
def conv(
    lhs: np.ndarray,
    rhs: np.ndarray,
    window_strides: Any,
    padding: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> np.ndarray:
    """Return ``jax.lax.conv``: `conv_general_dilated` with fewer arguments.

    >>> conv(np.ones((1, 2, 5)), np.ones((2, 2, 3)), (2,), "VALID").shape
    (1, 2, 2)
    """
    return conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


@any_library
def conv_with_general_padding(
    lhs: np.ndarray,
    rhs: np.ndarray,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> np.ndarray:
    """Return ``jax.lax.conv_with_general_padding``: `conv_general_dilated` with fewer arguments.

    >>> x, k = np.ones((1, 2, 5)), np.ones((2, 2, 3))
    >>> conv_with_general_padding(x, k, (2,), [(0, 1)], None, None).shape
    (1, 2, 2)
    """
    return conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


@any_library
def conv_transpose(
    lhs: np.ndarray,
    rhs: np.ndarray,
    strides: Any,
    padding: Any,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: Any = None,
    use_consistent_padding: bool = False,
) -> np.ndarray:
    """Return ``jax.lax.conv_transpose`` of arrays.

    Parameters
    ----------
    lhs : ndarray
        ``(n, *spatial, c_in)``, or as `dimension_numbers` say.
    rhs : ndarray
        ``(*k, c_in, c_out)``, or as they say, and ``(*k, c_out, c_in)`` where
        `transpose_kernel`; of the dtype of `lhs`.
    strides : sequence of int
        One an axis, in the order of the kernel's axes, as all that follow.
    padding : {"SAME", "VALID"} or sequence of (int, int)
        The words are those of the convolution that is transposed. Pairs are too with
        `use_consistent_padding`; otherwise they pad the stretched input, and other words are
        taken where nothing is stretched.
    rhs_dilation : sequence of int, optional
    dimension_numbers : sequence of str, or ConvDimensionNumbers, optional
        The axes of `lhs`, `rhs` and the result.
    transpose_kernel : bool
        Whether `rhs` is the kernel of the convolution that is transposed, with `I` and `O`
        exchanged in its `dimension_numbers`. By default it is that kernel read back to front.
    precision
        Changes nothing here.
    preferred_element_type : dtype, optional
        What the operands are converted to, and the dtype of the result.
    use_consistent_padding : bool

    Returns
    -------
    ndarray
        ``(n, ..., c_out)``. Along an axis the size is ``i*stride`` for "SAME", ``i*stride +
        max(ke - stride, 0)`` for "VALID", and ``(i - 1)*stride + 2 + a + b - ke`` for pairs.

    Raises
    ------
    TypeError, ValueError
        Where JAX refuses, naming the argument.

    Examples
    --------
    >>> x, k = np.array([[[1.0], [2.0]]]), np.array([[[1.0]], [[10.0]], [[100.0]]])
    >>> conv_transpose(x, k, (2,), "VALID").ravel()
    array([100.,  10., 201.,  20.,   2.])
    >>> conv_transpose(x, k, (2,), "VALID", transpose_kernel=True).ravel()
    array([  1.,  10., 102.,  20., 200.])
    """
    return _call(
        lhs,
        rhs,
        precision,
        preferred_element_type,
        transposed=True,
        strides=strides,
        padding=padding,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        transpose_kernel=transpose_kernel,
        use_consistent_padding=use_consistent_padding,
    )
