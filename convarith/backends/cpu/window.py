"""The window: how depthwise products share pixels between their taps and outputs.

A window is ``height x width`` taps, some rows of outputs, and some vectors of channels. A pixel
is loaded once, and meets every output and tap that it belongs to.

Along an axis of stride ``s`` and dilation ``d``, the taps ``k`` and ``k + p``, ``p = s/gcd(s,
d)``, read the same pixels, one after the other, for outputs ``e = d/gcd(s, d)`` apart. So taps
fall into `p` *classes*, ``k = q*p + c``, and outputs are taken `e` apart: tap ``q*p + c`` of
output ``t`` meets the pixel of class ``c`` at step ``t + q``. Lines are to rows as pixels to
outputs.

Where the window leaves x or g each tap goes by itself, over just the steps that it has: what lies
outside is neither read nor multiplied.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...axis import Axis

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


def heights_of(
    axis: Axis, walk: Walk, rows: int, taps: list[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Return every (taps with a line, whether for several rows) that there is of some taps.

    Rows go together where all taps of all of them have their lines, or else one by one.
    """
    heights = set()
    y = np.arange(axis.output)
    for first, stop in taps:
        at = y * axis.stride + first * axis.dilation - axis.low
        begin = np.maximum(0, -(at // axis.dilation))
        end = np.minimum(stop - first, (axis.size - 1 - at) // axis.dilation + 1)
        there = np.maximum(end - begin, 0)
        whole = whole_groups(axis, walk, rows, there == stop - first)
        single = there[~whole[_group_of(y, walk, rows)]]
        heights |= {(int(height), 0) for height in np.unique(single)}
        if whole.any():
            heights.add((stop - first, 1))
    return heights


def whole_groups(axis: Axis, walk: Walk, rows: int, good: np.ndarray) -> np.ndarray:
    """Return which groups of rows have as many, all of them good."""
    return np.bincount(_group_of(np.arange(axis.output), walk, rows), good) == rows


def _group_of(y: np.ndarray, walk: Walk, rows: int) -> np.ndarray:
    """Return the number of the group that a row belongs to."""
    return y // (walk.apart * rows) * walk.apart + y % walk.apart
