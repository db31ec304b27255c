"""`ConvGeometry.explain`: the shape arithmetic in words, as the guide writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .axis import Axis
    from .geometry import ConvGeometry


class Text(str):
    """A string that a prompt shows as it prints."""

    __slots__ = ()
    __repr__ = str.__str__


def explain(geometry: ConvGeometry) -> Text:
    """Return the lines that `ConvGeometry.explain` documents."""
    convolution = geometry.convolution
    lines = []
    if geometry.transposed:
        sizes = f"{geometry.input_size} -> {geometry.output_size}"
        lines.append(f"the transpose {sizes} of the convolution whose axes are")
    sizes_alike = convolution.input_sizes(
        convolution.output_size,
        convolution.kernel_size,
        strides=convolution.strides,
        dilations=convolution.dilations,
        padding=convolution.padding,
    )
    for number, axis in enumerate(geometry.axes):
        lines += _axis_lines(number, axis, sizes_alike[number])
    groups = f"{geometry.groups} group{'s' if geometry.groups > 1 else ''}"
    lines.append(f"channels: {geometry.in_channels} -> {geometry.out_channels} in {groups}")
    rows, columns = geometry.matrix_shape
    lines.append(
        f"W{'^T' if geometry.transposed else ''}: {rows} x {columns}, {geometry.nnz} entries, "
        f"{geometry.matrix_nbytes(8)} bytes in float64"
    )
    return Text("\n".join(lines))


def _axis_lines(number: int, axis: Axis, sizes: range) -> list[str]:
    i, k, s, d, low, high = axis
    ke, o, slack = axis.effective_kernel, axis.output, axis.slack
    numbers = f"{i} {_signed(low)} {_signed(high)} - {ke}"
    head = f"axis {number}: i = {i}, k = {k}, s = {s}, d = {d}, low = {low}, high = {high}"
    kernel = f"ke = (k - 1)*d + 1 = ({k} - 1)*{d} + 1 = {ke}"
    if slack < 0:
        rows = [
            ("kernel", kernel),
            ("output", f"o = 0, since i + low + high - ke = {numbers} = {slack} is negative"),
            ("unread", f"all {i}"),
        ]
    else:
        tail = f"a = (i + low + high - ke) mod s = {slack} mod {s} = {slack % s}"
        rows = [
            ("kernel", kernel),
            (
                "output",
                f"o = floor((i + low + high - ke)/s) + 1 = floor(({numbers})/{s}) + 1 = {o}",
            ),
            ("unread", f"{tail}; clip(a - high, 0, i) = {axis.unread}"),
            (
                "transpose",
                f"s*(o - 1) + ke = {s}*({o} - 1) + {ke} = {axis.full}; "
                f"cropped by low + high: {axis.cropped}",
            ),
        ]
    rows.append(("same output", f"i = {sizes[0]} to {sizes[-1]}"))
    return [head, *(f"  {name:<12} {text}" for name, text in rows)]


def _signed(amount: int) -> str:
    return f"- {-amount}" if amount < 0 else f"+ {amount}"
