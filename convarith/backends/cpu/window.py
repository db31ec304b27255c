"""The window: how depthwise products share pixels between their taps and outputs.

A window is ``height x width`` taps, and some rows of outputs times some steps along x. Each pixel
that it reads is loaded once, and meets every output and tap that it belongs to: for 3 x 3 taps and
3 x 2 outputs there are 20 loads for 54 products. What is summed stays in registers: for a
convolution the outputs, for a kernel gradient the taps' sums.

Panels of channels are the inner loop: pixels are read as they lie in memory, and stay in the
first-level cache for the next window, which shares some with this one. (A panel's rows as the inner
loop, with what is summed or multiplied in registers all along, read every cache line in pieces, and
again from the second-level cache: 1.4 to 4 times as long.)

Along an axis of stride ``s`` and dilation ``d``, the taps ``k`` and ``k + p``, ``p = s/gcd(s,
d)``, read the same pixels, one after the other, for outputs ``e = d/gcd(s, d)`` apart. So taps
fall into `p` *classes*, ``k = q*p + c``, and outputs are taken `e` apart: tap ``q*p + c`` of
output ``t`` meets the pixel of class ``c`` at step ``t + q``. Lines are to rows as pixels to
outputs.

Where the window leaves x or g each tap goes by itself, over just the steps that it has: what lies
outside is neither read nor multiplied.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...axis import Axis
from .blocks import evenly

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
        "lanes",  # of the last panel
    )
]
# A range has ``4 + 2*width`` bounds: the first step and one past the last; likewise those that all
# taps have; then the first of each tap, and one past the last of each.

#: Panels of one piece of work, of as many channels as a vector has lanes: the first one's number,
#: how many are whole, and the lanes of one more, or 0.
GROUP = np.dtype([(name, np.int64) for name in ("first", "panels", "lanes")])

#: Taps an axis, and steps, that a window has at most; rows of outputs likewise.
MOST, MOST_ROWS = 8, 6
#: Of the first-level cache, what the vectors of a window may take, those of all panels.
WINDOW_BYTES = 24 * 1024
#: So many lines of memory the machine reads ahead of at no cost.
STREAMS = 16
#: What a window takes whose panels are none.
STEP_CYCLES = 20
#: Steps of a strip at most.
STRIP = 256
#: Outputs further apart than this are not taken one after the other.
MOST_APART = 8


class Window(NamedTuple):
    """How much of everything a window has."""

    height: int
    width: int
    rows: int  # of outputs
    steps: int

    def pixels(self, y: Walk, x: Walk) -> int:
        """Count what a window reads of x."""
        lines = len(lines_of(self.height, y.classes, self.rows))
        return lines * len(lines_of(self.width, x.classes, self.steps))

    def waiting(self, y: Walk, x: Walk, panels: int) -> float:
        """Estimate the cycles a panel of going from window to window, and of waiting for memory.

        There is a stream for each vector that the window before has not read; of many of them the
        machine asks ahead for few.
        """
        lines = len(lines_of(self.height, y.classes, self.rows))
        streams = lines * self.steps * min(x.step, self.width) + self.rows * self.steps
        return streams**2 / STREAMS + 3 + STEP_CYCLES / panels


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


@functools.cache
def lines_of(
    height: int, classes: int, rows: int
) -> tuple[tuple[int, int, list[tuple[int, int]]], ...]:
    """Return (place, class, [(row, tap), ...]) of every line that `rows` rows of outputs meet.

    They are in the order in which an output meets its taps.
    """
    lines = []
    for c in range(min(classes, height)):
        taps = range(c, height, classes)
        for place in range(rows - 1 + len(taps)):
            met = [(j, taps[place - j]) for j in range(rows) if 0 <= place - j < len(taps)]
            lines.append((place, c, met))
    return tuple(sorted(lines))


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


def choose_rows_and_steps(
    y: Axis,
    x: Axis,
    fits: Callable[[int, int], bool],
    cycles: Callable[[int, int], float],
) -> tuple[float, tuple[int, int], tuple[int, int]]:
    """Return the fewest cycles, with the outputs of a window of several rows, and of one.

    Several rows go together where all have all taps inside; see `heights_of`.

    Parameters
    ----------
    fits : callable
        ``fits(rows, steps)``: whether the registers hold a window.
    cycles : callable
        ``cycles(rows, steps)``: an estimate for one.
    """
    whole, inside = has_all_taps(y), int(np.count_nonzero(has_all_taps(x)))

    def row(outputs: tuple[int, int]) -> float:
        """Estimate so many rows: outputs that are left, or have a tap outside, go tap by tap."""
        rows, steps = outputs
        windows, left = divmod(inside, steps)
        return windows * cycles(rows, steps) + (left + x.output - inside) * 2 * cycles(rows, 1)

    def all_rows(outputs: tuple[int, int]) -> float:
        rows = outputs[0]
        groups = whole_groups(y, Walk.of(y), rows, whole).sum()
        return groups * row(outputs) + (y.output - groups * rows) * row(best[0])

    steps = range(1, MOST + 1)
    best = [
        min(fitting, key=row)
        for rows in range(1, MOST_ROWS + 1)
        if (fitting := [(rows, s) for s in steps if fits(rows, s)])
    ]
    several = min(best, key=all_rows)
    return all_rows(several), several, best[0]


def has_all_taps(axis: Axis) -> np.ndarray:
    """Return which outputs have all their taps inside."""
    at = np.arange(axis.output) * axis.stride - axis.low
    return (at >= 0) & (at + (axis.kernel - 1) * axis.dilation < axis.size)


def groups_of(channels: int, lanes: int, most: int) -> np.ndarray:
    """Return the table of groups of at most so many panels."""
    whole, left = divmod(channels, lanes)
    groups = [
        (first, min(stop, whole) - first, left if stop > whole else 0)
        for first, stop in evenly(-(-channels // lanes), max(1, most))
    ]
    return np.array(groups, GROUP)


def range_of(axis: Axis, walk: Walk, origin: int, taps: range, steps: tuple[int, int]) -> list[int]:
    """Return a window's range, of some taps: the outputs from `origin` on, in some steps."""
    starts, stops = [], []
    for tap in taps:
        low, high = (max(0, -((origin - o) // walk.apart)) for o in axis.outputs_of(tap))
        starts.append(max(low, steps[0]))
        stops.append(max(starts[-1], min(high, steps[1])))
    all_start, all_stop = max(starts), min(stops)
    if all_start >= all_stop:
        all_start = all_stop = steps[1]
    return [*steps, all_start, all_stop, *starts, *stops]
