"""How a kernel gradient by Winograd's algorithm is cut up, and what its worker is called with."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from . import compiled, launch, pool
from .blocks import PIECES_A_THREAD, choose_tile
from .tile import ALONG_ROWS, DENSE
from .tile import kernel as tile_kernel
from .vector import ELEMENTS
from .winograd_gradient_records import (
    CALL,
    JOB,
    OPERAND,
    PART,
    SPAN,
    SUMS,
    TRANSFORMS,
)
from .winograd_layout import VECTORS, plane_strides, whole_vectors
from .winograd_records import HEAD
from .winograd_transforms import RESULTS, SOURCES
from .winograd_transforms import SUMS as OF_SUMS

if TYPE_CHECKING:
    from .winograd_gradient import WinogradGradientPlan

#: What V and U of a chunk of squares take, unless LEAST_SQUARES take more; both measured.
CHUNK_BYTES = 3 * 2**21
LEAST_SQUARES = 64
#: Squares that a tile sums at a time, before they are added to the others: 600 in one sum err up to
#: 13 times as much as direct, whose sums are of some 256 pixels.
RUN_SQUARES = 28
#: Bytes of g's channels in a span, of the source's in a block, and of both multiplied: M then stays
#: in the second-level cache. Shorter spans write the taps in shorter pieces, a page each.
SPAN_BYTES, BLOCK_BYTES, BOTH_BYTES = 512, 192, 512 * 96


class Layout:
    """What the worker is called with for one size of batch, and the tables it points to."""

    def __init__(self, plan: WinogradGradientPlan, batch: int, threads: int) -> None:
        geometry, path, element = plan.geometry, plan.path, plan.element
        itemsize, lanes, index = (
            element.dtype.itemsize,
            path.lanes(element),
            ELEMENTS.index(element),
        )
        (m, r), n = plan.algorithm[:2], plan.algorithm.n
        source, result = geometry.in_channels, geometry.out_channels
        jobs, squares = len(plan.residues), batch * math.prod(plan.squares)
        panels = whole_vectors(result, lanes, VECTORS)
        # The widest spans, then the largest blocks, of which there are enough pieces.
        span, block = SPAN_BYTES, BOTH_BYTES // SPAN_BYTES
        while True:
            spans = self._spans(panels, span // itemsize)
            blocks = whole_vectors(source, lanes, max(1, block // path.nbytes))
            pieces = jobs * len(blocks) * len(spans)
            if pieces >= PIECES_A_THREAD * threads or block <= path.nbytes:
                break
            if len(spans) < len(panels):
                span //= 2
                block = min(BLOCK_BYTES, BOTH_BYTES // span)
            else:
                block //= 2
        widths = [[stop - start for start, stop in parts] for parts in (blocks, panels)]
        self.block, self.vectors = max(widths[0]), max(widths[1]) // lanes

        # The chunks decide the order of the sums: nothing above may have a part in them.
        lengths = [-(-channels // lanes) * lanes for channels in (source, result)]
        square = n * n * (jobs * lengths[0] + lengths[1]) * itemsize
        chunks = -(-squares // max(LEAST_SQUARES, CHUNK_BYTES // square))
        cuts = [squares * part // max(1, chunks) for part in range(chunks + 1)]
        self.chunk = -(-squares // max(1, chunks))
        self.rows = choose_tile(
            path, element, self.block, result, self.chunk, False, self.vectors, min(widths[0])
        ).rows

        # Products a power of two apart would share few sets of the first-level cache.
        v_product, u_product = (self.chunk * sum(parts) * itemsize + 64 for parts in widths)
        span = max(panels[stop - 1][1] - panels[first][0] for first, stop in spans) * itemsize
        m_product = -(-self.block // self.rows) * self.rows * span + 64
        u_offset = jobs * n * n * v_product
        self.shared = u_offset + n * n * u_product
        window = max(n * n * source, m * m * result) * itemsize
        staged = HEAD + -(-window // 64) * 64
        products = staged + 2 * r * r * span
        each = products + n * n * m_product
        #: Of each call the threads; the part, its first square and how many.
        self.calls: list[tuple[int, tuple[int, int, int]]] = []
        pieces = -(-PIECES_A_THREAD * threads // (jobs + 1))
        for first, stop in itertools.pairwise(cuts):
            for part, units in (
                (TRANSFORMS, (jobs + 1) * pieces),
                (SUMS, jobs * len(blocks) * len(spans)),
            ):
                self.calls.append((min(threads, units), (part, first, stop - first)))
        self.scratch_nbytes = each * threads + self.shared

        blocks_table = self._parts(blocks, itemsize)
        panels_table = self._parts(panels, itemsize)
        for entry, width in zip(panels_table, widths[1], strict=True):
            entry["kernel"] = tile_kernel(
                path, index, self.rows, width // lanes, DENSE, adjacent=ALONG_ROWS
            )
        spans_table = np.zeros(len(spans), SPAN)
        for entry, (first, stop) in zip(spans_table, spans, strict=True):
            entry["first"], entry["stop"] = first, stop
            entry["another"], entry["start"] = panels_table[first][["another", "start"]]
            entry["nbytes"] = panels_table["nbytes"][first:stop].sum()
        tap = source * result * itemsize
        taps_x = geometry.kernel_size[1]
        job_table = np.zeros(jobs, JOB)
        for place, (entry, (y, x)) in enumerate(zip(job_table, plan.residues, strict=True)):
            entry["v_offset"] = place * n * n * v_product
            entry["c_offset"] = (y * taps_x + x) * tap
        operands = np.zeros(jobs + 1, OPERAND)
        for entry, job, residue in zip(operands, job_table, plan.residues, strict=False):
            # What no output reads is as good as outside.
            read = [min(a.size, a.span - a.low) for a in geometry.axes]
            entry["first"] = [at - a.low for at, a in zip(residue, geometry.axes, strict=True)]
            entry["step"], entry["size"] = geometry.strides, read
            entry["length"], entry["transform"] = n, plan.transform(SOURCES)
            entry["strides"] = plane_strides(geometry.input_size, source * itemsize)
            entry["parts"], entry["part_count"] = pool.address(blocks_table), len(blocks)
            entry["offset"], entry["product"] = job["v_offset"], v_product
        entry = operands[jobs]
        entry["of_g"], entry["step"], entry["size"] = 1, 1, geometry.output_size
        entry["length"], entry["transform"] = m, plan.transform(RESULTS)
        entry["strides"] = plane_strides(geometry.output_size, result * itemsize)
        entry["parts"], entry["part_count"] = pool.address(panels_table), len(panels)
        entry["offset"], entry["product"] = u_offset, u_product
        operands["advance"] = m * operands["step"]
        self.call = launch.Call(
            compiled.worker("winograd_gradient_worker", "winograd_gradient"),
            CALL,
            each * threads,
            chunk=self.chunk,
            runs=-(-self.chunk // RUN_SQUARES),
            squares=plan.squares,
            n=n,
            r=r,
            itemsize=itemsize,
            vector=path.nbytes,
            rows=self.rows,
            operands=operands,
            operand_count=len(operands),
            pieces=pieces,
            jobs=job_table,
            job_count=jobs,
            blocks=blocks_table,
            block_count=len(blocks),
            panels=panels_table,
            spans=spans_table,
            span_count=len(spans),
            of_sums=plan.transform(OF_SUMS),
            u_offset=u_offset,
            v_product=v_product,
            u_product=u_product,
            m_product=m_product,
            tap_row=geometry.strides[0] * taps_x * tap,
            tap_pixel=geometry.strides[1] * tap,
            c_row=result * itemsize,
            staged=staged,
            products=products,
            scratch_nbytes=each,
        )

    @staticmethod
    def _spans(panels: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
        """Return ranges of panels, of at most so many channels; one that overlaps is alone."""
        spans: list[tuple[int, int]] = []
        for place, (start, stop) in enumerate(panels):
            if place and start == panels[place - 1][1] and stop - panels[spans[-1][0]][0] <= most:
                spans[-1] = spans[-1][0], place + 1
            else:
                spans.append((place, place + 1))
        return spans

    @staticmethod
    def _parts(ranges: list[tuple[int, int]], itemsize: int) -> np.ndarray:
        """Return the table of blocks or panels."""
        table = np.zeros(len(ranges), PART)
        before = done = 0
        for entry, (start, stop) in zip(table, ranges, strict=True):
            entry["first"], entry["count"] = start, stop - start
            entry["another"] = done - start
            entry["start"], entry["nbytes"] = start * itemsize, (stop - start) * itemsize
            entry["before"] = before
            before, done = before + (stop - start) * itemsize, stop
        return table

    def run(self, x: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
        """Run the calls on these arrays, one after the other."""
        shared = pool.empty((self.shared // 8,), np.dtype(np.int64))
        for threads, fields in self.calls:
            self.call.run(threads, x, g, out, shared, *fields)
