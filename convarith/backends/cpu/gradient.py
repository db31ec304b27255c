"""The kernel gradient's plan: rows of taps and channels by panels of g, summed over pixels."""

from __future__ import annotations

import functools
import math

import numpy as np

from ...geometry import ConvGeometry
from . import compiled, launch, pool
from .blocks import PIECES_A_THREAD, evenly, multiply_adds
from .direct_layout import strides_of
from .gradient_records import CALL, scratch_nbytes
from .gradient_tables import blocks, parts, tables
from .native import LINE
from .phases import flattened, is_pointwise
from .tile import ALONG_ROWS, NEITHER, shapes
from .vector import Element, Path

#: Pixels whose products are summed before they are added to the others, at least a row of them
#: unless it is LONG_ROWS times as long. A row of pixels of a pointwise kernel may end anywhere.
CHUNK_PIXELS, LONG_ROWS = 256, 4
#: How many at most for each byte of a vector, where strips of g are copied, or lanes are taps and
#: windows lie more than a LINE or two apart: a panel of so many pixels and the rows' channels then
#: share the first-level cache.
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
#: What a pixel takes of a strip: it stays in the second-level cache.
STRIP_BYTES = 512
#: Rows of a table at most, where they are swapped.
MOST_TABLE = 2**14
#: So many multiply-adds begin before the first is done.
LATENCY = 8
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
        self.a_row = element.dtype.itemsize
        if self.joins and self.depth == 1:
            self.a_row = x.dilation * pixel
        self.adjacent = ALONG_ROWS if self.a_row == element.dtype.itemsize else NEITHER
        #: Whether strips of g are copied before they are read.
        self.packs = self.columns * element.dtype.itemsize >= WIDE
        #: The channels of the input that are copied together, 0 where it is read in place: of few,
        #: or from pixels so near to each other that a chunk of them finds room in the cache.
        self.strip = 0
        wide = not self.joins and self.depth * element.dtype.itemsize >= WIDE
        if wide and x.stride * pixel > WIDE:
            self.strip = STRIP_BYTES // element.dtype.itemsize
        cycles, self.rows, self.vectors = self._fewest_cycles()
        #: Whether rows are channels of g, and lanes those of all taps of the last axis.
        self.swapped = False
        if self.groups == 1 and x.dilation == 1 and not (self.packs or self.strip):
            swapped, rows, vectors = self._fewest_cycles_swapped()
            if swapped < cycles and self._fits_swapped(vectors):
                self.swapped, self.rows, self.vectors = True, rows, vectors
        #: Whether the next lanes' windows are asked for ahead: too large to be near by themselves.
        self.asks = self.swapped and (
            math.prod(geometry.input_shape) * element.dtype.itemsize >= LARGE_OPERANDS
        )
        self.work = multiply_adds(geometry)  # for one of the batch
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(functools.partial(GradientLayout, self))

    def _fewest_cycles(self) -> tuple[float, int, int]:
        """Return an estimate of a row of taps' cycles, and the rows and vectors of a tile."""
        lanes = self.path.lanes(self.element)
        needed = -(-self.columns // lanes)
        taps = self.axes[2].kernel
        length = self.depth * (taps if self.joins else 1)
        unit = self.depth if self.joins else 1  # no tile cuts the channels of a tap then

        def cycles(shape: tuple[int, int]) -> tuple[float, int]:
            rows, wide = shape
            tiles = -(-length // (rows // unit * unit)) * -(-needed // wide)
            each = tiles * _cycles(rows, wide) * (1 if self.joins else taps)
            return each, -rows * wide

        fitting = [
            shape
            for shape in shapes(self.path)
            if unit <= shape[0] <= max(unit, length)
            and shape[1] <= needed
            and shape[1] * self.path.nbytes <= PANEL_BYTES
            and (self.joins or not self.packs or shape[1] * self.path.nbytes % 64 == 0)
        ]
        best = most, wide = min(fitting, key=cycles)
        return cycles(best)[0], most // unit * unit, -(-needed // -(-needed // wide))

    def _fewest_cycles_swapped(self) -> tuple[float, int, int]:
        """Return the same where rows are channels of g."""
        lanes = self.path.lanes(self.element)
        needed = -(-self.depth * self.axes[2].kernel // lanes)

        def cycles(shape: tuple[int, int]) -> tuple[float, int]:
            rows, wide = shape
            tiles = evenly(self.columns, rows)
            full, last = divmod(needed, wide)
            each = sum(
                full * _cycles(stop - first, wide, self.chains(stop - first, wide))
                + (_cycles(stop - first, last, self.chains(stop - first, last)) if last else 0)
                for first, stop in tiles
            )
            return each, -rows * wide

        fitting = [
            shape
            for shape in shapes(self.path)
            if shape[0] <= self.columns
            and shape[1] <= needed
            and shape[1] * self.path.nbytes <= PANEL_BYTES
        ]
        best = min(fitting, key=cycles)
        return cycles(best)[0], *best

    def _fits_swapped(self, vectors: int) -> bool:
        """Whether the tables, of a length that grows as the square of the taps', stay short."""
        z, y, x = self.axes
        if x.kernel > MOST_TABLE:
            return False
        full = vectors * self.path.lanes(self.element)
        panels = sum(-(-part.taps * self.depth // full) for part in parts(x, 0, x.kernel))
        return z.kernel * y.kernel * panels <= MOST_TABLE

    def chains(self, rows: int, vectors: int) -> int:
        """Return how many sums take turns where one would wait for itself, if they are swapped."""
        if rows * vectors >= LATENCY:
            return 1
        return 4 if 4 * rows * vectors <= self.path.registers * 3 // 4 else 2

    def __str__(self) -> str:
        layout = self.layout(1, launch.allowed(self.work))
        kind = "channels of g by taps, " * self.swapped
        return (
            f"direct, {kind}kernel gradient: tiles of {self.rows} x {self.vectors} vectors of "
            f"{self.path.nbytes} bytes ({self.path.name}), sums over {layout.chunk} rows of pixels "
            f"at a time, {layout.scratch_nbytes // 1024} KiB of scratch in all"
        )

    def scratch(self, batch: int, threads: int) -> int:
        """Return the bytes that a run allocates besides its result."""
        return self.layout(batch, threads).scratch_nbytes

    def run(self, x: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        layout = self.layout(len(x), launch.allowed(len(x) * self.work))
        if layout.parts == 1:
            layout.call.run(layout.threads, x, g, out)
            return
        parts = pool.empty((layout.parts, *out.shape), self.element.dtype)
        layout.call.run(layout.threads, x, g, parts)
        sums = parts[0]
        with np.errstate(all="ignore"):
            for part in parts[1:]:
                sums += part
        out[...] = sums

    @property
    def full(self) -> int:
        """The lanes of a whole panel."""
        return self.vectors * self.path.lanes(self.element)


def _pitch(nbytes: int) -> int:
    """Return bytes from pixel to pixel: an odd number of lines, which lead to all cache sets."""
    return (-(-nbytes // 64) | 1) * 64


def _cycles(rows: int, vectors: int, chains: int = 1) -> float:
    """Estimate a tile's cycles for a chunk: two multiply-adds or less than two loads each."""
    loads = vectors + rows
    each = max(rows * vectors / 2, 0.6 * loads, LATENCY / 2 / chains) + loads / 8
    return each * CHUNK_PIXELS + 100 + 3 * rows * vectors


class GradientLayout:
    """What the worker is called with for one size of batch, and the tables it points to."""

    def __init__(self, plan: GradientPlan, batch: int, threads: int) -> None:
        axes, itemsize = plan.axes, plan.element.dtype.itemsize
        sizes, outputs = [a.size for a in axes], [a.output for a in axes]
        output_rows = batch * outputs[0] * outputs[1]
        pixel = plan.geometry.in_channels * itemsize
        apart = plan.swapped and axes[2].stride * pixel >= 2 * LINE
        most = CHUNK_PIXELS
        if plan.packs or apart:
            most = min(most, PIXELS_A_BYTE * plan.path.nbytes)
        longest = most if is_pointwise(plan.geometry.axes) else LONG_ROWS * most
        width = -(-outputs[2] // -(-outputs[2] // longest))
        self.chunk = min(output_rows, max(1, most // width))
        g_pixel = plan.geometry.out_channels * itemsize
        nbytes = math.prod(plan.geometry.kernel_shape) * itemsize
        operands = batch * (math.prod(sizes) * pixel + math.prod(outputs) * g_pixel)
        chunks = -(-output_rows // self.chunk) * -(-outputs[2] // width)
        # Where rows and lanes are swapped, there are as few pieces else as rows of taps.
        large = operands >= LARGE_OPERANDS or (plan.swapped and chunks >= PARTS)
        dealt = large and operands >= OPERANDS_A_RESULT * PARTS * nbytes
        dealt = dealt and PARTS * nbytes <= PARTS_BYTES
        self.parts = min(PARTS, chunks) if dealt else 1
        found = tables(plan)
        # Each piece copies its panels by itself: no more of them than keep the threads busy.
        wanted = PIECES_A_THREAD * threads if threads > 1 else 1
        others = len(found.spans) * self.parts
        count = len(found.groups)
        worthwhile = max(-(-threads // others), count * plan.rows // LEAST_ROWS)
        block_count = min(count, -(-wanted // others), worthwhile)
        table = blocks(found, 1 if plan.swapped else -(-count // block_count))
        units = len(table) * others
        self.threads = min(threads, units)
        edge_chunk = 0
        if found.rows["edge"].any():
            edge_chunk = min(CHUNK_PIXELS, -(-output_rows // self.parts))
        x_pitch = g_pitch = 0
        if plan.strip:
            x_pitch = _pitch(min(plan.strip, plan.depth) * itemsize)
        if plan.packs:
            widest = max(int(stop - first) for first, stop in found.spans)
            g_pitch = _pitch(widest * plan.vectors * plan.path.nbytes)
        pixels = self.chunk * width
        taps = axes[2].kernel * plan.depth if plan.swapped else 0
        each = scratch_nbytes(
            max(self.chunk, edge_chunk),
            pixels * g_pitch,
            pixels * x_pitch,
            taps * plan.columns * itemsize,
        )
        self.scratch_nbytes = each * self.threads
        if self.parts > 1:
            self.scratch_nbytes += self.parts * nbytes
        self.call = launch.Call(
            compiled.worker("gradient_worker", "gradient"),
            CALL,
            each * self.threads,
            size=sizes,
            output=outputs,
            step=[a.stride for a in axes],
            dilation=[a.dilation for a in axes],
            low=[a.low for a in axes],
            x_strides=strides_of(sizes, pixel),
            g_strides=strides_of(outputs, g_pixel),
            rows=found.rows,
            panels=found.panels,
            blocks=table,
            block_count=len(table),
            spans=found.spans,
            span_count=len(found.spans),
            units=units,
            chunk=self.chunk,
            chunks=chunks,
            parts=self.parts,
            output_rows=output_rows,
            width=width,
            nbytes=nbytes,
            a_row=plan.a_row,
            ahead=plan.full * itemsize,
            c_row=taps * itemsize if plan.swapped else g_pixel,
            swapped=plan.columns if plan.swapped else 0,
            taps=taps,
            itemsize=itemsize,
            edge_chunk=edge_chunk,
            x_pitch=x_pitch,
            g_pitch=g_pitch,
            scratch_nbytes=each,
        )
