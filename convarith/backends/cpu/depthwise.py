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
from . import launch, pool
from .blocks import PIECES_A_THREAD, evenly, multiply_adds
from .depthwise_kernel import kernel
from .depthwise_worker import BLOCK, CALL, PANEL, PART, SCRATCH, worker
from .direct_layout import strides_of
from .finish import NOTHING, Finish
from .phases import ONE
from .vector import ELEMENTS, Element, Path
from .window import MOST, STRIP, Walk, Window, choose_window, heights_of, panels_of

if TYPE_CHECKING:
    from ..protocol import Product


#: An output's sum is one chain: of more taps, too few of them are under way at a time.
MOST_TAPS = 12


def applies(path: Path, geometry: ConvGeometry, product: Product) -> bool:
    """Whether channels do not meet, and a few taps are all that an output is the sum of."""
    if product != "forward" or geometry.groups == 1 or geometry.rank > 2:
        return False
    if not geometry.groups == geometry.in_channels == geometry.out_channels:
        return False
    y, x = (ONE, *geometry.axes)[-2:]
    window = Window(y.kernel, x.kernel, 1, 1)
    if max(window) > MOST or y.kernel * x.kernel > MOST_TAPS:
        return False
    return window.registers_of_outputs(Walk.of(y)) <= path.registers


class DepthwisePlan:
    """``W x`` where every channel has taps of its own."""

    def __init__(self, path: Path, element: Element, geometry: ConvGeometry) -> None:
        self.path, self.element, self.channels = path, element, geometry.out_channels
        self.axes = (ONE,) * (3 - geometry.rank) + geometry.axes
        self.y, self.x = (Walk.of(axis) for axis in self.axes[1:])
        self.window = choose_window(path, element, self.axes, self.channels, whole=True)
        self.work = multiply_adds(geometry)  # for one of the batch
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(functools.partial(Layout, self))

    def __str__(self) -> str:
        _, _, rows, vectors = self.window
        return (
            f"direct, depthwise: windows of {rows} rows and {vectors} vectors of "
            f"{self.path.nbytes} bytes ({self.path.name})"
        )

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Lay the taps out as whole vectors."""
        taps = math.prod(weights.shape[:-2])
        packed = pool.aligned(taps * self.wide, self.element.dtype)
        padded = packed.reshape(taps, self.wide)
        padded[:, : self.channels] = weights.reshape(taps, self.channels)
        padded[:, self.channels :] = 0
        return packed

    @property
    def wide(self) -> int:
        """How many channels the packed taps have."""
        lanes = self.path.lanes(self.element)
        return -(-self.channels // lanes) * lanes

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
        result = np.zeros(self.wide, self.element.dtype)
        result[: self.channels] = part
        return result


class Layout:
    """What the worker is called with for one size of batch, and the tables it points to."""

    def __init__(self, plan: DepthwisePlan, batch: int, threads: int, finishes: bool) -> None:
        path, axes, itemsize = plan.path, plan.axes, plan.element.dtype.itemsize
        _, y, x = axes
        sizes, outputs = [a.size for a in axes], [a.output for a in axes]
        pixel, (height, width, rows, vectors) = plan.channels * itemsize, plan.window
        panels, last = panels_of(path, plan.element, plan.channels, vectors, PANEL)
        parts = self._parts(plan, pixel)
        used = heights_of(y, plan.y, rows, [(0, height)])
        used |= {(0, 0)}  # windows in the padding
        kernels = [
            kernel(
                path,
                ELEMENTS.index(plan.element),
                Window(some, width, rows if several else 1, wide),
                (min(plan.y.classes, max(1, some)), min(plan.x.classes, width)),
                partial=partial,
                finishes=finishes,
            )
            if (some, several) in used
            else 0
            for some in range(height + 1)
            for several in (0, 1)
            for wide, partial in ((vectors, False), last)
        ]
        row_groups = -(-outputs[1] // (rows * plan.y.apart)) * plan.y.apart
        strips = batch * outputs[0] * row_groups * len(parts)
        wanted = 2 * PIECES_A_THREAD * threads if threads > 1 else 1
        chunk = -(-strips // wanted)
        chunks = -(-strips // chunk)
        blocks = evenly(len(panels), -(-len(panels) * chunks // wanted))
        self.threads = min(threads, chunks * len(blocks))
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
            tap=plan.wide * itemsize,
            parts=parts,
            part_count=len(parts),
            panels=panels,
            panel_count=len(panels),
            blocks=np.array(blocks, BLOCK),
            block_count=len(blocks),
            kernels=np.array(kernels, np.int64),
            kernel_count=len(kernels),
            strips=strips,
            chunk=chunk,
            chunks=chunks,
            runs=self.threads,
            units=-(-chunks // self.threads) * self.threads * len(blocks),
            scratch_nbytes=SCRATCH,
        )

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
