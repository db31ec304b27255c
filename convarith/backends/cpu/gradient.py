"""The kernel gradient's plan: rows of taps and channels by panels of g, summed over pixels."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from ...axis import Axis
from ...geometry import ConvGeometry
from . import launch, pool
from .blocks import PIECES_A_THREAD, SMALL_WORK, evenly
from .direct_layout import strides_of
from .gradient_worker import BLOCK, CALL, PANEL, ROWS, SPAN, scratch_nbytes, worker
from .phases import flattened, is_pointwise
from .tile import DENSE, shapes
from .tile import kernel as tile_kernel
from .vector import ELEMENTS, Element, Path

#: Pixels whose products are summed before they are added to the others, at least a row of them
#: unless it is LONG_ROWS times as long. A row of pixels of a pointwise kernel may end anywhere.
CHUNK_PIXELS, LONG_ROWS = 256, 4
#: How many at most for each byte of a vector, where strips of g are copied: a panel and as many
#: rows' channels of the input then share the first-level cache.
PIXELS_A_BYTE = 4
#: With fewer channels than this a tile's rows run on over the next taps of the last axis.
FEW_CHANNELS = 8
#: From this many bytes of an operand's channels on, those of a piece are copied together first.
WIDE = 256
#: Where operands of as many bytes are so many times all parts' results, the rows of pixels are
#: dealt out instead of the results: each piece reads its operands once, from the nearest cache for
#: every tap.
LARGE_OPERANDS, OPERANDS_A_RESULT = 2**21, 4
#: As how many parts then, each with sums of its own, which are added in order; their bytes at most.
PARTS, PARTS_BYTES = 16, 2**22
#: What a pixel of a panel takes at most: a chunk of them then stays in the first-level cache.
PANEL_BYTES = 128
#: What a pixel takes of a piece's panels, and of a strip: they stay in the second-level cache.
SPAN_BYTES, STRIP_BYTES = 1024, 512
#: Fewer rows a piece would copy g's panels too often.
LEAST_ROWS = 96


class GradientPlan:
    """The kernel gradient by tiles; see `gradient_worker`."""

    def __init__(self, path: Path, element: Element, geometry: ConvGeometry) -> None:
        self.path, self.element, self.geometry = path, element, geometry
        self.axes = flattened(geometry.axes)
        self.groups = geometry.groups
        self.depth = geometry.in_channels // self.groups
        self.columns = geometry.out_channels // self.groups
        x = self.axes[2]
        #: Whether the rows of neighbouring taps are evenly spaced in memory, and few.
        self.joins = (
            self.groups == 1 and self.depth < FEW_CHANNELS and (x.dilation == 1 or self.depth == 1)
        )
        pixel = geometry.in_channels * element.dtype.itemsize
        self.a_row = x.dilation * pixel if self.depth == 1 else element.dtype.itemsize
        lanes = path.lanes(element)
        joined = self.depth * x.kernel
        #: Whether rows are channels of g, and lanes those of all taps of the last axis.
        self.swapped = self.groups == 1 and x.dilation == 1 and 2 * self.columns <= joined <= lanes
        #: How many sums take turns where the rows are so few that one would wait for itself.
        self.chains = 4 if self.columns <= 3 else 2
        #: Whether strips of g are copied before they are read.
        self.packs = self.columns * element.dtype.itemsize >= WIDE
        #: The channels of the input that are copied together, 0 where it is read in place.
        self.strip = 0
        if not (self.joins or self.swapped) and self.depth * element.dtype.itemsize >= WIDE:
            self.strip = STRIP_BYTES // element.dtype.itemsize
        self._choose_tile()
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(functools.partial(GradientLayout, self))

    def _choose_tile(self) -> None:
        """Choose the vectors of a panel and the rows of a tile."""
        if self.swapped:
            self.rows, self.vectors = self.columns, 1
            return
        lanes = self.path.lanes(self.element)
        needed = -(-self.columns // lanes)
        length = self.depth * (self.axes[2].kernel if self.joins else 1)
        unit = self.depth if self.joins else 1  # no tile cuts the channels of a tap then

        def cycles(shape: tuple[int, int]) -> tuple[float, int]:
            rows, wide = shape
            loads = wide + rows
            each = max(rows * wide / 2, 0.6 * loads, 4) + loads / 8
            tiles = -(-length // (rows // unit * unit)) * -(-needed // wide)
            return tiles * (each * CHUNK_PIXELS + 100 + 3 * rows * wide), -rows * wide

        fitting = [
            shape
            for shape in shapes(self.path)
            if unit <= shape[0] <= max(unit, length)
            and shape[1] <= needed
            and shape[1] * self.path.nbytes <= PANEL_BYTES
            and (self.joins or not self.packs or shape[1] * self.path.nbytes % 64 == 0)
        ]
        most, wide = min(fitting, key=cycles)
        self.rows = most // unit * unit
        self.vectors = -(-needed // -(-needed // wide))

    def __str__(self) -> str:
        layout = self.layout(1, launch.allowed())
        kind = "channels of g by taps, " * self.swapped
        return (
            f"direct, {kind}kernel gradient: tiles of {self.rows} x {self.vectors} vectors of "
            f"{self.path.nbytes} bytes ({self.path.name}), sums over {layout.chunk} rows of pixels "
            f"at a time, {layout.scratch_nbytes // 1024} KiB of scratch in all"
        )

    def pack(self, g: np.ndarray) -> np.ndarray:
        """Return g as it is: the worker reads it in place, or copies parts of it."""
        return g

    def scratch(self, batch: int, threads: int) -> int:
        """Return the bytes that a run allocates besides its result."""
        return self.layout(batch, threads).scratch_nbytes

    def run(self, x: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        layout = self.layout(len(x), launch.allowed())
        if not self.swapped and layout.parts == 1:
            layout.call.run(layout.threads, x=x, g=g, out=out)
            return
        z, y, taps = (axis.kernel for axis in self.axes)
        result = taps * self.depth, self.geometry.out_channels
        shape = layout.parts, z, y, *(result[::-1] if self.swapped else result)
        parts = pool.empty(shape, self.element.dtype)
        layout.call.run(layout.threads, x=x, g=g, out=parts)
        sums = parts[0]
        with np.errstate(all="ignore"):
            for part in parts[1:]:
                sums += part
        if self.swapped:
            sums = sums.swapaxes(2, 3)
        out[...] = sums.reshape(out.shape)

    def swapped_groups(self) -> list[list[tuple]]:
        """Return ROWS, grouped as `groups_of_rows`, where lanes are taps and channels."""
        itemsize, element = self.element.dtype.itemsize, ELEMENTS.index(self.element)
        z, y, x = (axis.kernel for axis in self.axes)

        def kernel(lanes: int) -> int:
            return tile_kernel(
                self.path, element, self.columns, 1, DENSE, chains=self.chains,
                partial=lanes < self.path.lanes(self.element), in_place=True,
            )  # fmt: skip

        groups = []
        for place, (t_z, t_y) in enumerate(np.ndindex(z, y)):
            at = place * self.columns * x * self.depth
            groups.append(
                [
                    (
                        *((t_z, t_y, k), *outputs, 0, (at + k * self.depth) * itemsize, 0, 0),
                        *(kernel(taps * self.depth),) * 2,
                        *(adds, 0, taps * self.depth),
                    )
                    for k, taps, outputs, adds in _joined(self.axes[2], 0, x)
                ]
            )
        return groups

    def groups_of_rows(self) -> list[list[tuple]]:
        """Return ROWS, grouped by the results they add to."""
        itemsize, element = self.element.dtype.itemsize, ELEMENTS.index(self.element)
        z, y, x = (axis.kernel for axis in self.axes)
        c_row = self.geometry.out_channels * itemsize
        lanes = self.path.lanes(self.element)
        last = -(-(self.columns % self._full or self._full) // lanes)
        rest = self.columns % lanes

        def entry(tap, start, stop, channel, rows, adds, again, strip=range(0)):
            place = (tap[0] * y + tap[1]) * x + tap[2]
            kernels = (
                tile_kernel(
                    self.path,
                    element,
                    rows,
                    vectors,
                    DENSE,
                    partial=partial,
                    in_place=not self.packs,
                )
                for vectors, partial in ((self.vectors, False), (last, rest > 0))
            )
            at = (place * self.depth + channel) * c_row
            copied = strip.start * itemsize, len(strip) * itemsize * (self.strip > 0)
            channel -= strip.start
            return (
                *(tap, start, stop, channel * itemsize, at),
                *(*copied, *kernels, adds, again, 0),
            )

        groups = []
        for t_z, t_y in np.ndindex(z, y):
            if self.joins:
                for first, stop in evenly(x, max(1, self.rows // self.depth)):
                    groups.append(
                        [
                            entry((t_z, t_y, k), *outputs, 0, taps * self.depth, adds, 0)
                            for k, taps, outputs, adds in _joined(self.axes[2], first, stop)
                        ]
                    )
            else:
                for t_x in range(x):
                    outputs = self.axes[2].outputs_of(t_x)
                    for begin, end in evenly(self.depth, self.strip or self.depth):
                        strip = range(begin, end)
                        groups += [
                            [entry((t_z, t_y, t_x), *outputs, first, rows, 0, first > begin, strip)]
                            for first, rows in self._tiles(strip)
                        ]
        return groups

    def _tiles(self, strip: range) -> list[tuple[int, int]]:
        """Return the first channel and the rows of each tile of a strip."""
        parts = evenly(len(strip), self.rows)
        return [(strip.start + first, stop - first) for first, stop in parts]

    @property
    def _full(self) -> int:
        return self.vectors * self.path.lanes(self.element)

    def panel_table(self) -> np.ndarray:
        """Return the panels of all groups of channels."""
        itemsize, lanes = self.element.dtype.itemsize, self.path.lanes(self.element)
        panels = []
        for group, first in itertools.product(
            range(self.groups), range(0, self.columns, self._full)
        ):
            wide = min(self._full, self.columns - first)
            vectors = -(-wide // lanes)
            at = (group * self.columns + first) * itemsize
            panels.append(
                (
                    group * self.depth * itemsize,
                    at,
                    at,
                    first + self._full >= self.columns,
                    wide - (vectors - 1) * lanes,
                    wide * itemsize,
                )
            )
        return np.array(panels, PANEL)

    def spans(self) -> list[tuple[int, int]]:
        """Return ranges of panels that are done together, none of two groups of channels."""
        panels = -(-self.columns // self._full)
        together = max(1, SPAN_BYTES // (self.vectors * self.path.nbytes))
        return [
            (group * panels + first, group * panels + stop)
            for group in range(self.groups)
            for first, stop in evenly(panels, together)
        ]


def _pitch(nbytes: int) -> int:
    """Return bytes from pixel to pixel: an odd number of lines, which lead to all cache sets."""
    return (-(-nbytes // 64) | 1) * 64


def _joined(axis: Axis, first: int, stop: int) -> list[tuple[int, int, tuple[int, int], int]]:
    """Return (tap, number of taps, outputs, adds): all taps at once where all are inside.

    At the ends of the axis, where some are not, each goes by itself.
    """
    ranges = [axis.outputs_of(k) for k in range(first, stop)]
    start, end = max(r[0] for r in ranges), min(r[1] for r in ranges)
    if end <= start:
        return [(k, 1, outputs, 0) for k, outputs in zip(range(first, stop), ranges, strict=True)]
    entries = [(first, stop - first, (start, end), 0)]
    for k, (low, high) in zip(range(first, stop), ranges, strict=True):
        entries += [(k, 1, part, 1) for part in ((low, start), (end, high)) if part[0] < part[1]]
    return entries


class GradientLayout:
    """What the worker is called with for one size of batch, and the tables it points to."""

    def __init__(self, plan: GradientPlan, batch: int, threads: int) -> None:
        axes, itemsize = plan.axes, plan.element.dtype.itemsize
        sizes, outputs = [a.size for a in axes], [a.output for a in axes]
        output_rows = batch * outputs[0] * outputs[1]
        most = min(CHUNK_PIXELS, PIXELS_A_BYTE * plan.path.nbytes) if plan.packs else CHUNK_PIXELS
        longest = most if is_pointwise(plan.geometry.axes) else LONG_ROWS * most
        width = -(-outputs[2] // -(-outputs[2] // longest))
        self.chunk = min(output_rows, max(1, most // width))
        pixel = plan.geometry.in_channels * itemsize
        g_pixel = plan.geometry.out_channels * itemsize
        nbytes = math.prod(plan.geometry.kernel_shape) * itemsize
        operands = batch * (math.prod(sizes) * pixel + math.prod(outputs) * g_pixel)
        chunks = -(-output_rows // self.chunk) * -(-outputs[2] // width)
        dealt = operands >= max(LARGE_OPERANDS, OPERANDS_A_RESULT * PARTS * nbytes)
        dealt = dealt and PARTS * nbytes <= PARTS_BYTES
        self.parts = min(PARTS, chunks) if dealt else 1
        panels = plan.panel_table()
        spans = plan.spans()
        groups = plan.swapped_groups() if plan.swapped else plan.groups_of_rows()
        work = output_rows * outputs[2] * math.prod(a.kernel for a in axes)
        threads = 1 if work * plan.depth * plan.columns * plan.groups < SMALL_WORK else threads
        # Each piece copies its panels by itself: no more of them than keep the threads busy.
        wanted = PIECES_A_THREAD * threads if threads > 1 else 1
        others = len(spans) * self.parts
        worthwhile = max(-(-threads // others), len(groups) * plan.rows // LEAST_ROWS)
        block_count = min(len(groups), -(-wanted // others), worthwhile)
        each_block = -(-len(groups) // block_count)
        rows = np.array([row for group in groups for row in group], ROWS)
        ends = np.cumsum([0] + [len(group) for group in groups])
        cuts = [*ends[:-1:each_block], ends[-1]]
        blocks = np.array(list(itertools.pairwise(cuts)), BLOCK)
        units = len(blocks) * others
        self.threads = min(threads, units)
        x_pitch = g_pitch = 0
        if plan.strip:
            x_pitch = _pitch(min(plan.strip, plan.depth) * itemsize)
        if plan.packs:
            widest = max(stop - first for first, stop in spans)
            g_pitch = _pitch(widest * plan.vectors * plan.path.nbytes)
        pixels = self.chunk * width
        each = scratch_nbytes(self.chunk, pixels * g_pitch, pixels * x_pitch)
        self.scratch_nbytes = each * self.threads
        if plan.swapped or self.parts > 1:
            self.scratch_nbytes += self.parts * nbytes
        self.call = launch.Call(
            worker(),
            CALL,
            each * self.threads,
            size=sizes,
            output=outputs,
            step=[a.stride for a in axes],
            dilation=[a.dilation for a in axes],
            low=[a.low for a in axes],
            x_strides=strides_of(sizes, pixel),
            g_strides=strides_of(outputs, g_pixel),
            rows=rows,
            row_count=len(rows),
            panels=panels,
            panel_count=len(panels),
            blocks=blocks,
            block_count=len(blocks),
            spans=np.array(spans, SPAN),
            span_count=len(spans),
            units=units,
            chunk=self.chunk,
            chunks=chunks,
            parts=self.parts,
            output_rows=output_rows,
            width=width,
            nbytes=nbytes,
            a_row=plan.a_row if plan.joins and not plan.swapped else itemsize,
            c_row=axes[2].kernel * pixel if plan.swapped else g_pixel,
            swapped=plan.swapped,
            x_pitch=x_pitch,
            g_pitch=g_pitch,
            scratch_nbytes=each,
        )
