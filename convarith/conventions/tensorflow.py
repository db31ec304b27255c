"""`tf.nn`'s convolutions: channels last, SAME, VALID and, along two axes, explicit padding.

Every call is one `ConvGeometry`. A transposed call is told its `output_shape` and crops what the
convolution of that size pads, so under SAME a smaller output is no slice of a larger one. Groups
are implied: as many as the filters' channels go into the input's (the output's, transposed).

Refused, as TensorFlow does: tensors of different dtypes (of NumPy arrays it casts the second, which
is refused here as well), and every dtype but float16, bfloat16, float32, float64 and, along one or
two axes and not depthwise, int32; explicit padding along one or three axes, and negative padding;
inputs so far below the kernel that TensorFlow makes a negative size of them, ``i + low + high <= ke
- 2*stride`` (up to that they have an empty output). Refused in every case: zero channels; strides
and dilations that are bools or floats; strides and paddings of the batch; depthwise dilations other
than two, or with strides, where TensorFlow warns and computes what is no convolution; what only
oneDNN lets through, in float32. Taken on every machine: what only some kernels lack, that is
channels first, groups along three axes, dilated or grouped transposes, and depthwise strides that
differ.

Source: TensorFlow 2.21, ``tensorflow/python/ops/nn_ops.py`` and ``nn_impl.py``,
``tensorflow/core/framework/common_shape_fns.cc`` and ``core/kernels/conv_grad_shape_utils.cc``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..dlpack import any_library
from ..geometry import ConvGeometry
from ..validate import integer, is_sequence, one_of, per_axis, spatial_rank
from .inexpressible import Inexpressible, expressed, in_words
from .layout import ARRAY, KERNEL, Spelling, moved
from .product import operands, product

__all__ = [
    *("conv1d", "conv2d", "conv3d", "conv1d_transpose", "conv2d_transpose", "conv3d_transpose"),
    *("arguments", "depthwise_conv2d", "geometry_of", "spelling"),
]

FLOATS = ("float16", "bfloat16", "float32", "float64")
WORDS = ("VALID", "SAME")
#: Channels last and channels first, by the number of spatial axes.
FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}


def geometry_of(
    input_size: Any,
    kernel_size: Any,
    *,
    transposed: bool = False,
    in_channels: int = 1,
    out_channels: int = 1,
    groups: int = 1,
    output_shape: Any = None,
    strides: Any = None,
    stride: Any = None,
    padding: Any = None,
    data_format: str | None = None,
    dilations: Any = None,
) -> ConvGeometry:
    """Return the geometry of a `tf.nn` call of these arguments.

    Parameters
    ----------
    input_size, kernel_size : int or tuple of int
        Spatial sizes, of one to three axes; those of the transposed call where `transposed`.
    transposed : bool
        Whether the call is a ``conv2d_transpose`` or its like.
    in_channels, out_channels, groups : int
        What the call takes and gives; `tf.nn` reads the groups off the filters' shape.
    output_shape
        For transposed calls only, as `tf.nn` takes it. The batch and channels that stand in it
        are not compared with anything here.
    strides, stride, padding, data_format, dilations
        As `tf.nn` takes them: `stride` for ``conv1d``, `strides` for all others; `padding` may
        be left out for transposed calls, which then take ``"SAME"``.

    Returns
    -------
    ConvGeometry
        With ``transposed=True`` for the transposed call.

    Raises
    ------
    TypeError, ValueError
        Where TensorFlow refuses.

    Examples
    --------
    >>> geometry_of(8, 3, stride=2, padding="SAME").padding
    ((0, 1),)
    >>> geometry_of(5, 3, transposed=True, output_shape=(1, 11, 1), strides=2)
    Traceback (most recent call last):
    ...
    ValueError: output_shape: expected 9 to 10 along spatial axis 0 (the sizes whose convolution \
gives 5), got 11
    """
    rank = spatial_rank(input_size=input_size, kernel_size=kernel_size)
    first = _channels_first(data_format, rank, transposed)
    sizes = per_axis("input_size", input_size, rank, minimum=0)
    name, steps, other = "strides", strides, stride
    if _takes_stride(rank, transposed):
        name, steps, other = "stride", stride, strides
    if other is not None:
        raise TypeError(f"strides: expected under the name {name} for this call, got {other!r}")
    every = rank == 3 and not transposed
    if transposed and padding is None:
        padding = "SAME"
    options: dict[str, Any] = {
        "strides": _entries(name, steps, rank, first, every=every),
        "dilations": _entries("dilations", dilations, rank, first, every=every),
        "padding": _padding(padding, rank, first),
    }
    channels = {"in_channels": in_channels, "out_channels": out_channels}
    read = sizes
    if transposed:
        read, others = _output_shape(output_shape, rank, first)
        if others is None and groups != 1:
            raise ValueError(f"output_shape: expected 4 entries for groups, got {output_shape!r}")
        channels = {"in_channels": out_channels, "out_channels": in_channels}
    elif output_shape is not None:
        raise TypeError(
            f"output_shape: expected none but for a transposed call, got {output_shape}"
        )
    made = ConvGeometry(read, kernel_size, **options, **channels, groups=groups)
    admitted: Sequence[range] = [range(i + 1) for i in read]
    if transposed:
        admitted = ConvGeometry.input_sizes(sizes, kernel_size, **options)
    for number, (axis, fitting) in enumerate(zip(made.axes, admitted, strict=True)):
        # TensorFlow divides i + low + high - ke + s by s, rounds towards 0, and refuses what is
        # still negative.
        smallest = max(fitting.start, axis.size - axis.slack - 2 * axis.stride + 1)
        fitting = range(smallest, fitting.stop)
        if axis.size not in fitting and transposed:
            span = f"{fitting[0]} to {fitting[-1]}" if fitting else "no size at all"
            raise ValueError(
                f"output_shape: expected {span} along spatial axis {number} (the sizes whose "
                f"convolution gives {sizes[number]}), got {axis.size}"
            )
        if axis.size not in fitting:
            raise ValueError(
                f"input: expected {smallest} or more along spatial axis {number} for a kernel "
                f"that spans {axis.effective_kernel}, got {axis.size}"
            )
    return made.adjoint if transposed else made


def _takes_stride(rank: int, transposed: bool) -> bool:
    """Whether the call names its strides in the singular: ``conv1d`` alone."""
    return rank == 1 and not transposed


def _channels_first(data_format: Any, rank: int, transposed: bool) -> bool:
    if rank not in FORMATS:
        raise ValueError(f"kernel_size: expected one to three spatial axes, got {rank}")
    formats: tuple[str, ...] = FORMATS[rank]
    if rank == 1 and not transposed:
        formats += FORMATS[2]  # deprecated there, not gone
    one_of("data_format", data_format, (*formats, None))
    return str(data_format).startswith("NC")


def _spatial(entries: Sequence[Any], first: bool) -> tuple[tuple[Any, ...], tuple[Any, Any]]:
    """Split one entry an axis into the spatial ones and those of the batch and the channels."""
    n, *others = entries
    c = others.pop(0 if first else -1)
    return tuple(others), (n, c)


def _entries(name: str, value: Any, rank: int, first: bool, *, every: bool) -> tuple[int, ...]:
    """Return one integer a spatial axis; ``conv3d`` wants them for `every` axis."""
    if value is None and not (every and name == "strides"):
        return (1,) * rank
    if is_sequence(value) and len(value) == rank + 2:
        whole = [integer(f"{name}[{i}]", entry, minimum=1) for i, entry in enumerate(value)]
        spatial, others = _spatial(whole, first)
        if others != (1, 1):
            raise ValueError(f"{name}: expected 1 for the batch and the channels, got {value!r}")
        return spatial
    if every:
        raise ValueError(f"{name}: expected {rank + 2} entries, one an axis, got {value!r}")
    if is_sequence(value) and len(value) == 1:
        value = integer(name, value[0], minimum=1)
    return per_axis(name, value, rank, minimum=1)


def _padding(padding: Any, rank: int, first: bool) -> Any:
    """Return the word, or the spatial pairs of an explicit padding, which two axes may have."""
    if rank != 2 or not isinstance(padding, (list, tuple)):
        return one_of("padding", padding, WORDS)
    if len(padding) != 4 or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in padding
    ):
        raise ValueError(
            f"padding: expected one of 'VALID', 'SAME', or 4 pairs (low, high), got {padding!r}"
        )
    pairs = [
        tuple(integer(f"padding[{axis}]", side, minimum=0) for side in pair)
        for axis, pair in enumerate(padding)
    ]
    spatial, others = _spatial(pairs, first)
    if any(map(any, others)):
        raise ValueError(f"padding: expected (0, 0) for batch and channels, got {padding!r}")
    return spatial


def _output_shape(
    value: Any, rank: int, first: bool
) -> tuple[tuple[int, ...], tuple[int, int] | None]:
    """Return the spatial entries, and batch and channels where they are there.

    ``conv2d_transpose`` alone takes two entries, which then are the spatial ones.
    """
    if not is_sequence(value) or len(value) not in ({2, 4} if rank == 2 else {rank + 2}):
        short = ", or the 2 spatial ones" if rank == 2 else ""
        raise ValueError(
            f"output_shape: expected {rank + 2} entries, one an axis{short}, got {value!r}"
        )
    whole = tuple(integer(f"output_shape[{i}]", v, minimum=0) for i, v in enumerate(value))
    return (whole, None) if len(whole) == rank else _spatial(whole, first)


def arguments(
    geometry: ConvGeometry, *, transposed: bool = False, batch: int = 1
) -> dict[str, Any]:
    """Return `tf.nn`'s keyword arguments for a geometry.

    Parameters
    ----------
    geometry : ConvGeometry
    transposed : bool
        Whether to write its transpose, as ``conv2d_transpose`` or its like; so is a transposed
        geometry anyway.
    batch : int
        What `output_shape` begins with. Along two axes and without groups, it is the spatial
        size alone, which `tf.nn` takes for every batch.

    Returns
    -------
    dict
        ``strides`` (``stride`` for ``conv1d``), ``padding``, ``dilations``, and
        ``output_shape`` for the transpose, for `tf.nn` or the functions here. Groups are in the
        filters' shape, not among them.

    Raises
    ------
    Inexpressible
        Where the padding is neither VALID nor SAME and, along two axes, not explicit either,
        with the pad or crop that helps.

    Examples
    --------
    >>> arguments(ConvGeometry((8, 8), 3, strides=2, padding=((0, 1), (1, 1))))
    {'strides': (2, 2), 'padding': ((0, 0), (0, 1), (1, 1), (0, 0)), 'dilations': (1, 1)}
    >>> arguments(ConvGeometry(9, 3, strides=2, padding="SAME"), transposed=True)
    {'output_shape': (1, 9, 1), 'strides': (2,), 'padding': 'SAME', 'dilations': (1,)}
    >>> arguments(ConvGeometry(8, 3, strides=2, padding=1))
    Traceback (most recent call last):
    ...
    convarith.conventions.inexpressible.Inexpressible: padding: tf.nn pads 1 axis by 'VALID' or \
'SAME', this is ((1, 1),); pad the input by ((1, 1),) (low, high an axis) and pass stride=(2,), \
padding='VALID', dilations=(1,)
    """
    batch = integer("batch", batch, minimum=0)
    return expressed(geometry, transposed, functools.partial(_candidate, batch=batch), geometry_of)


def _candidate(geometry: ConvGeometry, batch: int) -> dict[str, Any]:
    rank, transposed = geometry.rank, geometry.transposed
    if rank not in FORMATS:
        raise Inexpressible(f"kernel_size: tf.nn convolves along 1 to 3 axes, this has {rank}")
    found: dict[str, Any] = {}
    if transposed:
        size = geometry.output_size
        alone = rank == 2 and geometry.groups == 1
        found["output_shape"] = size if alone else (batch, *size, geometry.out_channels)
    strides, dilations = geometry.strides, geometry.dilations
    if rank == 3 and not transposed:
        strides, dilations = (1, *strides, 1), (1, *dilations, 1)
    found["stride" if _takes_stride(rank, transposed) else "strides"] = strides
    found |= {"padding": None, "dilations": dilations}
    said = in_words(geometry, found, WORDS, geometry_of)
    if said is not None:
        return said
    axes, padding = geometry.axes, geometry.convolution.padding
    if rank == 2 and all(axis.low >= 0 and axis.highs[-1] >= 0 for axis in axes):
        pairs = [(axis.low, max(0, axis.high)) for axis in axes]
        return found | {"padding": ((0, 0), *pairs, (0, 0))}
    ways = "'VALID', 'SAME' or nonnegative pairs" if rank == 2 else "'VALID' or 'SAME'"
    along = "1 axis" if rank == 1 else f"{rank} axes"
    raise Inexpressible(f"padding: tf.nn pads {along} by {ways}, this is {padding}")


def spelling(
    rank: int, *, transposed: bool = False, data_format: str | None = None, **arguments: Any
) -> Spelling:
    """Return the function's name and the axes of its arrays and its kernel."""
    array = "nc*" if _channels_first(data_format, rank, transposed) else ARRAY
    suffix = "_transpose" if transposed else ""
    return Spelling(f"conv{rank}d{suffix}", array, KERNEL[transposed])


def _operands(rank: int, integers: bool, **given: Any) -> list[np.ndarray]:
    """Return input and filters, of the dtypes that TensorFlow's operation is defined for."""
    input, filters = operands((*FLOATS, "int32") if integers else FLOATS, **given)
    if filters.ndim != rank + 2:
        raise ValueError(f"{[*given][1]}: expected {rank + 2} axes, got shape {filters.shape}")
    return [input, filters]


def _groups(name: str, channels: int, filters: np.ndarray) -> int:
    """Return how many groups `channels`, on the side that they divide, and the filters make."""
    depth, others = filters.shape[-2:]
    groups = channels // depth if depth else 0
    if not groups or channels % depth:
        raise ValueError(
            f"{name}: expected a multiple of {depth} channels >= 1 for filters of shape "
            f"{filters.shape}, got {channels}"
        )
    if not others or others % groups:
        raise ValueError(
            f"filters: expected a multiple of {groups} (the groups, {channels} channels by "
            f"{depth}) >= 1 on the last axis, got shape {filters.shape}"
        )
    return groups


def _call(rank: int, transposed: bool, input: Any, filters: Any, **arguments: Any) -> np.ndarray:
    input, filters = _operands(rank, rank < 3, input=input, filters=filters)
    return _computed(rank, transposed, input, filters, **arguments)


def _computed(
    rank: int, transposed: bool, input: np.ndarray, filters: np.ndarray, **arguments: Any
) -> np.ndarray:
    if arguments["padding"] is None:  # which geometry_of takes for one left out
        raise TypeError("padding: expected 'VALID', 'SAME' or pairs, got None")
    array = spelling(rank, transposed=transposed, **arguments).array
    if input.ndim < rank + 2 or (transposed and input.ndim > rank + 2):
        more = "" if transposed else " or more"
        raise ValueError(f"input: expected {rank + 2} axes{more}, got shape {input.shape}")
    batch, inner = input.shape[: -rank - 1], input.shape[-rank - 1 :]
    x = moved(input.reshape(math.prod(batch), *inner), array, ARRAY)
    c_in, c_out = x.shape[-1], filters.shape[-1]
    if transposed:
        if c_in != filters.shape[-1]:
            raise ValueError(
                f"input: expected {filters.shape[-1]} channels for filters of shape "
                f"{filters.shape}, got shape {input.shape}"
            )
        _, others = _output_shape(arguments["output_shape"], rank, array != ARRAY)
        n, c_out = others or (len(x), filters.shape[-2])
        if n != len(x):
            raise ValueError(f"output_shape: expected a batch of {len(x)} as input, got {n}")
    made = geometry_of(
        x.shape[1:-1],
        filters.shape[:-2],
        transposed=transposed,
        in_channels=c_in,
        out_channels=c_out,
        groups=_groups(*(("output_shape", c_out) if transposed else ("input", c_in)), filters),
        **arguments,
    )
    result = moved(product(made, x, filters), ARRAY, array)
    return result.reshape(*batch, *result.shape[1:])


@any_library
def depthwise_conv2d(
    input: np.ndarray,
    filter: np.ndarray,
    strides: Any,
    padding: Any,
    data_format: str | None = None,
    dilations: Any = None,
    name: str | None = None,
) -> np.ndarray:
    """Return ``tf.nn.depthwise_conv2d`` of arrays.

    Parameters
    ----------
    input : ndarray
        ``(n, h, w, c)``, or ``(n, c, h, w)`` with ``data_format="NCHW"``.
    filter : ndarray
        ``(kh, kw, c, multiplier)``, of the dtype of `input`.
    strides : sequence of int
        Four, 1 for the batch and the channels.
    padding : {"SAME", "VALID"} or sequence of (int, int)
        Or ``(low, high)`` for each of the four axes, ``(0, 0)`` for the batch and the channels.
    data_format : {None, "NHWC", "NCHW"}
    dilations : sequence of int, optional
        Two; above 1 only where the strides are 1.
    name : str, optional
        Not used.

    Returns
    -------
    ndarray
        ``(n, h', w', c*multiplier)``, in the layout of `input`; `multiplier` channels of each
        input channel follow one another.

    Raises
    ------
    TypeError, ValueError
        Where TensorFlow refuses, naming the argument.

    Examples
    --------
    >>> x, kernel = np.ones((1, 5, 5, 2)), np.ones((3, 3, 2, 4))
    >>> depthwise_conv2d(x, kernel, (1, 2, 2, 1), "SAME").shape
    (1, 3, 3, 8)
    """
    input, filter = _operands(2, False, input=input, filter=filter)
    first = _channels_first(data_format, 2, False)
    c = input.shape[1 if first else -1] if input.ndim == 4 else 0
    if c != filter.shape[2] or 0 in filter.shape:
        raise ValueError(
            f"input: expected 4 axes and {filter.shape[2]} >= 1 channels for a filter of shape "
            f"{filter.shape}, got shape {input.shape}"
        )
    steps = _entries("strides", strides, 2, first, every=True)
    if dilations is not None and not (is_sequence(dilations) and len(dilations) == 2):
        raise ValueError(f"dilations: expected 2 entries, got {dilations!r}")
    if max(_entries("dilations", dilations, 2, first, every=False)) > 1 < max(steps):
        raise ValueError(f"dilations: expected 1 with strides {strides!r}, got {dilations!r}")
    filters = filter.reshape(*filter.shape[:2], 1, -1)
    options = {"padding": padding, "data_format": data_format, "dilations": dilations}
    return _computed(2, False, input, filters, strides=strides, **options)


def _conv(rank: int) -> Callable[..., np.ndarray]:
    def conv1d(
        input: np.ndarray,
        filters: np.ndarray,
        stride: Any,
        padding: Any,
        data_format: str | None = "NWC",
        dilations: Any = None,
        name: str | None = None,
    ) -> np.ndarray:
        options = {"padding": padding, "data_format": data_format, "dilations": dilations}
        return _call(1, False, input, filters, stride=stride, **options)

    def conv(
        input: np.ndarray,
        filters: np.ndarray,
        strides: Any,
        padding: Any,
        data_format: str | None = FORMATS[rank][0],
        dilations: Any = None,
        name: str | None = None,
    ) -> np.ndarray:
        options = {"padding": padding, "data_format": data_format, "dilations": dilations}
        return _call(rank, False, input, filters, strides=strides, **options)

    return _named(conv1d if rank == 1 else conv, rank, False)


def _conv_transpose(rank: int) -> Callable[..., np.ndarray]:
    def conv_transpose(
        input: np.ndarray,
        filters: np.ndarray,
        output_shape: Any,
        strides: Any,
        padding: Any = "SAME",
        data_format: str | None = FORMATS[rank][0],
        dilations: Any = None,
        name: str | None = None,
    ) -> np.ndarray:
        return _call(
            rank,
            True,
            input,
            filters,
            output_shape=output_shape,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilations=dilations,
        )

    return _named(conv_transpose, rank, True)


_DOCUMENTATION = """Return ``tf.nn.{name}`` of arrays.

    Parameters
    ----------
    input : ndarray
        ``({n}, {spatial}, c_in)``, or ``({n}, c_in, {spatial})`` with ``data_format={first!r}``.
    filters : ndarray
        ``{filters}``, of the dtype of `input`.{output_shape}
    {stride} : {entries}
        {lengths}
    padding : {{"SAME", "VALID"}}{explicit}
    data_format : {{None, {last!r}, {first!r}}}
    dilations : {entries}, optional
        As `{stride}`; 1 by default.
    name : str, optional
        Not used.

    Returns
    -------
    ndarray
        Of the layout and the dtype of `input`. Along an axis the size is {size}.

    Raises
    ------
    TypeError, ValueError
        Where TensorFlow refuses, naming the argument.

    Examples
    --------
    >>> {name}(np.ones((1, {fives}, 2)), np.ones(({threes}, 2, 2)), {example}).shape
    (1, {result}, 2)
    """

_OUTPUT_SHAPE = """
    output_shape : sequence of int
        One entry an axis, in the layout of `input`, with its batch.{short} Along each axis
        any size will do whose convolution gives the input's."""

_EXPLICIT = """ or sequence of (int, int)
        Or ``(low, high)`` for each of the four axes, ``(0, 0)`` for the batch and the channels."""


def _named(
    call: Callable[..., np.ndarray], rank: int, transposed: bool
) -> Callable[..., np.ndarray]:
    call.__name__ = call.__qualname__ = spelling(rank, transposed=transposed).function
    every = rank == 3 and not transposed
    last, first = FORMATS[rank]
    k = ", ".join(("kd", "kh", "kw")[-rank:])
    steps = f"(1, {', '.join('2' * rank)}, 1)" if every else "2"
    shape = f"(1, {', '.join(['10'] * rank)}, 2)"
    short = " Without groups,\n        the two spatial entries will do." if rank == 2 else ""
    call.__doc__ = _DOCUMENTATION.format(
        name=call.__name__,
        n="n" if transposed else "*batch",
        spatial=", ".join("dhw"[-rank:]),
        first=first,
        last=last,
        filters=f"({k}, c_out // groups, c_in)" if transposed else f"({k}, c_in // groups, c_out)",
        output_shape=_OUTPUT_SHAPE.format(short=short) if transposed else "",
        stride="stride" if _takes_stride(rank, transposed) else "strides",
        entries="sequence of int" if every else "int or sequence of int",
        lengths="Five, 1 for the batch and the channels."
        if every
        else "One for all axes, or one an axis, with or without 1 for the batch and the channels.",
        explicit=_EXPLICIT if rank == 2 else "",
        size="that of `output_shape`"
        if transposed
        else '``ceil(i/stride)`` for\n        ``"SAME"``, otherwise '
        "``floor((i + low + high - dilation*(k - 1) - 1)/stride) + 1``",
        fives=", ".join("5" * rank),
        threes=", ".join("3" * rank),
        example=f"{shape}, 2" if transposed else f'{steps}, "SAME"',
        result=", ".join(["10" if transposed else "3"] * rank),
    )
    return any_library(call)


conv1d, conv2d, conv3d = map(_conv, (1, 2, 3))
conv1d_transpose, conv2d_transpose, conv3d_transpose = map(_conv_transpose, (1, 2, 3))
