"""The kernel gradient's plan: rows of taps and channels by panels of g, summed over pixels."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ...geometry import ConvGeometry
from . import launch
from .blocks import PIECES_A_THREAD, SMALL_WORK
from .direct import ONE
from .gradient_worker import CALL, PANEL, ROWS, scratch_nbytes, worker
from .tile import kernel as tile_kernel
from .tile import shapes
from .vector import ELEMENTS, Element, Path

#: Pixels whose products are summed before they are added to the others, at least a row of them.
CHUNK_PIXELS = 512
#: Fewer channels than this are joined with those of the next taps to make rows of a tile.
FEW_CHANNELS = 8
#: From this distance of two pixels of g on, in bytes, its panels are copied together first: so
#: far apart they would share few sets of the first-level cache.
FAR_APART = 1024


class GradientPlan:
    """The kernel gradient by tiles; see `gradient_worker`."""

    def __init__(self, path: Path, element: Element, geometry: ConvGeometry) -> None:
        self.path, self.element, self.geometry = path, element, geometry
        axes = geometry.axes
        self.axes = (ONE,) * (3 - len(axes)) + axes
        self.groups = geometry.groups
        self.depth = geometry.in_channels // self.groups
        self.columns = geometry.out_channels // self.groups
        self.channelwise = self.groups > 1 and self.depth == self.columns == 1
        if self.channelwise:
            self.columns = geometry.out_channels
        self._layouts: dict[tuple[int, int, bool], GradientLayout] = {}

    def __str__(self) -> str:
        layout = self.layout(1, launch.allowed(), False)
        rows = "taps and channels" if layout.joined else "channels of a tap"
        return (
            f"direct, kernel gradient: {rows} in tiles of {layout.rows} x {layout.vectors} "
            f"vectors of {self.path.nbytes} bytes ({self.path.name}), sums over {layout.chunk} "
            f"rows of pixels at a time, {layout.scratch_nbytes // 1024} KiB of scratch in all"
        )

    def layout(self, batch: int, threads: int, exact: bool) -> GradientLayout:
        """Return the tables for a batch and a number of threads, made once each."""
        key = (batch, threads, exact)
        found = self._layouts.get(key)
        if found is None:
            if len(self._layouts) > 64:
                self._layouts.clear()
            found = self._layouts[key] = GradientLayout(self, *key)
        return found

    def pack(self, g: np.ndarray) -> np.ndarray:
        """Return g as it is: the worker reads it, or copies parts of it, in place."""
        return g

    def scratch(self, batch: int) -> int:
        """Return the bytes that a run allocates besides its result."""
        return self.layout(batch, launch.allowed(), False).scratch_nbytes

    def run(self, x: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        layout = self.layout(len(x), launch.allowed(), False)
        if layout.padded and self.element.floating and not self._finite_at_the_ends(g):
            layout = self.layout(len(x), launch.allowed(), True)
        layout.call.run(layout.threads, x=x, g=g, out=out)

    def _finite_at_the_ends(self, g: np.ndarray) -> bool:
        """Whether the outputs whose window leaves the input along the last axis are finite."""
        axis = self.axes[2]
        g = g.reshape(-1, axis.output, self.geometry.out_channels)
        inner = max(0, -(-axis.low // axis.stride))
        stop = (axis.size + axis.low - axis.effective_kernel) // axis.stride + 1
        return bool(np.isfinite(g[:, :inner]).all() and np.isfinite(g[:, max(0, stop) :]).all())


class GradientLayout:
    """What the worker is called with for one size of batch, and the tables it points to."""

    def __init__(self, plan: GradientPlan, batch: int, threads: int, exact: bool) -> None:
        axes, itemsize = plan.axes, plan.element.dtype.itemsize
        kernel = [axis.kernel for axis in axes]
        self.joined = (
            not exact
            and plan.groups == 1
            and plan.depth < FEW_CHANNELS
            and kernel[2] > 1
            and axes[2].dilation == 1
        )
        sizes, outputs = [a.size for a in axes], [a.output for a in axes]
        pixel = plan.geometry.in_channels * itemsize
        self.padded = self.joined and (
            axes[2].low > 0
            or (axes[2].output - 1) * axes[2].stride + kernel[2] - axes[2].low > axes[2].size
        )
        padded_nbytes = 0
        if self.padded:
            padded_nbytes = ((axes[2].output - 1) * axes[2].stride + kernel[2]) * pixel
        self.chunk = max(1, CHUNK_PIXELS // max(1, outputs[2]))
        output_rows = batch * outputs[0] * outputs[1]
        self.chunk = min(self.chunk, output_rows)
        g_pixel = plan.geometry.out_channels * itemsize
        packs = g_pixel >= FAR_APART and not plan.channelwise
        self._choose_tile(plan, kernel)
        self.panels = self._panel_table(plan)
        self.row_table = self._row_table(plan, kernel)
        count = len(self.row_table)
        pixels = output_rows * outputs[2]
        work = pixels * math.prod(kernel) * plan.geometry.out_channels * plan.depth
        threads = 1 if work < SMALL_WORK else threads
        wanted = PIECES_A_THREAD * threads if threads > 1 else 1
        blocks = min(count, -(-wanted // len(self.panels)))
        block = -(-count // blocks)
        blocks = -(-count // block)
        units = blocks * len(self.panels)
        self.threads = min(threads, units)
        packed = self.chunk * outputs[2] * self.width if packs else 0
        each = scratch_nbytes(self.chunk, packed, padded_nbytes)
        self.scratch_nbytes = each * self.threads
        self.call = launch.Call(
            worker(),
            CALL,
            self.scratch_nbytes,
            size=sizes,
            output=outputs,
            step=[a.stride for a in axes],
            dilation=[a.dilation for a in axes],
            low=[a.low for a in axes],
            x_strides=_strides(sizes, pixel),
            g_strides=_strides(outputs, g_pixel),
            rows=self.row_table,
            row_count=count,
            panels=self.panels,
            panel_count=len(self.panels),
            block=block,
            blocks=blocks,
            units=units,
            chunk=self.chunk,
            output_rows=output_rows,
            itemsize=itemsize,
            c_row=g_pixel,
            joined=self.joined,
            padded_nbytes=padded_nbytes,
            packs=packs,
            scratch_nbytes=each,
            packed_nbytes=packed,
        )

    def _choose_tile(self, plan: GradientPlan, kernel: list[int]) -> None:
        """Choose the vectors of a panel and the rows of a tile, evenly split."""
        lanes = plan.path.lanes(plan.element)
        needed = -(-plan.columns // lanes)
        length = 1 if plan.channelwise else plan.depth * (kernel[2] if self.joined else 1)
        loads_a = 1 if plan.channelwise else 0

        def cycles(shape: tuple[int, int]) -> tuple[float, int]:
            rows, wide = shape
            each = max(rows * wide / 2, (rows * (wide if loads_a else 1) + wide) / 2, 4)
            return -(-length // rows) * -(-needed // wide) * each, -rows * wide

        fitting = [s for s in shapes(plan.path) if s[0] <= length and s[1] <= needed]
        most, wide = min(fitting, key=cycles)
        self.vectors = -(-needed // -(-needed // wide))
        self.rows = -(-length // -(-length // most))
        self.length = length
        self.width = self.vectors * plan.path.nbytes

    def _panel_table(self, plan: GradientPlan) -> np.ndarray:
        itemsize, lanes = plan.element.dtype.itemsize, plan.path.lanes(plan.element)
        full = self.vectors * lanes
        panels = []
        groups = 1 if plan.channelwise else plan.groups
        for group, first in itertools.product(range(groups), range(0, plan.columns, full)):
            wide = min(full, plan.columns - first)
            vectors = -(-wide // lanes)
            at = (group * plan.columns + first) * itemsize
            panels.append(
                (
                    at if plan.channelwise else group * plan.depth * itemsize,
                    at,
                    at,
                    vectors < self.vectors,
                    wide - (vectors - 1) * lanes,
                    wide * itemsize,
                    self.width,
                )
            )
        self.last = -(-(plan.columns % full or full) // lanes)
        return np.array(panels, PANEL)

    def _row_table(self, plan: GradientPlan, kernel: list[int]) -> np.ndarray:
        itemsize, element = plan.element.dtype.itemsize, ELEMENTS.index(plan.element)
        parts = -(-self.length // self.rows)
        cuts = [self.length * part // parts for part in range(parts + 1)]
        taps = kernel[:2] + [1 if self.joined else kernel[2]]
        row_bytes = plan.geometry.out_channels * itemsize
        rows = []
        for tap in np.ndindex(*taps):
            place = (tap[0] * kernel[1] + tap[1]) * kernel[2] + tap[2]
            for start, stop in itertools.pairwise(cuts):
                kernels = (
                    tile_kernel(plan.path, element, stop - start, vectors, plan.channelwise)
                    for vectors in (self.vectors, self.last)
                )
                at = (place * plan.depth + start) * row_bytes
                rows.append((tap, start * itemsize, at, *kernels))
        return np.array(rows, ROWS)


def _strides(sizes: list[int], pixel: int) -> list[int]:
    z, y, x = sizes
    return [z * y * x * pixel, y * x * pixel, x * pixel, pixel]
