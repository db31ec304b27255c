"""ONNX's Conv and ConvTranspose: channels first, attributes as lists of integers.

Every call is one `ConvGeometry`. ``pads`` are ``[begins ..., ends ...]``. The transposed call
crops ``pads`` low and ``pads - output_padding`` high. Where ``output_shape`` or a SAME (then
``i*s``) says the size, ``pads`` are made of ``t = s(i - 1) + output_padding + ke - size``: the
begin is ``t//2`` for SAME_UPPER, but ``t - t//2`` for every other ``auto_pad``, NOTSET with it.

Refused: dtypes other than the standard's, operands of different ones, ``pads`` beside an
``auto_pad``, an output padding of the stride or more (the standard says "stride/dilation"; its
evaluator and ONNX Runtime refuse it for any dilation), attributes that are no lists of the right
length; zero channels, and an empty ``auto_pad``, both of which ONNX Runtime takes.

Where ONNX Runtime departs from the standard, the standard is followed, as its reference
evaluator reads it. In ConvTranspose, where ``t < 0``, it takes ``t = 0``: it gives SAME a smaller
size, begins at another cell, or refuses the size. In Conv it lets SAME crop where the stride
leaves cells over, by ``(ceil(i/s) - 1)*s + ke - i < 0``, which the evaluator takes for 0; and it
refuses dilations with SAME. It refuses empty outputs, where here only sizes that come out
negative are, and empty inputs of some transposes. `arguments` needs none of these: both read its
attributes alike.

Source: ONNX 1.23, operators Conv and ConvTranspose, opset 22 (the equations since opset 11; 1
had the halves of ``t`` exchanged), its reference evaluator, and ONNX Runtime 1.32.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..dlpack import any_library
from ..geometry import ConvGeometry
from ..validate import integer, is_sequence, one_of, per_axis, spatial_rank
from .inexpressible import Inexpressible, expressed
from .layout import Spelling
from .product import called, check_bias, operands

__all__ = ["arguments", "conv", "conv_transpose", "geometry_of", "spelling", "words"]

FLOATS = ("bfloat16", "float16", "float32", "float64")
SAME = ("SAME_UPPER", "SAME_LOWER")


def geometry_of(
    input_size: Any,
    kernel_size: Any = None,
    *,
    transposed: bool = False,
    in_channels: int = 1,
    out_channels: int = 1,
    auto_pad: str | bytes = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    output_padding: Any = None,
    output_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> ConvGeometry:
    """Return the geometry of an ONNX node of these attributes.

    Parameters
    ----------
    input_size, kernel_size : int or tuple of int
        Spatial sizes; those of the transposed call where `transposed`. The kernel's may be
        left to `kernel_shape`.
    transposed : bool
        Whether the node is a ConvTranspose.
    in_channels, out_channels : int
        What the call takes and gives.
    auto_pad, dilations, group, kernel_shape, output_padding, output_shape, pads, strides
        As ONNX takes them; `output_padding` and `output_shape` for ConvTranspose only.

    Returns
    -------
    ConvGeometry
        With ``transposed=True`` for ConvTranspose.

    Raises
    ------
    TypeError, ValueError
        Where the standard, or all that implement it, refuse.

    Examples
    --------
    >>> geometry_of(16, 4, transposed=True, strides=[2], pads=[1, 1]).output_size
    (32,)
    """
    kernel_size = kernel_shape if kernel_size is None else kernel_size
    rank = spatial_rank(input_size=input_size, kernel_size=kernel_size)
    sizes = per_axis("input_size", input_size, rank, minimum=0)
    kernels = per_axis("kernel_size", kernel_size, rank, minimum=1)
    if _listed("kernel_shape", kernel_shape, kernels, minimum=1) != kernels:
        raise ValueError(f"kernel_shape: expected the kernel's {kernels}, got {kernel_shape!r}")
    group = integer("group", group, minimum=1)
    channels = {"in_channels": in_channels, "out_channels": out_channels}
    for name, count in channels.items():
        if integer(name, count, minimum=1) % group:
            raise ValueError(f"group: expected a divisor of {name} = {count}, got {group}")
    if isinstance(auto_pad, bytes):  # as attributes are read from a model
        auto_pad = auto_pad.decode(errors="replace")
    one_of("auto_pad", auto_pad, ("NOTSET", *SAME, "VALID"))
    if pads is not None and auto_pad != "NOTSET":
        raise ValueError(f"pads: expected none beside auto_pad={auto_pad!r}, got {pads!r}")
    both = _listed("pads", pads, (0,) * (2 * rank), minimum=0)
    padding: Any = tuple(zip(both[:rank], both[rank:], strict=True))
    steps = _listed("strides", strides, (1,) * rank, minimum=1)
    options: dict[str, Any] = {
        "strides": steps,
        "dilations": _listed("dilations", dilations, (1,) * rank, minimum=1),
        "groups": group,
        **channels,
    }
    if not transposed:
        for name, value in (("output_padding", output_padding), ("output_shape", output_shape)):
            if value is not None:
                raise ValueError(f"{name}: expected none for Conv, got {value!r}")
        if auto_pad in SAME:
            padding = "SAME" if auto_pad == "SAME_UPPER" else "SAME_LOWER"
        made = ConvGeometry(sizes, kernels, padding=padding, **options)
        _refuse_negative(made, both, [axis.slack // axis.stride + 1 for axis in made.axes])
        return made
    extra = _listed("output_padding", output_padding, (0,) * rank, minimum=0)
    for axis, (e, s) in enumerate(zip(extra, steps, strict=True)):
        if e >= s:
            raise ValueError(f"output_padding[{axis}]: expected less than the stride {s}, got {e}")
    full = ConvGeometry(sizes, kernels, **options)
    spans = [
        s * (i - 1) + ke for s, i, ke in zip(steps, sizes, full.effective_kernel_size, strict=True)
    ]
    if output_shape is None and auto_pad not in SAME:
        crops = [(low, high - e) for (low, high), e in zip(padding, extra, strict=True)]
        left = [span - low - high for span, (low, high) in zip(spans, crops, strict=True)]
        _refuse_negative(full, both, left)
    else:
        wanted = tuple(i * s for i, s in zip(sizes, steps, strict=True))
        wanted = _listed("output_shape", output_shape, wanted, minimum=0)
        crops = []
        for span, e, size in zip(spans, extra, wanted, strict=True):
            total = span + e - size
            low = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            crops.append((low, total - e - low))
    return ConvGeometry.of_transpose(sizes, kernels, padding=crops, **options).adjoint


def _listed(name: str, value: Any, default: tuple[int, ...], *, minimum: int) -> tuple[int, ...]:
    """Return as many integers as `default` has, which stands for an attribute not given."""
    if value is None:
        return default
    if not is_sequence(value):  # a node's INTS are never one INT
        raise TypeError(f"{name}: expected a list of {len(default)} integers, got {value!r}")
    if len(value) != len(default):
        raise ValueError(f"{name}: expected {len(default)} integers, got {value!r}")
    return per_axis(name, value, len(default), minimum=minimum)


def _refuse_negative(made: ConvGeometry, pads: tuple[int, ...], left: list[int]) -> None:
    if min(left) < 0:
        raise ValueError(
            f"X: expected a size with an output of 0 or more, got {made.input_size}, of which a "
            f"kernel of {made.effective_kernel_size} and pads {pads} leave {left}"
        )


def arguments(geometry: ConvGeometry, *, transposed: bool = False) -> dict[str, Any]:
    """Return ONNX's attributes for a geometry.

    Parameters
    ----------
    geometry : ConvGeometry
    transposed : bool
        Whether to write its transpose, as ConvTranspose; so is a transposed geometry anyway.

    Returns
    -------
    dict
        ``auto_pad`` (always "NOTSET"), ``dilations``, ``group``, ``kernel_shape``, ``pads``,
        ``strides``, and ``output_padding`` for ConvTranspose, for a node or the functions here.

    Raises
    ------
    Inexpressible
        Where a padding is negative beyond what an output padding says, with the pad or crop
        that helps; where the output is empty, or the input of a transpose.

    Examples
    --------
    >>> arguments(ConvGeometry(8, 3, strides=2, padding="SAME"))
    {'auto_pad': 'NOTSET', 'dilations': [1], 'group': 1, 'kernel_shape': [3], 'pads': [0, 1], \
'strides': [2]}
    >>> arguments(ConvGeometry(8, 3, padding=-1))
    Traceback (most recent call last):
    ...
    convarith.conventions.inexpressible.Inexpressible: pads: ONNX pads by 0 or more, this is \
((-1, -1),); pad the input by ((-1, -1),) (low, high an axis; a negative amount crops) and pass \
auto_pad='NOTSET', dilations=[1], group=1, kernel_shape=[3], pads=[0, 0], strides=[1]
    """
    return expressed(geometry, transposed, _candidate, geometry_of)


def _candidate(geometry: ConvGeometry) -> dict[str, Any]:
    if 0 in geometry.output_size or geometry.transposed and 0 in geometry.input_size:
        raise Inexpressible(
            f"X: ONNX Runtime has no empty outputs, nor transposes of empty inputs; this is "
            f"{geometry.input_size} to {geometry.output_size}"
        )
    steps = geometry.strides
    more: dict[str, Any] = {}
    if geometry.transposed:
        # An output_shape says more only where t < 0, which ONNX Runtime reads as another map.
        if any(low < 0 or high <= -s for (low, high), s in zip(geometry.crops, steps, strict=True)):
            raise Inexpressible(
                f"pads: ONNX crops by pads of 0 or more, less an output_padding below {steps} at "
                f"the high end; this is {geometry.crops}"
            )
        pairs = [(low, max(0, high)) for low, high in geometry.crops]
        more["output_padding"] = [max(0, -high) for _, high in geometry.crops]
    else:
        if any(axis.low < 0 or axis.highs.stop <= 0 for axis in geometry.axes):
            raise Inexpressible(f"pads: ONNX pads by 0 or more, this is {geometry.padding}")
        pairs = [(low, max(0, high)) for low, high in geometry.padding]
    return {
        "auto_pad": "NOTSET",
        "dilations": list(geometry.dilations),
        "group": geometry.groups,
        "kernel_shape": list(geometry.kernel_size),
        **more,
        "pads": [low for low, _ in pairs] + [high for _, high in pairs],
        "strides": list(steps),
    }


def words(geometry: ConvGeometry) -> Iterator[dict[str, Any]]:
    """Yield attributes that may say the padding of a convolution for every size at once.

    `arguments` writes numbers, which are those of one size. Not where ONNX Runtime reads the word
    otherwise than the standard: dilated, or with strides beyond the kernel.
    """
    steps, spans = geometry.strides, geometry.effective_kernel_size
    if geometry.transposed or max(geometry.dilations) > 1 or any(map(operator.gt, steps, spans)):
        return
    for word in SAME:
        yield {
            "auto_pad": word,
            "dilations": list(geometry.dilations),
            "group": geometry.groups,
            "kernel_shape": list(geometry.kernel_size),
            "strides": list(steps),
        }


def spelling(rank: int, *, transposed: bool = False, **arguments: Any) -> Spelling:
    """Return the function's name and the axes of its arrays and its kernel."""
    if transposed:
        return Spelling("conv_transpose", "nc*", "io*")
    return Spelling("conv", "nc*", "oi*")


@any_library
def conv(
    X: np.ndarray,
    W: np.ndarray,
    B: np.ndarray | None = None,
    *,
    auto_pad: str | bytes = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> np.ndarray:
    """Return ONNX's Conv of arrays.

    Parameters
    ----------
    X : ndarray
        ``(n, c, *spatial)`` with any number of spatial axes.
    W : ndarray
        ``(m, c // group, *k)``, of the dtype of `X`.
    B : ndarray, optional
        ``(m,)``, of the same dtype.
    auto_pad : {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"}
        Or one of these as bytes, which is how ``onnx.helper`` reads it from a model. SAME pads to
        ``ceil(i/s)`` entries, the odd one at the end for UPPER.
    dilations, kernel_shape, strides : list of int, optional
        One entry an axis; by default 1, the shape of `W`, and 1.
    group : int
    pads : list of int, optional
        At least 0, the begins of all axes and then the ends; not beside an `auto_pad`.

    Returns
    -------
    ndarray
        ``(n, m, ...)`` of the dtype of `X`, a view of channels-last memory. Along an axis the
        size is ``floor((i + begin + end - dilation*(k - 1) - 1)/stride) + 1``.

    Raises
    ------
    TypeError, ValueError
        Where the standard, or all that implement it, refuse, naming the argument.

    Examples
    --------
    >>> X, W = np.ones((1, 2, 6, 6), "float32"), np.ones((3, 2, 3, 3), "float32")
    >>> conv(X, W, strides=[2, 2], auto_pad="SAME_LOWER").shape
    (1, 3, 3, 3)
    """
    return _call(
        False,
        X,
        W,
        B,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )


@any_library
def conv_transpose(
    X: np.ndarray,
    W: np.ndarray,
    B: np.ndarray | None = None,
    *,
    auto_pad: str | bytes = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    output_padding: Any = None,
    output_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> np.ndarray:
    """Return ONNX's ConvTranspose of arrays.

    Parameters
    ----------
    X : ndarray
        ``(n, c, *spatial)`` with any number of spatial axes.
    W : ndarray
        ``(c, m // group, *k)``, of the dtype of `X`.
    B : ndarray, optional
        ``(m,)``, of the same dtype.
    auto_pad : {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"}
        SAME gives ``i*stride`` entries, unless `output_shape` says how many. Where either does,
        UPPER crops the odd one at the end, and all others at the beginning.
    dilations, kernel_shape, strides : list of int, optional
        One entry an axis; by default 1, the shape of `W`, and 1.
    group : int
    output_padding : list of int, optional
        Less than the stride; by default 0. The entries that it adds are computed.
    output_shape : list of int, optional
        The spatial axes only.
    pads : list of int, optional
        At least 0, the begins of all axes and then the ends; not beside an `auto_pad`, and
        without effect beside an `output_shape`.

    Returns
    -------
    ndarray
        ``(n, m, ...)`` of the dtype of `X`, a view of channels-last memory. Along an axis the
        size is ``stride*(i - 1) + output_padding + dilation*(k - 1) + 1 - begin - end``.

    Raises
    ------
    TypeError, ValueError
        Where the standard, or all that implement it, refuse, naming the argument.

    Examples
    --------
    >>> X, W = np.ones((1, 2, 3, 3), "float32"), np.ones((2, 3, 3, 3), "float32")
    >>> conv_transpose(X, W, strides=[2, 2], output_shape=[6, 6]).shape
    (1, 3, 6, 6)
    """
    return _call(
        True,
        X,
        W,
        B,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        output_padding=output_padding,
        output_shape=output_shape,
        pads=pads,
        strides=strides,
    )


def _call(transposed: bool, X: Any, W: Any, B: Any, **attributes: Any) -> np.ndarray:
    X, W, *others = operands(FLOATS, X=X, W=W, **({} if B is None else {"B": B}))
    B = others[0] if others else None
    if X.ndim < 3 or W.ndim != X.ndim:
        raise ValueError(
            f"W: expected as many axes as X, 3 or more, got X {X.shape} and W {W.shape}"
        )
    group = integer("group", attributes["group"], minimum=1)
    expected, m = W.shape[1] * group, W.shape[0]
    if transposed:
        expected, m = m, expected
    if X.shape[1] != expected or 0 in (expected, m):
        raise ValueError(
            f"X: expected {expected} >= 1 channels for W {W.shape} and group={group}, got {X.shape}"
        )
    check_bias("B", B, m)
    made = geometry_of(
        X.shape[2:],
        W.shape[2:],
        transposed=transposed,
        in_channels=expected,
        out_channels=m,
        **attributes,
    )
    return called(made, spelling(made.rank, transposed=transposed), X, W, B)
