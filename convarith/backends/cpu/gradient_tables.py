"""The kernel gradient's tables: which rows of taps and channels, and which panels, there are."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...axis import Axis
from .blocks import evenly
from .gradient_records import BLOCK, PANEL, ROWS, SPAN
from .tile import DENSE
from .tile import kernel as tile_kernel
from .vector import ELEMENTS

if TYPE_CHECKING:
    from .gradient import GradientPlan

#: What a pixel takes of a piece's panels: they stay in the second-level cache.
SPAN_BYTES = 1024


class Tables(NamedTuple):
    """What the worker reads: see `gradient_worker`."""

    rows: np.ndarray
    groups: list[tuple[int, int]]  # the first rows that add to the same results, and behind them
    outs: list[int]  # where those of each group go, if swapped
    panels: np.ndarray
    spans: np.ndarray


class Part(NamedTuple):
    """Taps of the last axis from `first` on, and outputs where all of them are inside."""

    first: int
    taps: int
    outputs: tuple[int, int]
    adds: int  # whether others have written the results
    edge: int


def tables(plan: GradientPlan) -> Tables:
    """Return the tables of a plan."""
    if plan.swapped:
        groups, panels = _swapped_groups(plan), _swapped_panels(plan)
        spans = [(0, len(panels))]
    else:
        groups, panels, spans = _groups(plan), _panels(plan), _spans(plan)
    ends = [0, *itertools.accumulate(map(len, groups))]
    result = plan.columns * plan.axes[2].kernel * plan.depth * plan.element.dtype.itemsize
    return Tables(
        np.array([row for group in groups for row in group], ROWS),
        list(itertools.pairwise(ends)),
        [place * result for place in range(len(groups))],
        np.array(panels, PANEL),
        np.array(spans, SPAN),
    )


def blocks(found: Tables, groups: int) -> np.ndarray:
    """Return BLOCKs of so many groups."""
    made = []
    for first in range(0, len(found.groups), groups):
        own = found.groups[first : first + groups]
        made.append((own[0][0], own[-1][1], found.outs[first]))
    return np.array(made, BLOCK)


def _swapped_groups(plan: GradientPlan) -> list[list[tuple]]:
    """Return ROWS for each row of taps: panels of its taps' channels."""
    itemsize, element = plan.element.dtype.itemsize, ELEMENTS.index(plan.element)
    z, y, x = (axis.kernel for axis in plan.axes)
    lanes = plan.path.lanes(plan.element)
    tiles = [stop - first for first, stop in evenly(plan.columns, plan.rows)]

    def kernel(rows: int, wide: int, asks: bool = False) -> int:
        vectors = -(-wide // lanes)
        return tile_kernel(
            plan.path, element, rows, vectors, DENSE, chains=plan.chains(rows, vectors),
            partial=wide % lanes > 0, in_place=True, adjacent=plan.adjacent, asks=asks,
        )  # fmt: skip

    groups = []
    most, least = max(tiles), min(tiles)
    taken = parts(plan.axes[2], 0, x)
    for t_z, t_y in np.ndindex(z, y):
        group = []
        for part in taken:
            channels = part.taps * plan.depth
            for first in range(0, channels, plan.full):
                wide = min(plan.full, channels - first)
                # The last tile of rows has the most.
                kernels = kernel(most, wide), kernel(least, wide), kernel(most, wide, plan.asks)
                group.append(
                    (
                        *((t_z, t_y, part.first), *part.outputs, first * itemsize),
                        (part.first * plan.depth + first) * itemsize,
                        *(0, 0, *kernels, part.adds),
                        *(first > 0, part.edge, wide - (-(-wide // lanes) - 1) * lanes),
                    )
                )
        groups.append(group)
    return groups


def _swapped_panels(plan: GradientPlan) -> list[tuple[int, ...]]:
    """Return PANELs of g's channels, a tile's rows each; the last kind are one row shorter."""
    itemsize = plan.element.dtype.itemsize
    tiles = evenly(plan.columns, plan.rows)
    most = max(stop - first for first, stop in tiles)
    result = plan.axes[2].kernel * plan.depth * itemsize
    return [
        (0, first * itemsize, first * result, stop - first < most, 0, 0) for first, stop in tiles
    ]


def _groups(plan: GradientPlan) -> list[list[tuple]]:
    """Return ROWS, grouped by the results they add to."""
    itemsize, element = plan.element.dtype.itemsize, ELEMENTS.index(plan.element)
    z, y, x = (axis.kernel for axis in plan.axes)
    c_row = plan.geometry.out_channels * itemsize
    lanes = plan.path.lanes(plan.element)
    last = -(-(plan.columns % plan.full or plan.full) // lanes)
    rest = plan.columns % lanes

    def entry(tap, outputs, channel, rows, adds, again, edge=0, strip=range(0)):
        place = (tap[0] * y + tap[1]) * x + tap[2]
        kernels = (
            tile_kernel(
                plan.path,
                element,
                rows,
                vectors,
                DENSE,
                partial=partial,
                in_place=not plan.packs,
                adjacent=plan.adjacent,
            )
            for vectors, partial in ((plan.vectors, False), (last, rest > 0))
        )
        at = (place * plan.depth + channel) * c_row
        copied = strip.start * itemsize, len(strip) * itemsize * (plan.strip > 0)
        channel -= strip.start
        return (
            *(tap, *outputs, channel * itemsize, at),
            *(*copied, *kernels, 0, adds, again, edge, 0),
        )

    groups = []
    for t_z, t_y in np.ndindex(z, y):
        if plan.joins:
            for first, stop in evenly(x, max(1, plan.rows // plan.depth)):
                groups.append(
                    [
                        entry((t_z, t_y, k), outputs, 0, taps * plan.depth, adds, 0, edge)
                        for k, taps, outputs, adds, edge in parts(
                            plan.axes[2], first, stop, edges=not plan.packs
                        )
                    ]
                )
        else:
            for t_x in range(x):
                outputs = plan.axes[2].outputs_of(t_x)
                for begin, end in evenly(plan.depth, plan.strip or plan.depth):
                    strip = range(begin, end)
                    groups += [
                        [
                            entry(
                                (t_z, t_y, t_x), outputs, begin + first, stop - first,
                                0, first > 0, strip=strip,
                            )
                        ]
                        for first, stop in evenly(len(strip), plan.rows)
                    ]  # fmt: skip
    return groups


def _panels(plan: GradientPlan) -> list[tuple[int, ...]]:
    """Return the PANELs of all groups of channels."""
    itemsize, lanes = plan.element.dtype.itemsize, plan.path.lanes(plan.element)
    panels = []
    for group, first in itertools.product(range(plan.groups), range(0, plan.columns, plan.full)):
        wide = min(plan.full, plan.columns - first)
        vectors = -(-wide // lanes)
        at = (group * plan.columns + first) * itemsize
        panels.append(
            (
                group * plan.depth * itemsize,
                at,
                at,
                first + plan.full >= plan.columns,
                wide - (vectors - 1) * lanes,
                wide * itemsize,
            )
        )
    return panels


def _spans(plan: GradientPlan) -> list[tuple[int, int]]:
    """Return ranges of panels that are done together, none of two groups of channels."""
    panels = -(-plan.columns // plan.full)
    together = max(1, SPAN_BYTES // (plan.vectors * plan.path.nbytes))
    return [
        (group * panels + first, group * panels + stop)
        for group in range(plan.groups)
        for first, stop in evenly(panels, together)
    ]


def parts(axis: Axis, first: int, stop: int, *, edges: bool = True) -> list[Part]:
    """Return the taps and outputs to be summed: all taps at once where all are inside.

    At the ends of the axis, where some are not, those that are go together, with `edges` in chunks
    of their own. Without such outputs each tap goes by itself.
    """
    ranges = [axis.outputs_of(k) for k in range(first, stop)]
    start, end = max(r[0] for r in ranges), min(r[1] for r in ranges)
    if end <= start:
        return [Part(k, 1, outputs, 0, 0) for k, outputs in enumerate(ranges, first)]
    found = [Part(first, stop - first, (start, end), 0, 0)]
    # Both the first and the last outputs come down as taps go up.
    starts, stops = ([-r[i] for r in ranges] for i in (0, 1))
    for low, high in ((min(r[0] for r in ranges), start), (end, max(r[1] for r in ranges))):
        cuts = sorted({low, high, *(c for r in ranges for c in r if low < c < high)})
        for outputs in itertools.pairwise(cuts):
            inside = bisect_left(starts, -outputs[0]), bisect_left(stops, -outputs[0])
            if inside[0] < inside[1]:
                taps = inside[1] - inside[0]
                found.append(Part(first + inside[0], taps, outputs, 1, int(edges)))
    return found
