"""The direct plan: forward and transposed convolutions, dense, grouped or depthwise, as tiles."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...geometry import ConvGeometry
from ..protocol import Product
from . import launch, phases, pool, tuning
from .blocks import Blocks, choose_tile, multiply_adds
from .direct_layout import Job, Layout
from .finish import NOTHING, Finish
from .phases import Phase
from .tile import CHANNELWISE, DENSE, HALVED
from .vector import Element, Path

#: More jobs, residues of an axis, or scratch of one thread than this is left to the reference.
MOST_JOBS = 2**14
MOST_SCRATCH = 2**26


class Packed(NamedTuple):
    """A kernel laid out as ``[job][panel][tap][depth][lane]``; see `DirectPlan._job_columns`."""

    panels: np.ndarray
    exact: bool  # some entry is not finite, so no zero around the source may meet it


class DirectPlan:
    """``W x`` or ``W^T y`` by tiles; see `direct_worker`."""

    def __init__(
        self, path: Path, element: Element, geometry: ConvGeometry, product: Product
    ) -> None:
        self.path, self.element, self.geometry = path, element, geometry
        self.transposed = product == "transpose"
        # Where every axis is pointwise, the batch and all axes are one row of pixels.
        self.flat = phases.is_pointwise(geometry.axes)
        self.axes = phases.flattened(geometry.axes)
        self.groups = geometry.groups
        source, result = geometry.in_channels, geometry.out_channels
        if self.transposed:
            source, result = result, source
        self.channels = source, result
        self.depth, self.columns = source // self.groups, result // self.groups
        self.channelwise = self.groups > 1 and self.depth == self.columns == 1
        if self.channelwise:
            self.columns = result
        self.phases = self._phases()
        self.halved = self._fits_a_half()
        self.kind = HALVED if self.halved else CHANNELWISE if self.channelwise else DENSE
        self.jobs: list[Job] = list(itertools.product(*self.phases))
        self.widest = max(len(job[2].taps) for job in self.jobs) * self.columns
        self.steps = self.depth * max(
            math.prod(len(phase.taps[0]) for phase in job) for job in self.jobs
        )
        self.together = self._taps_together()
        self.most_taps = max(len(x.taps[0]) for x in self.phases[2]) if self.together else 0
        self.vectors = choose_tile(
            path,
            element,
            self._width(1),
            self.widest,
            self.steps,
            self.channelwise,
            taps=self.most_taps,
        ).vectors  # one where it is halved
        self.lanes = self.vectors * path.lanes(element)  # columns of a panel
        self.job_shapes = [self._job_shape(job) for job in self.jobs]
        self.packed_entries = sum(map(math.prod, self.job_shapes))
        # For one of the batch; a result without taps takes its time too.
        results = math.prod(geometry.input_shape) if self.transposed else 0
        self.work = max(multiply_adds(geometry), results)
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(self._layout)

    def _phases(self) -> tuple[list[Phase], list[Phase], list[Phase]]:
        z, y, x = self.axes
        if not self.transposed:
            return phases.forward(z), phases.forward(y), phases.forward(x)
        return (
            phases.transposed(z, merge=False),
            phases.transposed(y, merge=False),
            self._whole_or_within(phases.transposed(x, merge=self.groups == 1)),
        )

    def _whole_or_within(self, merged: list[Phase]) -> list[Phase]:
        """Return the phases of the last axis, or their parts within the array where that is faster.

        A tile with results outside is staged: it takes some twice its time.
        """
        parts = [phases.within(phase, self.axes[2]) for phase in merged]

        def cycles(phase: Phase, ends: int) -> float:
            steps = self.depth * len(phase.taps[0])
            columns = len(phase.taps) * self.columns
            tile = choose_tile(
                self.path, self.element, phase.length, columns, steps, self.channelwise
            )
            return tile.cycles * (1 + ends / -(-phase.length // tile.rows))

        whole = sum(cycles(phase, len(own) - 1) for phase, own in zip(merged, parts, strict=True))
        within = sum(cycles(phase, 0) for own in parts for phase in own)
        return list(itertools.chain(*parts)) if within < whole else merged

    def _fits_a_half(self) -> bool:
        """Whether the rows of results come in pairs, half a vector each; they share tiles then."""
        if not self.transposed or self.groups > 1:
            return False
        pairs = phases.transposed(self.axes[1], merge=True)
        if [len(phase.taps) for phase in pairs] != [2]:
            return False
        members = max(len(phase.taps) for phase in self.phases[2])
        if 2 * members * self.columns > self.path.lanes(self.element):
            return False
        self.phases = self.phases[0], pairs, self.phases[2]
        return True

    def _taps_together(self) -> bool:
        """Whether tiles load what is in A once for all taps of the last axis that it meets.

        Rows must be as far apart as taps. It is worth it where what is loaded meets one vector of
        B, and few taps. It is the order of the sums: sizes, batch and groups have no part in it.
        """
        axis = self.axes[2]
        if self.transposed:
            period = axis.stride // math.gcd(axis.stride, axis.dilation)
            taps, even = -(-axis.kernel // period), axis.stride % axis.dilation == 0
        else:
            taps, even = axis.kernel, axis.stride == axis.dilation
        merged = axis.stride if self.transposed else 1  # also where groups keep them apart
        one = self.columns * merged <= self.path.lanes(self.element)
        return even and 2 <= taps <= self.path.registers // 4 and (self.channelwise or one)

    def _width(self, batch: int) -> int:
        if self.flat:
            return batch * self.axes[2].size
        return min(phase.length for phase in self.phases[2])

    def __str__(self) -> str:
        kind = "depthwise" if self.channelwise else "transposed" if self.transposed else "forward"
        tile = self.layout(1, launch.allowed(self.work), False)
        return (
            f"direct, {kind}: {len(self.jobs)} jobs of {self.steps} steps a sum, tiles of "
            f"{tile.rows} x {self.vectors} vectors of {self.path.nbytes} bytes ({self.path.name}), "
            f"{tile.scratch_nbytes // 1024} KiB of scratch in all"
        )

    def _layout(self, batch: int, threads: int, exact: bool) -> Layout:
        return Layout(self, batch, threads, exact, tuning.find(self.key(batch, threads)))

    def key(self, batch: int, threads: int) -> str:
        """Return the name of this plan in the file of tuned blocks."""
        kind = "transpose" if self.transposed else "forward"
        return (
            f"{kind} {self.geometry!r} {self.element.dtype} {self.path.name} "
            f"{self.vectors} vectors, batch {batch}, {threads} threads"
        )

    def tune(self, packed: Packed, batch: int, seconds: float) -> None:
        """Time blocks around those chosen and keep the fastest; no sum's order depends on it."""
        threads = launch.allowed(batch * self.work)
        plain = Layout(self, batch, threads, False)
        shapes = self.geometry.output_shape, self.geometry.input_shape
        source, out = (
            np.ones((batch, *shape), self.element.dtype)
            for shape in (shapes if self.transposed else shapes[::-1])
        )

        def candidate(blocks: Blocks) -> Callable[[], None]:
            layout = Layout(self, batch, threads, False, blocks)
            return lambda: self._run(layout, source, packed, out, NOTHING)

        rows, chunk, group = plain.blocks
        choices = [
            Blocks(r, c, g)
            for r in sorted({rows, *(max(1, rows - less) for less in (1, 2, 4))}, reverse=True)
            for c in sorted({chunk, *(min(plain.tiles, n) for n in (4, 16, 64, 256))})
            for g in sorted({group, 1, plain.most_panels})
        ]
        best = tuning.fastest({blocks: candidate(blocks) for blocks in choices}, seconds)
        tuning.keep(self.key(batch, threads), best)
        self.layout.cache_clear()

    def pack(self, kernel: np.ndarray) -> Packed:
        """Lay the kernel out in panels, zeros in the lanes that no column has."""
        dtype, groups = self.element.dtype, self.groups
        kernel = kernel.astype(dtype, copy=False)
        exact = False
        if self.element.floating:
            with np.errstate(all="ignore"):
                exact = not (np.isfinite(kernel.sum()) or np.isfinite(kernel).all())
        *size, c_in, c_out = kernel.shape
        size = [1] * (3 - len(size)) + size
        kernel = kernel.reshape(*size, c_in, groups, c_out // groups)
        if self.transposed:
            kernel = np.swapaxes(kernel, 3, 5)  # (z, y, x, depth, group, column)
        if self.channelwise:
            kernel = np.swapaxes(kernel, 4, 5)  # groups are the columns
        tapwise = exact or not self.together  # see Layout
        panels = pool.aligned(self.packed_entries, dtype)
        at = 0
        for job, shape in zip(self.jobs, self.job_shapes, strict=True):
            columns = self._job_columns(kernel, job, shape, tapwise).reshape(shape)
            groups, steps, count, lanes = shape
            there = panels[at : at + columns.size].reshape(groups, count, steps, lanes)
            there[...] = columns.swapaxes(1, 2)
            at += columns.size
        return Packed(panels, exact)

    def _job_shape(self, job: Job) -> tuple[int, int, int, int]:
        """Return how many groups, steps, panels and lanes a job's packed kernel has."""
        steps = self.depth * math.prod(len(phase.taps[0]) for phase in job)
        count = 1 if self.halved else -(-len(job[2].taps) * self.columns // self.lanes)
        return 1 if self.channelwise else self.groups, steps, count, self.lanes

    def _job_columns(
        self, kernel: np.ndarray, job: Job, shape: tuple[int, ...], tapwise: bool
    ) -> np.ndarray:
        """Return ``[group][tap][depth][column]`` of a kernel (z, y, x, depth, group, column).

        Unless `tapwise`, the last axis's taps come after the depth. Columns are filled up with
        zeros to whole panels, or to half a vector a row where it is halved.
        """
        z, y, x = (phase.taps for phase in job)
        groups, steps, count, lanes = shape
        wide = count * lanes // len(y)
        inner = (2, 3) if tapwise else (3, 2)  # x and depth

        def part(y_taps: tuple[int, ...], x_taps: tuple[int, ...]) -> np.ndarray:
            taken = kernel[_evenly_spaced(z[0]), _evenly_spaced(y_taps), _evenly_spaced(x_taps)]
            return taken.transpose(4, 0, 1, *inner, 5)

        first = part(y[0], x[0])
        columns = first.shape[-1]
        if len(y) == len(x) == 1 and columns == wide:
            return first.reshape(groups, steps, wide)
        result = np.zeros((*first.shape[:-1], len(y), wide), kernel.dtype)
        for row, y_taps in enumerate(y):
            for member, x_taps in enumerate(x):
                there = result[..., row, member * columns : (member + 1) * columns]
                there[...] = part(y_taps, x_taps)
        return result

    def _columns(self, part: np.ndarray) -> np.ndarray:
        """Return a scale or bias once for each merged result, and whole vectors at the end."""
        members = self.widest // self.columns if self.groups == 1 else 1
        tiled = part if members == 1 else np.tile(part, members)
        result = np.zeros(len(tiled) + self.lanes, self.element.dtype)
        for first in (0, self.lanes // 2) if self.halved else (0,):
            result[first : first + len(tiled)] = tiled
        return result

    def scratch(self, batch: int, threads: int) -> int:
        """Return the bytes that a run allocates besides its result."""
        return self.layout(batch, threads, False).scratch_nbytes

    def run(self, source: np.ndarray, packed: Packed, out: np.ndarray, finish: Finish) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        batch = len(source)
        layout = self.layout(batch, launch.allowed(batch * self.work), packed.exact)
        self._run(layout, source, packed, out, finish)

    def _run(
        self, layout: Layout, source: np.ndarray, packed: Packed, out: np.ndarray, finish: Finish
    ) -> None:
        if finish is not NOTHING:
            finish = finish.laid_out(self._columns)
        layout.call.run(layout.threads, source, packed.panels, out, *finish)


def _evenly_spaced(taps: tuple[int, ...]) -> slice:
    """Return the slice that takes these taps, which are in equal steps up or down."""
    if len(taps) < 2:
        return slice(taps[0], taps[0] + 1) if taps else slice(0)
    step = taps[1] - taps[0]
    stop = taps[-1] + step
    return slice(taps[0], None if stop < 0 else stop, step)
