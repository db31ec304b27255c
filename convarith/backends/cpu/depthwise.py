"""The plan of a depthwise convolution by windows; see `window`.

It sums in the order of the tiles of `direct`, so which of the two does it changes no bit.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from ...axis import Axis
from ...geometry import ConvGeometry
from . import compiled, launch, pool
from .blocks import PIECES_A_THREAD, evenly, multiply_adds
from .depthwise_kernel import kernel
from .depthwise_records import CALL, PART, SCRATCH
from .direct_layout import strides_of
from .finish import NOTHING, Finish
from .phases import ONE
from .vector import ELEMENTS, Element, Path
from .window import (
    MOST,
    STRIP,
    WINDOW_BYTES,
    Walk,
    Window,
    choose_rows_and_steps,
    groups_of,
    has_all_taps,
    heights_of,
    range_of,
)

if TYPE_CHECKING:
    from ..protocol import Product


#: Of the outputs, the least share that has all taps inside: others are summed tap by tap.
LEAST_INSIDE = 0.1


def applies(path: Path, geometry: ConvGeometry, product: Product) -> bool:
    """Whether channels do not meet, and enough outputs have all their taps inside."""
    if product != "forward" or geometry.groups == 1 or geometry.rank > 2:
        return False
    if not geometry.groups == geometry.in_channels == geometry.out_channels:
        return False
    inside = math.prod(np.mean(has_all_taps(axis)) for axis in geometry.axes)
    return max(geometry.kernel_size) <= MOST and inside >= LEAST_INSIDE


def choose_windows(path: Path, y: Axis, x: Axis, panels: int) -> tuple[Window, Window]:
    """Return the windows that need the fewest cycles: of several rows, and of one."""
    y_walk, x_walk = Walk.of(y), Walk.of(x)
    taps = y.kernel * x.kernel

    def fits(rows: int, steps: int) -> bool:
        return rows * steps + 2 <= path.registers

    def cycles(rows: int, steps: int) -> float:
        """Estimate a window's cycles.

        That is two products each, or half of a sum's latency, loads and stores, taps that find no
        register, and what is read.
        """
        sums, window = rows * steps, Window(y.kernel, x.kernel, rows, steps)
        moved = window.pixels(y_walk, x_walk) + taps + sums
        moved += max(0, sums + 1 + taps - path.registers) * sums
        waiting = window.waiting(y_walk, x_walk, panels)
        return max(taps * sums, 4 * taps) / 2 + moved / 3 + waiting

    _, several, one = choose_rows_and_steps(y, x, fits, cycles)
    return Window(y.kernel, x.kernel, *several), Window(y.kernel, x.kernel, *one)


class DepthwisePlan:
    """``W x`` where every channel has taps of its own."""

    def __init__(self, path: Path, element: Element, geometry: ConvGeometry) -> None:
        self.path, self.element, self.channels = path, element, geometry.out_channels
        self.axes = (ONE,) * (3 - geometry.rank) + geometry.axes
        self.y, self.x = (Walk.of(axis) for axis in self.axes[1:])
        self.window, self.one_row = choose_windows(path, *self.axes[1:], self.panels)
        self.work = multiply_adds(geometry)  # for one of the batch
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(functools.partial(Layout, self))

    def __str__(self) -> str:
        return (
            f"direct, depthwise: windows of {self.window.rows} x {self.window.steps} outputs, "
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
        pixel, (height, width, rows, _) = plan.channels * itemsize, plan.window
        parts = self._parts(plan, pixel)
        used = heights_of(y, plan.y, rows, [(0, height)])
        used |= {(0, 0)}  # windows in the padding
        lanes = path.lanes(plan.element)
        whole, left = divmod(plan.channels, lanes)
        kernels = [
            kernel(
                path,
                ELEMENTS.index(plan.element),
                window._replace(height=some),
                (min(plan.y.classes, max(1, some)), min(plan.x.classes, width)),
                partial=partial,
                finishes=finishes,
            )
            if (some, several) in used and there
            else 0
            for some in range(height + 1)
            for several, window in enumerate((plan.one_row, plan.window))
            for partial, there in ((False, whole), (True, left))
        ]
        row_groups = -(-outputs[1] // (rows * plan.y.apart)) * plan.y.apart
        strips = batch * outputs[0] * row_groups * len(parts)
        wanted = 2 * PIECES_A_THREAD * threads if threads > 1 else 1
        chunk = -(-strips // wanted)
        chunks = -(-strips // chunk)
        once = plan.window.pixels(plan.y, plan.x) + rows * plan.window.steps
        most = min(-(-plan.panels * chunks // wanted), WINDOW_BYTES // (once * path.nbytes))
        groups = groups_of(plan.channels, lanes, most)
        self.threads = min(threads, chunks * len(groups))
        self.call = launch.Call(
            compiled.worker("depthwise_worker", "depthwise"),
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
            strips=strips,
            chunk=chunk,
            runs=self.threads,
            units=-(-chunks // self.threads) * self.threads * len(groups),
            scratch_nbytes=SCRATCH,
        )

    def _parts(self, plan: DepthwisePlan, pixel: int) -> np.ndarray:
        """Return the table of parts of a row: some outputs that are taken one after the other."""
        axis, walk = plan.axes[2], plan.x
        ranges, parts = [], []
        for origin in range(min(walk.apart, axis.output)):
            for outputs in evenly(-(-(axis.output - origin) // walk.apart), STRIP):
                ranges.append(range_of(axis, walk, origin, range(axis.kernel), outputs))
                parts.append((0, (origin * axis.stride - axis.low) * pixel, origin * pixel))
        self.ranges = np.array(ranges, np.int64)
        table = np.array(parts, PART)
        table["range"] = pool.address(self.ranges) + np.arange(len(table)) * self.ranges.strides[0]
        return table
