"""The plan of a depthwise convolution by blocks of outputs; see `depthwise_kernel`.

It sums in the order of the tiles of `direct`, so which of the two does it changes no bit.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from ...axis import Axis
from ...geometry import ConvGeometry
from . import launch, pool
from .blocks import PIECES_A_THREAD, evenly, multiply_adds
from .depthwise_kernel import Block, kernel
from .depthwise_worker import CALL, GROUP, PART, SCRATCH, worker
from .direct_layout import strides_of
from .finish import NOTHING, Finish
from .phases import ONE
from .vector import ELEMENTS, Element, Path
from .window import MOST, MOST_ROWS, STRIP, Walk, heights_of, lines_of, whole_groups

if TYPE_CHECKING:
    from ..protocol import Product


#: Of the outputs, the least share that has all taps inside: others are summed tap by tap.
LEAST_INSIDE = 0.1
#: Of the first-level cache, what the pixels that a block reads and writes may take.
PIXELS_BYTES = 24 * 1024


def applies(path: Path, geometry: ConvGeometry, product: Product) -> bool:
    """Whether channels do not meet, and few enough taps that most outputs have them all."""
    if product != "forward" or geometry.groups == 1 or geometry.rank > 2:
        return False
    if not geometry.groups == geometry.in_channels == geometry.out_channels:
        return False
    inside = math.prod(np.mean(_has_all_taps(axis)) for axis in geometry.axes)
    return max(geometry.kernel_size) <= MOST and inside >= LEAST_INSIDE


def choose_blocks(path: Path, y: Axis, x: Axis) -> tuple[Block, Block]:
    """Return the blocks that need the fewest cycles: of several rows, and of one.

    Several rows go together where all have all taps inside; see `window.heights_of`.
    """
    y_walk, x_walk = Walk.of(y), Walk.of(x)
    taps, inside = y.kernel * x.kernel, int(np.count_nonzero(_has_all_taps(x)))

    def cycles(rows: int, steps: int) -> float:
        """Estimate a block's cycles.

        That is two products each, or half of a sum's latency, and all else: loads and stores,
        taps that find no register, and what is read from the second-level cache.
        """
        sums = rows * steps
        lines = len(lines_of(y.kernel, y_walk.classes, rows))
        pixels = len(lines_of(x.kernel, x_walk.classes, steps))
        moved = lines * pixels + taps + sums + max(0, sums + 1 + taps - path.registers) * sums
        return max(taps * sums, 4 * taps) / 2 + moved / 3 + lines * steps * x.stride + 2

    def row(block: tuple[int, int]) -> float:
        """Estimate those of so many rows' outputs.

        Those that are left, or have a tap outside, go one by one, tap by tap.
        """
        rows, steps = block
        blocks, left = divmod(inside, steps)
        return blocks * cycles(rows, steps) + (left + x.output - inside) * 2 * cycles(rows, 1)

    def best(rows: int) -> tuple[int, int]:
        fitting = [(rows, s) for s in range(1, MOST + 1) if rows * s + 2 <= path.registers]
        return min(fitting, key=row)

    def all_rows(block: tuple[int, int]) -> float:
        groups = whole_groups(y, y_walk, block[0], _has_all_taps(y)).sum()
        return groups * row(block) + (y.output - groups * block[0]) * row(single)

    single = best(1)
    several = min(map(best, range(1, MOST_ROWS + 1)), key=all_rows)
    return Block(y.kernel, x.kernel, *several), Block(y.kernel, x.kernel, *single)


def _has_all_taps(axis: Axis) -> np.ndarray:
    """Return which outputs have all their taps inside."""
    at = np.arange(axis.output) * axis.stride - axis.low
    return (at >= 0) & (at + (axis.kernel - 1) * axis.dilation < axis.size)


class DepthwisePlan:
    """``W x`` where every channel has taps of its own."""

    def __init__(self, path: Path, element: Element, geometry: ConvGeometry) -> None:
        self.path, self.element, self.channels = path, element, geometry.out_channels
        self.axes = (ONE,) * (3 - geometry.rank) + geometry.axes
        self.y, self.x = (Walk.of(axis) for axis in self.axes[1:])
        self.block, self.single = choose_blocks(path, *self.axes[1:])
        self.work = multiply_adds(geometry)  # for one of the batch
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(functools.partial(Layout, self))

    def __str__(self) -> str:
        return (
            f"direct, depthwise: blocks of {self.block.rows} x {self.block.steps} outputs, "
            f"vectors of {self.path.nbytes} bytes ({self.path.name})"
        )

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Lay the taps out as whole vectors, panel by panel."""
        lanes = self.path.lanes(self.element)
        taps, wide = math.prod(weights.shape[:-2]), self.panels * lanes
        padded = np.zeros((taps, wide), self.element.dtype)
        padded[:, : self.channels] = weights.reshape(taps, self.channels)
        packed = pool.aligned(taps * wide, self.element.dtype)
        by_panels = padded.reshape(taps, self.panels, lanes).swapaxes(0, 1)
        packed.reshape(by_panels.shape)[...] = by_panels
        return packed

    @property
    def panels(self) -> int:
        """How many vectors the channels are, the last of which may be of a few."""
        return -(-self.channels // self.path.lanes(self.element))

    def scratch(self, batch: int, threads: int) -> int:
        """Return the bytes that a run allocates besides its result."""
        return SCRATCH * threads

    def run(self, source: np.ndarray, packed: np.ndarray, out: np.ndarray, finish: Finish) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        batch, finishes = len(source), finish is not NOTHING
        layout = self.layout(batch, launch.allowed(batch * self.work), finishes)
        if finishes:
            finish = finish.laid_out(self._columns)
        layout.call.run(layout.threads, source, packed, out, *finish)

    def _columns(self, part: np.ndarray) -> np.ndarray:
        """Return a scale or bias as whole vectors."""
        result = np.zeros(self.panels * self.path.lanes(self.element), self.element.dtype)
        result[: self.channels] = part
        return result


class Layout:
    """What the worker is called with for one size of batch, and the tables it points to."""

    def __init__(self, plan: DepthwisePlan, batch: int, threads: int, finishes: bool) -> None:
        path, axes, itemsize = plan.path, plan.axes, plan.element.dtype.itemsize
        _, y, x = axes
        sizes, outputs = [a.size for a in axes], [a.output for a in axes]
        pixel, (height, width, rows, _) = plan.channels * itemsize, plan.block
        parts = self._parts(plan, pixel)
        used = heights_of(y, plan.y, rows, [(0, height)])
        used |= {(0, 0)}  # blocks in the padding
        lanes = path.lanes(plan.element)
        whole, left = divmod(plan.channels, lanes)
        kernels = [
            kernel(
                path,
                ELEMENTS.index(plan.element),
                block._replace(height=some),
                (min(plan.y.classes, max(1, some)), min(plan.x.classes, width)),
                partial=partial,
                finishes=finishes,
            )
            if (some, several) in used and there
            else 0
            for some in range(height + 1)
            for several, block in enumerate((plan.single, plan.block))
            for partial, there in ((False, whole), (True, left))
        ]
        row_groups = -(-outputs[1] // (rows * plan.y.apart)) * plan.y.apart
        strips = batch * outputs[0] * row_groups * len(parts)
        wanted = 2 * PIECES_A_THREAD * threads if threads > 1 else 1
        chunk = -(-strips // wanted)
        chunks = -(-strips // chunk)
        groups = self._groups(plan, -(-plan.panels * chunks // wanted))
        self.threads = min(threads, chunks * len(groups))
        self.call = launch.Call(
            worker(),
            CALL,
            SCRATCH * self.threads,
            kernel=[a.kernel for a in axes],
            size=sizes,
            output=outputs,
            step=[a.stride for a in axes],
            dilation=[a.dilation for a in axes],
            low=[a.low for a in axes],
            source_strides=strides_of(sizes, pixel),
            result_strides=strides_of(outputs, pixel),
            rows=rows,
            apart=plan.y.apart,
            row_groups=row_groups,
            line_step=plan.y.step,
            x_step=plan.x.step * pixel,
            x_class=x.dilation * pixel,
            c_step=plan.x.apart * pixel,
            tap=path.nbytes,
            parts=parts,
            part_count=len(parts),
            groups=groups,
            group_count=len(groups),
            kernels=np.array(kernels, np.int64),
            kernel_count=len(kernels),
            strips=strips,
            chunk=chunk,
            chunks=chunks,
            runs=self.threads,
            units=-(-chunks // self.threads) * self.threads * len(groups),
            scratch_nbytes=SCRATCH,
        )

    def _groups(self, plan: DepthwisePlan, most: int) -> np.ndarray:
        """Return the table of groups of panels, at most so many and of what is read again soon."""
        lines, pixels = (
            len(lines_of(axis.kernel, walk.classes, outputs))
            for axis, walk, outputs in zip(
                plan.axes[1:], (plan.y, plan.x), plan.block[2:], strict=True
            )
        )
        once = (lines * pixels + plan.block.rows * plan.block.steps) * plan.path.nbytes
        most = max(1, min(most, PIXELS_BYTES // once))
        whole, left = divmod(plan.channels, plan.path.lanes(plan.element))
        groups = [
            (first, min(stop, whole) - first, left if stop > whole else 0)
            for first, stop in evenly(plan.panels, most)
        ]
        return np.array(groups, GROUP)

    def _parts(self, plan: DepthwisePlan, pixel: int) -> np.ndarray:
        """Return the table of parts of a row: some outputs that are taken one after the other."""
        axis, walk = plan.axes[2], plan.x
        ranges, parts = [], []
        for origin in range(min(walk.apart, axis.output)):
            for outputs in evenly(-(-(axis.output - origin) // walk.apart), STRIP):
                ranges.append(_range(axis, walk, origin, outputs))
                parts.append((0, (origin * axis.stride - axis.low) * pixel, origin * pixel))
        self.ranges = np.array(ranges, np.int64)
        table = np.array(parts, PART)
        table["range"] = pool.address(self.ranges) + np.arange(len(table)) * self.ranges.strides[0]
        return table


def _range(axis: Axis, walk: Walk, origin: int, outputs: tuple[int, int]) -> list[int]:
    """Return a window's range, whose steps are some outputs."""
    starts, stops = [], []
    for tap in range(axis.kernel):
        low, high = (max(0, -((origin - o) // walk.apart)) for o in axis.outputs_of(tap))
        starts.append(low)
        stops.append(high)
    all_start = max(outputs[0], *starts)
    all_stop = min(outputs[1], *stops)
    if all_start >= all_stop:
        all_start = all_stop = outputs[1]
    return [outputs[0], all_start, all_stop, outputs[1], *starts, *stops]
