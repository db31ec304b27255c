"""What the worker of a depthwise kernel gradient is called with: its tables, the work cut up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from . import compiled, launch, pool
from .blocks import PIECES_A_THREAD, evenly
from .depthwise_gradient_kernel import kernel as window_kernel
from .depthwise_gradient_records import CALL, COLUMNS, SCRATCH, TAPS
from .direct_layout import strides_of
from .tile import DENSE
from .tile import kernel as tile_kernel
from .vector import ELEMENTS
from .window import STRIP, WINDOW_BYTES, groups_of, heights_of, range_of

if TYPE_CHECKING:
    from .depthwise_gradient import DepthwiseGradientPlan

#: Outputs of a chunk at least, where there are as many, how many chunks there are at most, and
#: what their sums may take.
CHUNK, MOST_CHUNKS, MOST_BYTES = 1024, 128, 2**24
#: Vectors of chunks' sums that are added up at a time.
_ADDED = 4


class Layout:
    """What the worker is called with for one size of batch, and the tables it points to."""

    def __init__(self, plan: DepthwiseGradientPlan, batch: int, threads: int) -> None:
        axes, itemsize = plan.axes, plan.element.dtype.itemsize
        sizes, outputs = [a.size for a in axes], [a.output for a in axes]
        pixel, rows = plan.channels * itemsize, plan.window.rows
        taps = math.prod(a.kernel for a in axes)
        lanes = plan.path.lanes(plan.element)
        sums_tap = plan.panels * plan.path.nbytes
        self.columns, parts = self._columns(plan, sums_tap)
        row_groups = -(-outputs[1] // (rows * plan.y.apart)) * plan.y.apart
        strips = batch * outputs[0] * row_groups * parts
        most = max(1, min(MOST_CHUNKS, MOST_BYTES // (taps * sums_tap)))
        chunk = max(1, CHUNK * parts // (outputs[2] * rows), -(-strips // most))
        self.chunks = -(-strips // chunk)
        # Unlike chunks, groups of channels may depend on threads: no sum does on them.
        pieces = PIECES_A_THREAD * threads if threads > 1 else 1
        window = plan.window
        once = window.pixels(plan.y, plan.x) + math.prod(window[:2]) + math.prod(window[2:])
        groups = groups_of(
            plan.channels,
            lanes,
            min(-(-plan.panels * self.chunks // pieces), WINDOW_BYTES // (once * plan.path.nbytes)),
        )
        self.threads = min(threads, self.chunks * len(groups))
        self.scratch_nbytes = SCRATCH * self.threads + self.chunks * taps * sums_tap
        self.call = launch.Call(
            compiled.worker("depthwise_gradient_worker", "depthwise_gradient"),
            CALL,
            self.scratch_nbytes,
            kernel=[a.kernel for a in axes],
            size=sizes,
            output=outputs,
            step=[a.stride for a in axes],
            dilation=[a.dilation for a in axes],
            low=[a.low for a in axes],
            x_strides=strides_of(sizes, pixel),
            g_strides=strides_of(outputs, pixel),
            rows=rows,
            apart=plan.y.apart,
            row_groups=row_groups,
            line_step=plan.y.step,
            x_step=plan.x.step * pixel,
            x_class=axes[2].dilation * pixel,
            g_step=plan.x.apart * pixel,
            pixel=pixel,
            columns=self.columns,
            column_count=len(self.columns),
            parts=parts,
            taps=np.array([(a, b - a) for a, b in evenly(axes[1].kernel, plan.window[0])], TAPS),
            tap_count=-(-axes[1].kernel // plan.window.height),
            groups=groups,
            group_count=len(groups),
            panel=plan.path.nbytes,
            kernels=self.kernels,
            strips=strips,
            chunk=chunk,
            chunks=self.chunks,
            runs=self.threads,
            units=-(-self.chunks // self.threads) * self.threads * len(groups),
            sums_tap=sums_tap,
            scratch_nbytes=SCRATCH * self.threads,
            **self._adding(plan),
        )

    def _columns(self, plan: DepthwiseGradientPlan, sums_tap: int) -> tuple[np.ndarray, int]:
        """Return the table of columns, those of one part of a row together, and how many parts.

        A part is some of the outputs that are taken one after the other.
        """
        axis, walk = plan.axes[2], plan.x
        pixel = plan.channels * plan.element.dtype.itemsize
        taps = evenly(axis.kernel, plan.window.width)
        widths = sorted({stop - first for first, stop in taps})
        tables = [self._kernels(plan, width) for width in widths]
        self.kernels = np.array([address for table in tables for address in table], np.int64)
        ranges: list[list[int]] = []
        columns, parts = [], 0
        for origin in range(min(walk.apart, axis.output)):
            outputs = -(-(axis.output - origin) // walk.apart)
            for steps in evenly(outputs, STRIP):
                parts += 1
                for first, stop in taps:
                    ranges.append(range_of(axis, walk, origin, range(first, stop), steps))
                    x = origin * axis.stride + first * axis.dilation - axis.low
                    kernels = len(tables[0]) * widths.index(stop - first)
                    columns.append((0, x * pixel, origin * pixel, first * sums_tap, kernels))
        self.ranges = np.array([bound for bounds in ranges for bound in bounds], np.int64)
        table = np.array(columns, COLUMNS)
        starts = np.cumsum([0] + [len(bounds) for bounds in ranges[:-1]])
        table["range"] = pool.address(self.ranges) + starts * self.ranges.itemsize
        return table, parts

    def _kernels(self, plan: DepthwiseGradientPlan, width: int) -> list[int]:
        """Return the addresses ``[height][several rows of g][partial]``, 0 where not used."""
        axis, walk, (most, _, rows, _) = plan.axes[1], plan.y, plan.window
        used = heights_of(axis, walk, rows, evenly(axis.kernel, most))
        whole, left = divmod(plan.channels, plan.path.lanes(plan.element))
        return [
            window_kernel(
                plan.path,
                ELEMENTS.index(plan.element),
                window._replace(height=height, width=width),
                (min(walk.classes, height), min(plan.x.classes, width)),
                partial=partial,
            )
            if height and (height, several) in used and there
            else 0
            for height in range(most + 1)
            for several, window in enumerate((plan.one_row, plan.window))
            for partial, there in ((False, whole), (True, left))
        ]

    def _adding(self, plan: DepthwiseGradientPlan) -> dict[str, int | np.ndarray]:
        """Return the fields for adding chunks up: tiles of one row, by an A of one."""
        lanes = plan.path.lanes(plan.element)
        left = plan.channels % (_ADDED * lanes) or _ADDED * lanes
        vectors, some = -(-left // lanes), left % lanes > 0
        element = ELEMENTS.index(plan.element)
        return {
            "one": np.ones(1, plan.element.dtype),
            "adds": tile_kernel(plan.path, element, 1, _ADDED, DENSE),
            "adds_last": tile_kernel(plan.path, element, 1, vectors, DENSE, partial=some),
            "added": _ADDED * plan.path.nbytes,
            "lanes": left - (vectors - 1) * lanes,
        }
