"""The inverse questions: which sizes and paddings give a wanted size, and how two align."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from .axis import input_range
from .padding import Padding, parse_padding
from .validate import PerAxis, per_axis, spatial_rank

if TYPE_CHECKING:
    from .geometry import ConvGeometry


def input_ranges(
    output_size: PerAxis,
    kernel_size: PerAxis,
    *,
    strides: PerAxis,
    dilations: PerAxis,
    padding: Padding,
    name: str = "output_size",
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Return the smallest and largest input an axis with this output, and the transpose's default.

    The smallest and the default may be negative: more is padded than the windows cover. `name`
    is what the caller calls the `output_size`.
    """
    rank = spatial_rank(**{name: output_size, "kernel_size": kernel_size})
    outputs = per_axis(name, output_size, rank, minimum=0)
    kernels = per_axis("kernel_size", kernel_size, rank, minimum=1)
    steps = per_axis("strides", strides, rank, minimum=1)
    spreads = per_axis("dilations", dilations, rank, minimum=1)
    pads = parse_padding(padding, rank)
    ranges, defaults = [], []
    for axis, (o, k, s, d) in enumerate(zip(outputs, kernels, steps, spreads, strict=True)):
        ke = (k - 1) * d + 1
        if pads in ("SAME", "SAME_LOWER"):
            ranges.append(((o - 1) * s + 1, o * s))
            defaults.append(o * s)
        else:
            total = 0 if isinstance(pads, str) else sum(pads[axis])
            ranges.append(input_range(o, ke, s, total))
            defaults.append(ranges[-1][0] if o else max(0, ke - s - total))
    return tuple(ranges), tuple(defaults)


def transposed_paddings(
    input_size: PerAxis,
    kernel_size: PerAxis,
    output_size: PerAxis,
    *,
    strides: PerAxis,
    dilations: PerAxis,
) -> tuple[Iterator[tuple[int, tuple[int, int]]], ...]:
    """Return what `ConvGeometry.transposed_paddings` documents."""
    rank = spatial_rank(input_size=input_size, kernel_size=kernel_size, output_size=output_size)
    axes = zip(
        per_axis("input_size", input_size, rank, minimum=1),
        per_axis("kernel_size", kernel_size, rank, minimum=1),
        per_axis("output_size", output_size, rank, minimum=0),
        per_axis("strides", strides, rank, minimum=1),
        per_axis("dilations", dilations, rank, minimum=1),
        strict=True,
    )

    def choices(i: int, k: int, out: int, s: int, d: int) -> Iterator[tuple[int, tuple[int, int]]]:
        excess = s * (i - 1) + (k - 1) * d + 1 - out
        for output_padding in range(max(0, -excess), max(s, d)):
            total = excess + output_padding
            for low in range(total // 2, -1, -1):
                yield output_padding, (low, total - low)
                if low != total - low:
                    yield output_padding, (total - low, low)

    return tuple(choices(*axis) for axis in axes)


def alignment_shift(geometry: ConvGeometry, other: ConvGeometry) -> tuple[Fraction, ...]:
    """Return what `ConvGeometry.alignment_shift` documents."""
    if not isinstance(other, type(geometry)):
        raise TypeError(f"other: expected a ConvGeometry, got {other!r}")
    if (geometry.strides, geometry.transposed) != (other.strides, other.transposed):
        raise ValueError(
            f"other: expected strides {geometry.strides} and transposed={geometry.transposed}, "
            f"got {other.strides} and {other.transposed}"
        )
    return tuple(
        Fraction(b.effective_kernel - a.effective_kernel, 2) - (b.low - a.low)
        for a, b in zip(geometry.axes, other.axes, strict=True)
    )
