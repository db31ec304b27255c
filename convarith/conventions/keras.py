"""`keras.ops`' convolutions, as its TensorFlow backend computes them.

Every call is one `ConvGeometry`: ``"valid"`` and ``"same"`` pad as TensorFlow's do, and
`conv_transpose` works out the size of its output from its arguments, then crops as the
convolution of that size pads. The span of the dilated kernel enters into sizes, not its length.
There are no groups to give: `conv` has as many as its kernel's channels go into the input's.
Without a ``data_format`` the channels are last, as where Keras is not configured otherwise.

Refused, as Keras does: strides with dilations in `conv` (not in the others), an output padding
to a size whose convolution gives another input size, operands of different dtypes, and every
dtype but float16, bfloat16, float32, float64 and, along one or two axes and not depthwise, int32.

Refused in every case, while TensorFlow lets some pass: zero channels; under ``"valid"``, inputs
smaller than the kernel (where the batch is empty or the call is depthwise, it goes by how a
division rounds); strides and dilations that are neither an integer nor one an axis; kernels of
fewer axes than the input. Taken in every case: what some of TensorFlow's kernels lack, that is
channels first, dilated transposes, and depthwise strides that differ; and empty axes under
``"same"``, on which Keras's own way to depthwise strides with dilations fails.

Source: Keras 3.15, ``keras/src/ops/nn.py`` and ``keras/src/backend``, over TensorFlow 2.21.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ..dlpack import any_library
from ..geometry import ConvGeometry
from ..validate import integer, is_sequence, one_of, per_axis, spatial_rank
from .inexpressible import Inexpressible, expressed
from .layout import ARRAY, Spelling, moved
from .product import operands, product

__all__ = ["arguments", "conv", "conv_transpose", "depthwise_conv", "geometry_of", "spelling"]

FLOATS = ("float16", "bfloat16", "float32", "float64")
FORMATS = {"channels_last": ARRAY, "channels_first": "nc*"}


def geometry_of(
    input_size: Any,
    kernel_size: Any,
    *,
    transposed: bool = False,
    in_channels: int = 1,
    out_channels: int = 1,
    groups: int = 1,
    strides: Any = 1,
    padding: Any = "valid",
    output_padding: Any = None,
    data_format: Any = None,
    dilation_rate: Any = 1,
) -> ConvGeometry:
    """Return the geometry of a Keras call of these arguments.

    Parameters
    ----------
    input_size, kernel_size : int or tuple of int
        Spatial sizes; those of the transposed call where `transposed`.
    transposed : bool
        Whether the call is `conv_transpose`.
    in_channels, out_channels, groups : int
        What the call takes and gives; Keras reads them off its arrays.
    strides, padding, output_padding, data_format, dilation_rate
        As Keras takes them; `output_padding` for the transposed call only.

    Returns
    -------
    ConvGeometry
        With ``transposed=True`` for the transposed call.

    Raises
    ------
    TypeError, ValueError
        Where Keras refuses.

    Examples
    --------
    >>> geometry_of(16, 4, transposed=True, strides=2, padding="same").output_size
    (32,)
    >>> geometry_of(16, 4, transposed=True, strides=2, padding="same", output_padding=0)
    Traceback (most recent call last):
    ...
    ValueError: output_padding[0]: expected 1 to 2 for 'same', a stride of 2 and a kernel that \
spans 4, got 0
    """
    if not transposed and output_padding is not None:
        raise ValueError(f"output_padding: expected None for conv, got {output_padding!r}")
    if transposed and integer("groups", groups, minimum=1) > 1:
        raise ValueError(f"groups: expected 1 for conv_transpose, got {groups}")
    _array(data_format)
    made = _geometry(
        input_size,
        kernel_size,
        transposed=transposed,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        dilation_rate=dilation_rate,
        in_channels=in_channels,
        out_channels=out_channels,
        groups=groups,
    )
    if not transposed and max(made.strides) > 1 and max(made.dilations) > 1:
        raise ValueError(
            f"dilation_rate: expected 1 beside strides of {made.strides}, got {made.dilations}"
        )
    return made


def _array(data_format: Any) -> str:
    """Return the axes of arrays in a format."""
    if data_format is None:
        return ARRAY
    return FORMATS[_word("data_format", data_format, FORMATS)]


def _word(name: str, value: Any, allowed: Collection[str]) -> str:
    """Return one of the words allowed; Keras takes them in any case."""
    if isinstance(value, str) and value.lower() in allowed:
        return value.lower()
    return str(one_of(name, value, allowed))


def _geometry(
    input_size: Any,
    kernel_size: Any,
    *,
    transposed: bool,
    strides: Any,
    padding: Any,
    output_padding: Any = None,
    dilation_rate: Any,
    **channels: int,
) -> ConvGeometry:
    """Return the geometry of a call, a plain one of strides and dilations included."""
    rank = spatial_rank(input_size=input_size, kernel_size=kernel_size)
    if rank > 3:
        raise ValueError(f"input_size: expected 1 to 3 spatial axes, got {rank}")
    sizes = per_axis("input_size", input_size, rank, minimum=0)
    kernels = per_axis("kernel_size", kernel_size, rank, minimum=1)
    word = _word("padding", padding, ("valid", "same"))
    options: dict[str, Any] = {
        "strides": per_axis("strides", strides, rank, minimum=1),
        "dilations": per_axis("dilation_rate", dilation_rate, rank, minimum=1),
        "padding": word.upper(),
    }
    plain = ConvGeometry(sizes, kernels, **options, **channels)
    if not transposed:
        if word == "valid" and 0 in plain.output_size:
            raise ValueError(
                f"inputs: expected a size of {plain.effective_kernel_size} or more for 'valid', "
                f"as the kernel spans, got {sizes}"
            )
        return plain
    if not is_sequence(output_padding):
        output_padding = (output_padding,) * rank
    if len(output_padding) != rank:
        raise ValueError(
            f"output_padding: expected an integer or None, or {rank} of them (one a spatial "
            f"axis), got {output_padding!r}"
        )
    spans, steps = plain.effective_kernel_size, plain.strides
    outputs = [
        _output_size(word, i, ke, s, extra, f"output_padding[{axis}]")
        for axis, (i, ke, s, extra) in enumerate(
            zip(sizes, spans, steps, output_padding, strict=True)
        )
    ]
    return ConvGeometry.of_transpose(
        sizes, kernels, output_size=outputs, **options, **channels
    ).adjoint


def _output_size(
    padding: str, size: int, span: int, stride: int, extra: Any = None, name: str = ""
) -> int:
    """Return the size of the transpose along an axis, of the output padding `extra` or None."""
    if extra is None:
        return size * stride + (0 if padding == "same" else max(0, span - stride))
    extra = integer(name, extra)
    # TensorFlow takes the sizes whose convolution gives `size` back, and that are no less than 0.
    base = _base(padding, size, span, stride)
    first = 1 - span % 2 if padding == "same" else 0
    first, last = max(first, -base), first + stride - 1
    if not first <= extra <= last:
        raise ValueError(
            f"{name}: expected {first} to {last} for {padding!r}, a stride of {stride} and a "
            f"kernel that spans {span}, got {extra}"
        )
    return base + extra


def _base(padding: str, size: int, span: int, stride: int) -> int:
    """Return the size of the transpose along an axis, less its output padding."""
    return (size - 1) * stride + (span % 2 if padding == "same" else span)


def arguments(geometry: ConvGeometry, *, transposed: bool = False) -> dict[str, Any]:
    """Return Keras's keyword arguments for a geometry.

    Parameters
    ----------
    geometry : ConvGeometry
    transposed : bool
        Whether to write its transpose, as `conv_transpose`; so is a transposed geometry anyway.

    Returns
    -------
    dict
        ``strides``, ``padding``, ``dilation_rate``, and ``output_padding`` for the transpose
        (None where the size is the default), for `keras.ops` or the functions here. Groups are
        in the kernel's shape.

    Raises
    ------
    Inexpressible
        Where the paddings are neither those of ``"valid"`` nor of ``"same"``, with the pad or
        crop that helps.

    Examples
    --------
    >>> arguments(ConvGeometry(8, 3, strides=2, padding="SAME"))
    {'strides': (2,), 'padding': 'same', 'dilation_rate': (1,)}
    >>> arguments(ConvGeometry(8, 3, strides=2, padding=1))
    Traceback (most recent call last):
    ...
    convarith.conventions.inexpressible.Inexpressible: padding: keras pads as 'valid' or 'same' \
do, this is ((1, 1),); pad the input by ((1, 1),) (low, high an axis) and pass strides=(2,), \
padding='valid', dilation_rate=(1,)
    """
    return expressed(geometry, transposed, _candidate, geometry_of)


def _candidate(geometry: ConvGeometry) -> dict[str, Any]:
    convolution = geometry.convolution
    options: dict[str, Any] = {"strides": geometry.strides, "dilations": geometry.dilations}
    for word in ("valid", "same"):
        options["padding"] = word.upper()
        made = ConvGeometry(convolution.input_size, convolution.kernel_size, **options)
        if (made.output_size, made.crops) == (convolution.output_size, convolution.crops):
            break
    else:
        does, amounts = (
            ("crops", geometry.crops) if geometry.transposed else ("pads", geometry.padding)
        )
        raise Inexpressible(f"padding: keras {does} as 'valid' or 'same' do, this is {amounts}")
    found: dict[str, Any] = {"strides": geometry.strides, "padding": word}
    if geometry.transposed:
        axes = geometry.input_size, geometry.effective_kernel_size, geometry.strides
        default = tuple(_output_size(word, *axis) for axis in zip(*axes, strict=True))
        bases = [_base(word, *axis) for axis in zip(*axes, strict=True)]
        extra = tuple(o - base for o, base in zip(geometry.output_size, bases, strict=True))
        found["output_padding"] = None if geometry.output_size == default else extra
    return found | {"dilation_rate": geometry.dilations}


def spelling(rank: int, *, transposed: bool = False, **arguments: Any) -> Spelling:
    """Return the function's name and the axes of its arrays and its kernel."""
    array = _array(arguments.get("data_format"))
    if transposed:
        return Spelling("conv_transpose", array, "*oi")
    return Spelling("conv", array, "*io")


@any_library
def conv(
    inputs: np.ndarray,
    kernel: np.ndarray,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> np.ndarray:
    """Return ``keras.ops.conv`` of arrays.

    Parameters
    ----------
    inputs : ndarray
        ``(n, *spatial, c_in)`` with one to three spatial axes, or as `data_format` says.
    kernel : ndarray
        ``(*k, c_in // groups, c_out)``, of the dtype of `inputs`.
    strides, dilation_rate : int or tuple of int
        Not both above 1.
    padding : {"valid", "same"}
    data_format : {"channels_last", "channels_first"}, optional
        Default: ``"channels_last"``.

    Returns
    -------
    ndarray
        Of the dtype of `inputs`, in its format. The size along an axis is ``ceil(i/strides)``
        under ``"same"``, ``floor((i - dilation_rate*(k - 1) - 1)/strides) + 1`` under ``"valid"``.

    Raises
    ------
    TypeError, ValueError
        Where Keras refuses, naming the argument.

    Examples
    --------
    >>> conv(np.ones((1, 5, 5, 2)), np.ones((3, 3, 2, 4)), 2, "same").shape
    (1, 3, 3, 4)
    """
    return _call(
        "conv",
        inputs,
        kernel,
        data_format,
        strides=strides,
        padding=padding,
        dilation_rate=dilation_rate,
    )


@any_library
def conv_transpose(
    inputs: np.ndarray,
    kernel: np.ndarray,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> np.ndarray:
    """Return ``keras.ops.conv_transpose`` of arrays.

    Parameters
    ----------
    inputs, strides, padding, data_format, dilation_rate
        As for `conv`; strides and dilations may go together.
    kernel : ndarray
        ``(*k, c_out, c_in)``, of the dtype of `inputs`.
    output_padding : int or tuple of (int or None), optional
        Makes a size other than the default. Under ``"same"`` the low crop follows the size, so
        a larger result need not continue a smaller one.

    Returns
    -------
    ndarray
        Of the dtype of `inputs`, in its format. With ``ke = dilation_rate*(k - 1) + 1`` the size
        along an axis is ``i*strides`` under ``"same"`` and ``i*strides + max(0, ke - strides)``
        under ``"valid"``; with `output_padding` it is ``(i - 1)*strides + output_padding``, and
        ``ke % 2`` or ``ke`` more.

    Raises
    ------
    TypeError, ValueError
        Where Keras refuses, naming the argument.

    Examples
    --------
    >>> x, kernel = np.ones((1, 5, 5, 2)), np.ones((3, 3, 4, 2))
    >>> conv_transpose(x, kernel, 2, "same").shape
    (1, 10, 10, 4)
    >>> conv_transpose(x, kernel, 2, "same", output_padding=0).shape
    (1, 9, 9, 4)
    """
    return _call(
        "conv_transpose",
        inputs,
        kernel,
        data_format,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        dilation_rate=dilation_rate,
    )


@any_library
def depthwise_conv(
    inputs: np.ndarray,
    kernel: np.ndarray,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> np.ndarray:
    """Return ``keras.ops.depthwise_conv`` of arrays: every channel by itself.

    Parameters
    ----------
    inputs, strides, padding, data_format, dilation_rate
        As for `conv`, with one or two spatial axes; strides and dilations may go together.
    kernel : ndarray
        ``(*k, c_in, multiplier)``, of the dtype of `inputs`.

    Returns
    -------
    ndarray
        As from `conv`, with ``c_in*multiplier`` channels: those of each input channel together.

    Raises
    ------
    TypeError, ValueError
        Where Keras refuses, naming the argument.

    Examples
    --------
    >>> depthwise_conv(np.ones((1, 5, 5, 2)), np.ones((3, 3, 2, 4))).shape
    (1, 3, 3, 8)
    """
    return _call(
        "depthwise_conv",
        inputs,
        kernel,
        data_format,
        strides=strides,
        padding=padding,
        dilation_rate=dilation_rate,
    )


def _call(name: str, inputs: Any, kernel: Any, data_format: Any, **arguments: Any) -> np.ndarray:
    array, transposed = _array(data_format), name == "conv_transpose"
    takes_integers = name != "depthwise_conv" and getattr(inputs, "ndim", 0) < 5
    dtypes = (*FLOATS, "int32") if takes_integers else FLOATS
    inputs, kernel = operands(dtypes, inputs=inputs, kernel=kernel)
    most = 2 if name == "depthwise_conv" else 3
    if not 1 <= inputs.ndim - 2 <= most:
        raise ValueError(f"inputs: expected 1 to {most} spatial axes, got shape {inputs.shape}")
    if kernel.ndim != inputs.ndim or 0 in kernel.shape:
        raise ValueError(
            f"kernel: expected {inputs.ndim} axes, none of them empty, got shape {kernel.shape}"
        )
    x = moved(inputs, array, ARRAY)
    c_in, (*sizes, first, last) = x.shape[-1], kernel.shape
    if transposed:
        layout, fits, c_out, groups = "(*k, c_out, c_in)", last == c_in, first, 1
    elif name == "depthwise_conv":
        layout, fits, c_out, groups = "(*k, c_in, multiplier)", first == c_in, c_in * last, c_in
    else:
        groups = c_in // first
        fits = groups > 0 and groups * first == c_in and last % groups == 0
        layout, c_out = "(*k, c_in // groups, c_out)", last
    if not fits:
        raise ValueError(
            f"kernel: expected {layout} for inputs of {c_in} channels, got shape {kernel.shape}"
        )
    channels = {"groups": groups, "in_channels": c_in, "out_channels": c_out}
    read = _geometry if name == "depthwise_conv" else geometry_of
    made = read(x.shape[1:-1], sizes, transposed=transposed, **channels, **arguments)
    result = product(made, x, kernel.reshape(made.kernel_shape))
    return moved(result, ARRAY, array)
