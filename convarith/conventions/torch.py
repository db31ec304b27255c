"""`torch.nn.functional`'s convolutions: channels first, padding the same on both sides.

Every call is one `ConvGeometry`. ``padding`` is low and high alike; the transposed calls crop
``padding`` low and ``padding - output_padding`` high, so the cells that an output padding adds
are computed like all the others. Inputs may come without a batch axis. Nothing is conjugated.

Refused, as torch does: operands of different dtypes, negative paddings, ``"same"`` with strides,
an output padding of ``max(stride, dilation)`` or more, empty spatial axes and empty outputs, and
integers other than int64 where the call is transposed or dilated. Refused in every case: zero
channels, which torch's forward gives a wrong shape; empty outputs of transposed calls, which
torch takes or refuses as its choice of kernel goes (stride, threads and dtype enter into it); a
bias of another dtype, which some of its transposed kernels take; and what torch takes of a batch
of none alone, of which it checks little (other dtypes, empty spatial axes).

Source: PyTorch 2.13, ``torch.nn.functional`` and ``aten/src/ATen/native/Convolution.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dlpack import any_library
from ..geometry import ConvGeometry
from ..validate import integer, is_sequence, one_of, per_axis, spatial_rank
from .inexpressible import Inexpressible, expressed
from .layout import Spelling
from .product import called, check_bias, operands

__all__ = [
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("arguments", "geometry_of", "spelling"),
]

FLOATS = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
#: All but the last for plain calls without dilations only.
INTEGERS = ("int8", "uint8", "int16", "int32", "int64")


def geometry_of(
    input_size: Any,
    kernel_size: Any,
    *,
    transposed: bool = False,
    in_channels: int = 1,
    out_channels: int = 1,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> ConvGeometry:
    """Return the geometry of a torch call of these arguments.

    Parameters
    ----------
    input_size, kernel_size : int or tuple of int
        Spatial sizes; those of the transposed call where `transposed`.
    transposed : bool
        Whether the call is a ``conv_transpose``.
    in_channels, out_channels : int
        What the call takes and gives.
    stride, padding, output_padding, dilation, groups
        As torch takes them; `output_padding` for transposed calls only.

    Returns
    -------
    ConvGeometry
        With ``transposed=True`` for the transposed call.

    Raises
    ------
    TypeError, ValueError
        Where torch refuses.

    Examples
    --------
    >>> geometry_of(16, 4, transposed=True, stride=2, padding=1).output_size
    (32,)
    """
    rank = spatial_rank(input_size=input_size, kernel_size=kernel_size)
    if rank > 3:
        raise ValueError(f"input_size: expected 1 to 3 spatial axes, got {rank}")
    sizes = per_axis("input_size", input_size, rank, minimum=1)
    kernels = per_axis("kernel_size", kernel_size, rank, minimum=1)
    steps = _per_axis("stride", stride, rank, minimum=1)
    spreads = _per_axis("dilation", dilation, rank, minimum=1)
    extra = _per_axis("output_padding", output_padding, rank, minimum=0)
    channels = {"groups": groups, "in_channels": in_channels, "out_channels": out_channels}
    if not transposed:
        if any(extra):
            raise ValueError(f"output_padding: expected 0 for conv{rank}d, got {output_padding!r}")
        pads: Any = _forward_padding(padding, steps, rank)
        made = ConvGeometry(
            sizes, kernels, strides=steps, dilations=spreads, padding=pads, **channels
        )
        _refuse_empty(made)
        return made
    low = _per_axis("padding", padding, rank, minimum=0)
    for axis, (e, s, d) in enumerate(zip(extra, steps, spreads, strict=True)):
        if e >= max(s, d):
            raise ValueError(
                f"output_padding[{axis}]: expected less than max(stride, dilation) = {max(s, d)}, "
                f"got {e}"
            )
    made = ConvGeometry.of_transpose(
        sizes,
        kernels,
        strides=steps,
        dilations=spreads,
        padding=[(p, p - e) for p, e in zip(low, extra, strict=True)],
        **channels,
    ).adjoint
    _refuse_empty(made)
    return made


def _per_axis(name: str, value: Any, rank: int, *, minimum: int) -> tuple[int, ...]:
    """Return one integer an axis; torch takes a list of one for all axes."""
    if is_sequence(value) and len(value) == 1:
        value = integer(name, value[0], minimum=minimum)
    return per_axis(name, value, rank, minimum=minimum)


def _forward_padding(padding: Any, strides: tuple[int, ...], rank: int) -> Any:
    if not isinstance(padding, str):
        return _per_axis("padding", padding, rank, minimum=0)
    one_of("padding", padding, ("valid", "same"))
    if padding == "same" and max(strides) > 1:
        raise ValueError(f"padding: 'same' expects strides of 1, got {strides}")
    return padding.upper()


def _refuse_empty(made: ConvGeometry) -> None:
    if 0 in made.output_size:
        raise ValueError(
            f"input: expected a size with an output, got {made.input_size}, of which a kernel of "
            f"{made.effective_kernel_size} and paddings {made.padding} leave {made.output_size}"
        )


def arguments(geometry: ConvGeometry, *, transposed: bool = False) -> dict[str, Any]:
    """Return torch's keyword arguments for a geometry.

    Parameters
    ----------
    geometry : ConvGeometry
    transposed : bool
        Whether to write its transpose, as ``conv_transpose``; so is a transposed geometry
        anyway.

    Returns
    -------
    dict
        ``stride``, ``padding``, ``dilation``, ``groups``, and ``output_padding`` for the
        transpose, for `torch.nn.functional` or the functions here.

    Raises
    ------
    Inexpressible
        Where the paddings are not the same on both sides (or differ by other than an output
        padding), with the pad or crop that helps.

    Examples
    --------
    >>> arguments(ConvGeometry(8, 3, strides=2, padding=1))
    {'stride': (2,), 'padding': (1,), 'dilation': (1,), 'groups': 1}
    >>> arguments(ConvGeometry(8, 3, strides=2, padding="SAME"))
    Traceback (most recent call last):
    ...
    convarith.conventions.inexpressible.Inexpressible: padding: torch pads both sides alike, \
this is ((0, 1),); pad the input by ((0, 1),) (low, high an axis) and pass stride=(2,), \
padding=(0,), dilation=(1,), groups=1
    """
    return expressed(geometry, transposed, _candidate, geometry_of)


def _candidate(geometry: ConvGeometry) -> dict[str, Any]:
    found: dict[str, Any] = {"stride": geometry.strides}
    low = tuple(axis.low for axis in geometry.axes)
    if geometry.transposed:
        extra = tuple(below - above for below, above in geometry.crops)
        limits = tuple(map(max, geometry.strides, geometry.dilations))
        if min(low) < 0 or not all(0 <= e < m for e, m in zip(extra, limits, strict=True)):
            raise Inexpressible(
                f"padding: torch crops p >= 0 low and p - output_padding high, with an output "
                f"padding below {limits}; this is {geometry.crops}"
            )
        found |= {"padding": low, "output_padding": extra}
    else:
        if min(low) < 0 or not all(axis.low in axis.highs for axis in geometry.axes):
            raise Inexpressible(f"padding: torch pads both sides alike, this is {geometry.padding}")
        found["padding"] = low
    return found | {"dilation": geometry.dilations, "groups": geometry.groups}


def spelling(rank: int, *, transposed: bool = False, **arguments: Any) -> Spelling:
    """Return the function's name and the axes of its arrays and its kernel."""
    if transposed:
        return Spelling(f"conv_transpose{rank}d", "nc*", "io*")
    return Spelling(f"conv{rank}d", "nc*", "oi*")


def _call(
    rank: int, transposed: bool, input: Any, weight: Any, bias: Any, **arguments: Any
) -> np.ndarray:
    given = {"input": input, "weight": weight} | ({} if bias is None else {"bias": bias})
    input, weight, *others = operands((*FLOATS, *INTEGERS), **given)
    bias = others[0] if others else None
    if weight.ndim != rank + 2:
        raise ValueError(f"weight: expected {rank + 2} axes, got shape {weight.shape}")
    if input.ndim not in (rank + 1, rank + 2):
        raise ValueError(
            f"input: expected {rank + 2} axes, or {rank + 1} without a batch, got {input.shape}"
        )
    x = input if input.ndim == rank + 2 else input[None]
    groups = integer("groups", arguments["groups"], minimum=1)
    c_in = x.shape[1]
    expected, c_out = weight.shape[1] * groups, weight.shape[0]
    if transposed:
        expected, c_out = c_out, expected
    if c_in != expected or 0 in (c_in, c_out):
        raise ValueError(
            f"input: expected {expected} >= 1 channels for a weight of shape {weight.shape} and "
            f"groups={groups}, got shape {input.shape}"
        )
    check_bias("bias", bias, c_out)
    made = geometry_of(
        x.shape[2:],
        weight.shape[2:],
        transposed=transposed,
        in_channels=c_in,
        out_channels=c_out,
        **arguments,
    )
    if transposed or max(made.dilations) > 1:
        operands((*FLOATS, "int64"), input=input)
    result = called(made, spelling(rank, transposed=transposed), x, weight, bias)
    return result if x is input else result[0]


def _conv(rank: int) -> Callable[..., np.ndarray]:
    def conv(
        input: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> np.ndarray:
        return _call(
            rank,
            False,
            input,
            weight,
            bias,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )

    return _named(conv, rank, False)


def _conv_transpose(rank: int) -> Callable[..., np.ndarray]:
    def conv_transpose(
        input: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> np.ndarray:
        return _call(
            rank,
            True,
            input,
            weight,
            bias,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            dilation=dilation,
            groups=groups,
        )

    return _named(conv_transpose, rank, True)


_DOCUMENTATION = """Return ``torch.nn.functional.{name}`` of arrays.

    Parameters
    ----------
    input : ndarray
        ``(n, c_in, {spatial})``, or without the batch.
    weight : ndarray
        ``{weight}``, of the dtype of `input`.
    bias : ndarray, optional
        ``(c_out,)``, of the same dtype.
    {parameters} : int or tuple of int
        One entry an axis; one entry alone stands for every axis.{words}
    groups : int

    Returns
    -------
    ndarray
        ``(n, c_out, ...)`` of the dtype of `input`, a view of channels-last memory. Along an
        axis the size is ``{size}``.

    Raises
    ------
    TypeError, ValueError
        Where torch refuses, naming the argument.

    Examples
    --------
    >>> {name}(np.ones((1, 2, {fives})), np.ones((2, 2, {threes})), stride=2).shape
    (1, 2, {result})
    """


def _named(
    call: Callable[..., np.ndarray], rank: int, transposed: bool
) -> Callable[..., np.ndarray]:
    call.__name__ = call.__qualname__ = spelling(rank, transposed=transposed).function
    k = ", ".join(("kd", "kh", "kw")[-rank:])
    call.__doc__ = _DOCUMENTATION.format(
        name=call.__name__,
        spatial=", ".join("dhw"[-rank:]),
        weight=f"(c_in, c_out // groups, {k})" if transposed else f"(c_out, c_in // groups, {k})",
        parameters=f"stride, padding, {'output_padding, ' if transposed else ''}dilation",
        words="" if transposed else ' `padding` may be\n        ``"valid"`` or ``"same"``.',
        size="(i - 1)*stride - 2*padding + dilation*(k - 1) + output_padding + 1"
        if transposed
        else "floor((i + 2*padding - dilation*(k - 1) - 1)/stride) + 1",
        fives=", ".join("5" * rank),
        threes=", ".join("3" * rank),
        result=", ".join(["11" if transposed else "2"] * rank),
    )
    return any_library(call)


conv1d, conv2d, conv3d = map(_conv, (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = map(_conv_transpose, (1, 2, 3))
