"""The window: how depthwise products slide along rows of pixels, and what they keep in registers.

A window is ``height x width`` taps, some rows of outputs, and some vectors of channels. For a
kernel gradient the sums of its taps stay in registers, and of each row the last few vectors of g;
for a convolution the taps, and of each line the last few pixels. A step along x loads the next
pixel of each line once, and that meets every row and tap that it belongs to: for 3 x 3 taps and
two rows a gradient has 6 loads for 18 products, where a tile has 24.

Along an axis of stride ``s`` and dilation ``d``, the taps ``k`` and ``k + p``, ``p = s/gcd(s,
d)``, read the same pixels, one after the other, for outputs ``e = d/gcd(s, d)`` apart. So taps
fall into `p` *classes*, ``k = q*p + c``, and outputs are taken `e` apart: tap ``q*p + c`` of
output ``t`` meets the pixel of class ``c`` at step ``t + q``. Lines are to rows as pixels to
outputs.

Where the window leaves x or g each tap goes by itself, over just the steps that it has: what lies
outside is neither read nor multiplied.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from ...axis import Axis
from .vector import Element, Path

#: Of what a window is called with, how it reads x, by address; in bytes but where said.
LINES = [
    (name, np.int64)
    for name in (
        "x",  # the first line's pixel of class 0 at step 0, which may lie outside
        "x_line",  # from line to line of one class
        "x_line_class",  # from class to class of lines
        "x_step",
        "x_class",
        "range",  # address of the bounds of steps, see below
        "lanes",  # of the last vector
    )
]
# A range has ``4 + 2*width`` bounds: the first step that any tap has, the first that all have, one
# past the last that all have and past the last that any has; then the first of each tap, and one
# past the last of each.

#: Taps an axis, and vectors, that a window has at most; rows of outputs likewise.
MOST, MOST_ROWS = 8, 4
#: Steps of a strip at most.
STRIP = 256
#: Outputs further apart than this are not taken one after the other.
MOST_APART = 8


class Window(NamedTuple):
    """How much of everything a window has."""

    height: int
    width: int
    rows: int  # of outputs
    vectors: int

    def registers_of_sums(self, x: Walk) -> int:
        """Count what stays in registers of taps' sums: those, some outputs, a pixel."""
        outputs = self.rows * -(-self.width // x.classes)
        return (self.height * self.width + outputs) * self.vectors + 1

    def registers_of_outputs(self, y: Walk) -> int:
        """Count what stays in registers of outputs: those, a tap, the pixels they meet.

        Taps that find no room are read again at every step: from the nearest cache, aligned.
        """
        pixels = self.width * len(lines_of(self.height, y.classes, self.rows))
        return (self.rows + pixels + 1) * self.vectors


class Walk(NamedTuple):
    """How an axis is walked along: classes of taps, outputs apart, pixels a step."""

    classes: int
    apart: int
    step: int

    @classmethod
    def of(cls, axis: Axis) -> Walk:
        """Return the walk on which taps share pixels, where that pays."""
        common = math.gcd(axis.stride, axis.dilation)
        apart = axis.dilation // common
        if apart > MOST_APART:  # too few steps each way, and every tap is a class
            return cls(axis.kernel, 1, axis.stride)
        return cls(axis.stride // common, apart, apart * axis.stride)


def lines_of(height: int, classes: int, rows: int) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """Return (place, class, [(row, tap), ...]) of every line that `rows` rows of g meet."""
    lines = []
    for c in range(min(classes, height)):
        taps = range(c, height, classes)
        for place in range(rows - 1 + len(taps)):
            met = [(j, taps[place - j]) for j in range(rows) if 0 <= place - j < len(taps)]
            lines.append((place, c, met))
    return lines


def choose_window(
    path: Path, element: Element, axes: tuple[Axis, ...], channels: int, *, whole: bool
) -> Window:
    """Return the window that needs the fewest cycles of those that the registers hold.

    Parameters
    ----------
    axes : tuple of Axis
        (z, y, x).
    whole : bool
        Whether its sums are outputs, and so of all taps; or else they are those of the taps.
    """
    _, y, x = axes
    y_walk, x_walk = Walk.of(y), Walk.of(x)
    needed = -(-channels // path.lanes(element))
    steps = min(STRIP, -(-x.output // x_walk.apart))

    def strip(height: int, width: int, rows: int, vectors: int) -> float:
        """Estimate a strip's cycles: two products each, one for a cache line that is read.

        Loads may cross lines, but neighbouring vectors share the one between them.
        """
        products = height * width * rows * vectors
        classes = min(width, x_walk.classes)
        lines = len(lines_of(height, y_walk.classes, rows)) * classes
        each = max(products / 2, 4 * rows) + (lines + rows) * (vectors + 1)
        return each * steps + 100 + 4 * products / rows  # the call, what is stored

    def cycles(window: Window) -> tuple[bool, float, int]:
        height, width, rows, vectors = window
        room = path.registers - window.registers_of_outputs(y_walk)
        reads_taps = whole and height * width * vectors > room + vectors
        full, last = divmod(needed, vectors)
        parts = full * strip(*window) + (strip(height, width, rows, last) if last else 0)
        taps = -(-y.kernel // height) * -(-x.kernel // width)
        return reads_taps, taps * parts / rows, height * width * rows * vectors

    taps = (y.kernel, x.kernel)
    least = taps if whole else (1, 1)
    most_rows = min(-(-y.output // y_walk.apart), MOST_ROWS)
    ranges = [range(a, min(b, MOST) + 1) for a, b in zip(least, taps, strict=True)]
    ranges += [range(1, most_rows + 1), range(1, min(needed, MOST) + 1)]

    def fits(window: Window) -> bool:
        if whole:
            return window.registers_of_outputs(y_walk) <= path.registers
        return window.registers_of_sums(x_walk) <= path.registers

    return min(filter(fits, itertools.starmap(Window, itertools.product(*ranges))), key=cycles)


def heights_of(
    axis: Axis, walk: Walk, rows: int, taps: list[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Return every (taps with a line, whether for several rows) that there is of some taps.

    Rows go together where all taps of all of them have their lines, or else one by one.
    """
    heights = set()
    y = np.arange(axis.output)
    groups = y // (walk.apart * rows) * walk.apart + y % walk.apart
    for first, stop in taps:
        at = y * axis.stride + first * axis.dilation - axis.low
        begin = np.maximum(0, -(at // axis.dilation))
        end = np.minimum(stop - first, (axis.size - 1 - at) // axis.dilation + 1)
        there = np.maximum(end - begin, 0)
        whole = np.bincount(groups, there == stop - first) == rows
        heights |= {(int(height), 0) for height in np.unique(there[~whole[groups]])}
        if whole.any():
            heights.add((stop - first, 1))
    return heights


def panels_of(
    path: Path, element: Element, channels: int, vectors: int, record: np.dtype
) -> tuple[np.ndarray, tuple[int, bool]]:
    """Return the table of panels, and what the last one has: vectors, and if of one only a part."""
    lanes = path.lanes(element)
    starts = range(0, channels, vectors * lanes)
    left = channels - starts[-1]
    last = -(-left // lanes)
    itemsize = element.dtype.itemsize
    panels = [(s * itemsize, left - (last - 1) * lanes, s == starts[-1]) for s in starts]
    return np.array(panels, record), (last, left % lanes > 0)
