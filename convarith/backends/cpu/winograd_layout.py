"""How Winograd's squares are cut into blocks, and what its worker is called with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import compiled, launch, pool
from .blocks import PIECES_A_THREAD, Tile, choose_tile
from .winograd_records import (
    ALL,
    CALL,
    FIRST_HALF,
    JOB,
    SECOND_HALF,
    scratch_nbytes,
)
from .winograd_transforms import PRODUCTS, SOURCES, TAPS

if TYPE_CHECKING:
    from .finish import Finish
    from .winograd import WinogradPlan

#: Vectors of a panel: with as many rows as there are registers for, the machine's peak.
VECTORS = 2
#: Fewer squares a block would read the kernel too often.
FEW_SQUARES = 10
#: A larger kernel of one job is not kept in a thread's cache. Smaller blocks then gain little.
LARGE_KERNEL = 2**22
#: What V and M of a block may take, if that is as much as FEW_SQUARES do, by the registers for
#: what is under way: on the machines with as many that were measured; and with a large kernel.
BLOCK_BYTES = {32: 3 * 2**18, 16: 2**18}
LARGE_BLOCK_BYTES = 2**21
#: What is read of a kernel in a cycle, once a block. Of blocks a fifth smaller to an eighth larger
#: those are taken that cost the least: one square more may take another row of tiles.
READ_BYTES = 16
#: What V of all blocks of a call may take that threads share.
SHARED_BYTES = 2**22
#: What V of a block may take where the kernel is transformed for each of them anew.
STREAMED_BYTES = 2**24


class Layout:
    """What a worker is called with for one size of batch, and the tables it points to."""

    def __init__(self, plan: WinogradPlan, batch: int, threads: int) -> None:
        m, n, itemsize = plan.algorithm.m, plan.algorithm.n, plan.element.dtype.itemsize
        depth, width = plan.channels
        pixel, panel = depth * itemsize, VECTORS * plan.path.nbytes
        squares = [batch * math.prod(each) for each in plan.squares]
        self.block = self.rows = self.scratch_nbytes = 0
        #: Of each call the threads; the part, the first block and how many, and their pieces.
        self.calls: list[tuple[int, tuple[int, int, int, int]]] = []
        self.shared = 0
        if not sum(squares):
            return  # every job has results, or none has
        jobs = self._jobs(plan)
        large = plan.job_entries * itemsize > LARGE_KERNEL
        room = LARGE_BLOCK_BYTES if large else BLOCK_BYTES[plan.path.registers]
        most = room // (n * n * (pixel + panel))
        if plan.streamed:
            most = STREAMED_BYTES // (n * n * pixel)
        blocks = -(-min(squares) // max(FEW_SQUARES, most))
        wanted = -(-PIECES_A_THREAD * threads // len(jobs))
        together = large or min(squares) < FEW_SQUARES * wanted // 2
        if threads > 1:
            pieces = len(plan.columns) if together else 1
            blocks = max(blocks, min(-(-wanted // pieces), min(squares) // FEW_SQUARES))
        vectors = (plan.columns[0][1] - plan.columns[0][0]) // plan.lanes

        def tile(blocks: int) -> Tile:
            block, least = -(-max(squares) // blocks), min(squares) // blocks
            return choose_tile(plan.path, plan.element, block, width, depth, False, vectors, least)

        def cycles(blocks: int) -> float:
            read = plan.job_entries * itemsize / READ_BYTES
            return -(-len(jobs) * blocks // threads) * (n * n * tile(blocks).cycles + read)

        if not together and not plan.streamed:
            block = -(-max(squares) // blocks)
            sizes = range(-(-block * 4 // 5), block * 9 // 8 + 1)
            counts = {min(-(-max(squares) // size), min(squares)) for size in sizes}
            blocks = min(sorted(counts), key=cycles)
        # A panel is in the first-level cache for all of a block, whose tiles overlap least.
        self.block, self.rows = -(-max(squares) // blocks), tile(blocks).rows
        least = min(squares) // blocks
        # Products a power of two apart would share few sets of the first-level cache.
        v_product, m_product, b_product = (
            each + 64 for each in (self.block * pixel, self.block * panel, depth * panel)
        )
        panels = plan.panels(self.rows)
        shared = 0
        if plan.streamed or (threads > 1 and together):
            shared = n * n * v_product
            span = max(1, min(len(jobs) * blocks, SHARED_BYTES // shared))
            self.shared = span * shared
            for first in range(0, len(jobs) * blocks, span):
                count = min(span, len(jobs) * blocks - first)
                for part, pieces in (
                    (FIRST_HALF, min(least, -(-PIECES_A_THREAD * threads // count))),
                    (SECOND_HALF, len(panels)),
                ):
                    self._add(threads, part, first, count, pieces)
        else:
            self._add(threads, ALL, 0, len(jobs) * blocks, 1)
        own = n * n * b_product if plan.streamed else 0 if shared else n * n * v_product
        each = scratch_nbytes(n * n, pixel, panel, n * n * m_product, own)
        threads = max(threads for threads, _ in self.calls)
        self.scratch_nbytes = each * threads + self.shared
        sizes = [axis.output if plan.transposed else axis.size for axis in plan.axes]
        results = [axis.size if plan.transposed else axis.output for axis in plan.axes]
        self.call = launch.Call(
            compiled.worker("winograd_worker", "winograd"),
            CALL,
            each * threads,
            source_size=sizes,
            source_strides=plane_strides(sizes, pixel),
            result_strides=plane_strides(results, width * itemsize),
            result_step=[axis.stride if plan.transposed else 1 for axis in plan.axes],
            batch=batch,
            m=m,
            n=n,
            itemsize=itemsize,
            vector=plan.path.nbytes,
            depth=depth,
            rows=self.rows,
            r=plan.algorithm.r,
            tap=pixel * width,
            b_product=b_product,
            of_taps=plan.transform(TAPS) if plan.streamed else 0,
            of_sources=plan.transform(SOURCES),
            of_products=plan.transform(PRODUCTS),
            jobs=jobs,
            panels=panels,
            panel_count=len(panels),
            blocks=blocks,
            shared_nbytes=shared,
            v_product=v_product,
            m_product=m_product,
            panel_nbytes=panel,
            scratch_nbytes=each,
        )

    def _add(self, threads: int, part: int, first: int, count: int, pieces: int) -> None:
        """Add a call for `count` blocks of all jobs from `first` on."""
        self.calls.append((min(threads, count * pieces), (part, first, count, pieces)))

    def run(self, source: np.ndarray, kernel: np.ndarray, out: np.ndarray, finish: Finish) -> None:
        """Run the calls on these arrays, one after the other."""
        shared = pool.empty((self.shared // 8,), np.dtype(np.int64)) if self.shared else None
        for threads, fields in self.calls:
            self.call.run(threads, source, kernel, out, *finish, shared, *fields)

    @staticmethod
    def _jobs(plan: WinogradPlan) -> np.ndarray:
        table = np.zeros(len(plan.jobs), JOB)
        entries = zip(table, plan.jobs, plan.squares, strict=True)
        for place, (entry, job, squares) in enumerate(entries):
            entry["start"] = [phase.start for phase in job]
            entry["count"] = [phase.length for phase in job]
            entry["first"] = [phase.first if phase.taps[0] else 0 for phase in job]
            entry["squares"] = squares
            entry["packed"] = place * plan.job_entries * plan.element.dtype.itemsize
        return table


def whole_vectors(channels: int, lanes: int, most: int) -> list[tuple[int, int]]:
    """Return ranges of channels, each of as many vectors but at most `most`; they may overlap.

    The last range does where the channels do not fill its last vector. 17 channels are two ranges
    of 16.
    """
    most = min(most, channels // lanes)
    vectors = -(-channels // lanes)
    most = -(-vectors // -(-vectors // most))
    result = []
    for start in range(0, channels, most * lanes):
        wide = min(most, -(-(channels - start) // lanes)) * lanes
        start = min(start, channels - wide)
        result.append((start, start + wide))
    return result


def plane_strides(sizes: Sequence[int], pixel: int) -> list[int]:
    """Return the bytes between neighbours along (n, y, x) of an array (n, y, x, c)."""
    y, x = sizes
    return [y * x * pixel, x * pixel, pixel]
