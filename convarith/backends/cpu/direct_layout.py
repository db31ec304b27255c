"""What the direct worker is called with: the tables of jobs and panels, and the work cut up."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from . import compiled, launch
from .blocks import Blocks, choose_pieces, choose_tile
from .direct_records import CALL, JOB, PANEL, scratch_nbytes
from .phases import Phase
from .tile import ALONG_STEPS, NEITHER
from .tile import kernel as tile_kernel
from .vector import ELEMENTS

if TYPE_CHECKING:
    from .direct import DirectPlan

#: A phase of each axis (z, y, x).
Job: TypeAlias = tuple[Phase, Phase, Phase]

#: What the slots for copied windows may take of a thread's scratch, unless one takes more.
SLOTS = 2**20
#: Depthwise tiles of a piece.
COLUMN = 16


class Layout:
    """What a worker is called with for one size of batch, and the tables it points to."""

    def __init__(
        self,
        plan: DirectPlan,
        batch: int,
        threads: int,
        exact: bool,
        blocks: Blocks | None = None,
    ) -> None:
        path, element, itemsize = plan.path, plan.element, plan.element.dtype.itemsize
        sizes = [axis.output if plan.transposed else axis.size for axis in plan.axes]
        results = [axis.size if plan.transposed else axis.output for axis in plan.axes]
        jobs = plan.jobs
        if plan.flat:
            sizes = results = [1, 1, batch * sizes[2]]
            batch = 1
            jobs = [(z, y, x._replace(length=sizes[2])) for z, y, x in jobs]
        width = min(job[2].length for job in jobs)
        most_rows = 1 if exact else min(blocks.rows, width) if blocks else None
        rows = choose_tile(
            path, element, width, plan.widest, plan.steps, plan.channelwise,
            plan.vectors, most_rows, plan.most_taps,
        ).rows  # fmt: skip
        # Tiles of one row skip taps, but where a dense kernel has been packed for all together.
        skips = rows == 1 and (plan.channelwise or exact or not plan.together)
        together = plan.together and not skips
        lanes = plan.lanes
        source_step = [1 if plan.transposed else axis.stride for axis in plan.axes]
        result_step = [axis.stride if plan.transposed else 1 for axis in plan.axes]
        source_strides = strides_of(sizes, plan.channels[0] * itemsize)
        result_strides = strides_of(results, plan.channels[1] * itemsize)
        grid = [batch, *(max(j[a].length for j in jobs) for a in range(3))]
        x_tiles = -(-grid[3] // rows)
        # Down a column, where a depthwise tile finds most of its rows in the nearest cache.
        strip = 1 if plan.channelwise else x_tiles
        grid[3] = -(-x_tiles // strip)
        # Where taps of the last axis follow each other in equal steps, they are one segment.
        joined = plan.groups == 1 and all(len(x.taps[0]) <= 1 or x.space == 1 for _, _, x in jobs)
        joined = joined or plan.channelwise or together
        self.rows = rows
        self.jobs, self.panels = self._tables(plan, jobs, together)
        most_segments = slot = 1
        for job in jobs:
            z, y, x = (len(phase.taps[0]) for phase in job)
            most_segments = max(most_segments, z * y * (1 if joined else x))
            reach = (rows - 1) * source_step[2] + (x - 1) * job[2].space + 1
            if not skips and (job[2].first < 0 or _last(job[2], source_step[2]) >= sizes[2]):
                slot = max(slot, z * y * reach * source_strides[3])
        slot = -(-slot // 64) * 64
        tiles = math.prod(grid) * strip
        most_panels = max(int(j["panel_stop"] - j["panel"]) for j in self.jobs)
        halves = 2 if plan.halved else 1
        most_chunk = max(1, SLOTS // (slot + most_segments * 16))
        if plan.channelwise:
            most_chunk = min(most_chunk, COLUMN)
        chunk, group, one_by_one = choose_pieces(
            tiles,
            most_panels,
            len(jobs),
            rows * source_step[2] * source_step[1] * source_strides[3],
            rows * plan.widest * itemsize,
            plan.steps * lanes * itemsize,
            threads,
            most_chunk,
            0 if plan.channelwise else result_step[2] * result_strides[3],
        )
        if blocks:
            chunk, group = min(blocks.chunk, most_chunk, tiles), min(blocks.group, most_panels)
        chunks = -(-tiles // chunk)
        units = chunks * -(-most_panels // group) * len(jobs)
        self.tiles, self.most_panels = tiles, most_panels
        self.blocks = Blocks(rows, chunk, group)
        self.threads = min(threads, units)
        each = scratch_nbytes(rows, lanes * itemsize, chunk, most_segments, slot)
        self.scratch_nbytes = each * self.threads
        self.call = launch.Call(
            compiled.worker("direct_worker", "direct"),
            CALL,
            self.scratch_nbytes,
            source_size=sizes,
            source_strides=source_strides,
            source_step=source_step,
            result_size=results,
            result_strides=result_strides,
            result_step=result_step,
            grid=grid,
            strip=strip,
            jobs=self.jobs,
            job_count=len(jobs),
            panels=self.panels,
            rows=rows,
            itemsize=itemsize,
            depth=plan.depth,
            b_step=lanes * itemsize,
            joined=joined,
            skips=skips,
            together=together,
            channelwise=plan.channelwise,
            halves=halves,
            half_nbytes=plan.path.nbytes // 2,
            abreast=1 if one_by_one else chunk,
            chunk=chunk,
            chunks=chunks,
            group=group,
            units=units,
            scratch_nbytes=each,
            most_segments=most_segments,
            slot_nbytes=slot,
        )

    def _tables(
        self, plan: DirectPlan, jobs: list[Job], together: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the tables of jobs and of panels."""
        itemsize, lanes = plan.element.dtype.itemsize, plan.lanes
        vector = plan.path.lanes(plan.element)
        element = ELEMENTS.index(plan.element)
        table = np.zeros(max(1, len(jobs)), JOB)
        panels: list[tuple[int, ...]] = []
        ranges: dict[tuple[int, ...], tuple[int, int]] = {}
        packed = 0
        for entry, job in zip(table, jobs, strict=False):
            for field in ("start", "length", "first", "space"):
                entry[field] = [getattr(phase, field) for phase in job]
            taps = [len(phase.taps[0]) for phase in job]
            entry["taps"] = taps
            columns = len(job[2].taps) * plan.columns
            steps = math.prod(taps) * (1 if plan.channelwise else plan.depth)
            groups = 1 if plan.channelwise else plan.groups
            count = -(-columns // lanes)
            at_once = taps[2] if together else 0
            if (columns, steps, at_once) not in ranges:
                first = len(panels)
                for group, panel in itertools.product(range(groups), range(count)):
                    left = columns - panel * lanes
                    vectors = min(plan.vectors, -(-left // vector))
                    wide = min(left, lanes)
                    at = (group * plan.columns + panel * lanes) * itemsize
                    panels.append(
                        (
                            at if plan.channelwise else group * plan.depth * itemsize,
                            (group * count + panel) * steps * lanes * itemsize,
                            at,
                            tile_kernel(
                                plan.path,
                                element,
                                self.rows,
                                vectors,
                                plan.kind,
                                at_once,
                                partial=wide % vector > 0,
                                adjacent=NEITHER if plan.channelwise else ALONG_STEPS,
                            ),
                            wide - (vectors - 1) * vector,
                            wide * itemsize,
                        )
                    )
                ranges[columns, steps, at_once] = first, len(panels)
            entry["packed"] = packed
            entry["columns"] = groups * columns * itemsize
            entry["panel"], entry["panel_stop"] = ranges[columns, steps, at_once]
            packed += groups * count * steps * lanes * itemsize
        return table, np.array(panels or [(0,) * 6], PANEL)


def strides_of(sizes: list[int], pixel: int) -> list[int]:
    """Return the bytes between neighbours along (n, z, y, x) of an array (n, z, y, x, c)."""
    z, y, x = sizes
    return [z * y * x * pixel, y * x * pixel, x * pixel, pixel]


def _last(phase: Phase, step: int) -> int:
    """Return the last source that a phase reads."""
    return phase.first + (phase.length - 1) * step + (len(phase.taps[0]) - 1) * phase.space
