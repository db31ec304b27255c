"""The map of kernels that are rows times columns, where no channel meets another."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ...arrays import computed_in
from ...geometry import ConvGeometry
from ...remembered import Remembered
from ..structure import Factors
from .device import Device, Kernel
from .law import CHUNK_BYTES, ELEMENTS, MOST, Law
from .layout import aligned
from .parts import Packed, Parts, PartTypes
from .specialisations import separable_blocks
from .strips import MOST_ROWS, strips

THREADS = 128
#: Rows of sources in shared memory, and bytes of zeros behind each, as in separable.cu.
STAGES, NOTHING = 4, 32
#: Taps that a result may have along an axis: what a thread keeps in registers.
MOST_TAPS = 4
#: Phases of an axis, and bytes of shared memory that a block may take: it copies whole pixels,
#: which many channels make more than it reads.
MOST_PHASES, MOST_SHARED = 2048, 96 << 10
#: Rows of results of a block that make up for its beginning.
LEAST = 16


class Phase(NamedTuple):
    """Results of an axis with the same taps: kernel entries first + every*t, t < taps.

    `origin` is the source that the first of these results reads with the first of these taps.
    """

    origin: int
    first: int
    every: int
    taps: int


class SeparableMap:
    """Every channel by itself, its kernel rows times columns: along x, then along y."""

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        self.law = law = Law(geometry, transposed=transposed)
        self.dtype = dtype
        self.struct = law.map_struct(1, 1)
        y, x = law.axes[1:]
        self.taps_y, self.taps_x = law.phase_taps()[1:]
        #: Rows of sources that are new to a row of results.
        walks = y["dilation"] == (y["common"] if transposed else y["stride"])
        self.fresh = 1 if walks else self.taps_y
        #: Results of a thread; `piece` of them are written at once.
        self.each = CHUNK_BYTES // dtype.itemsize
        #: How often its blocks fill all multiprocessors, by timing it on an H200.
        self.fills = 10 if dtype.itemsize >= 4 else 4
        width = law.result[-1] * law.groups
        self.piece = min(self.each, width & -width)
        #: Blocks beside each other.
        self.across = -(-width // (THREADS * self.each))
        # The pixels of a row of sources that a block reads, and what alignment adds.
        pixels = -(-THREADS * self.each // law.groups) + 1
        reach = (x["taps"] - 1) * x["dilation"]
        span = (pixels - 1) * x["stride"] + reach + 1
        if transposed:
            span = (pixels - 1 + reach) // x["stride"] + 1
        row = min(span, x["source"]) * law.groups * dtype.itemsize
        self.stage = -(-(row + CHUNK_BYTES) // CHUNK_BYTES) * CHUNK_BYTES + NOTHING
        self.steps = y["stride"] if transposed else 1
        self.shared = STAGES * self.stage + self.steps * _words(self.taps_y) * 4
        self.step = max(1, MOST_ROWS // law.result[1])
        self._launches = Remembered()

    def applies(self) -> bool:
        """Whether a thread's registers and a block's shared memory hold what they must."""
        law = self.law
        y, x = law.axes[1:]
        return (
            law.geometry.rank == 2
            and computed_in(self.dtype) == np.float32
            and max(self.taps_x, self.taps_y) <= MOST_TAPS
            and max(x["phases"], self.steps) <= MOST_PHASES
            and self.shared <= MOST_SHARED
            # Each row of results reads the rows of the one before it, or those one step on.
            and (not law.transposed or y["dilation"] == y["common"] or y["stride"] == 1)
            and max(law.result[-1], law.source[-1]) * law.groups < MOST // 8
        )

    def __str__(self) -> str:
        return "separable, every channel by itself, along x and then along y"

    @functools.cached_property
    def phases(self) -> tuple[list[Phase], list[Phase]]:
        """The phases along y, from the rows on that read a new row of sources, and along x."""
        y, x = self.law.axes[1:]
        transposed = self.law.transposed
        rows = range(-y["low"], self.steps - y["low"]) if transposed else range(1)
        return (
            list(_phases(y, rows, transposed)),
            list(_phases(x, range(x["phases"]), transposed)),
        )

    @functools.cached_property
    def full(self) -> bool:
        """Whether each phase has as many taps as any."""
        of_y, of_x = self.phases
        return all(p.taps == self.taps_y for p in of_y) and all(p.taps == self.taps_x for p in of_x)

    def pack(self, device: Device, factors: Factors) -> Packed:
        """Upload the weights by phases, (phases, taps, channels), and what the phases read.

        Those along y are part of that where the channels have them in common.
        """
        of_y, of_x = self.phases
        along_y, along_x = (np.asarray(part, np.float32) for part in factors)
        common = bool((along_y == along_y[:, :1]).all())
        rows = np.zeros((self.steps, _words(self.taps_y)), np.int32)
        rows[:, 0] = [phase.taps for phase in of_y]
        along_y = _by_phases(along_y[:, :1] if common else along_y, of_y, self.taps_y)
        if common:
            rows[:, 1 : 1 + self.taps_y] = along_y[..., 0].view(np.int32)
        columns = np.array([(phase.origin, phase.taps) for phase in of_x], np.int32)
        along_x = _by_phases(along_x, of_x, self.taps_x)
        upload = device.xp.asarray
        along_y = None if common else upload(along_y)
        return Packed((upload(rows), along_y, upload(columns), upload(along_x)))

    def scratch(self, device: Device, source: Any) -> int:
        """Return the bytes of a copy of the source, where it must be moved to a multiple of 16."""
        return 0 if aligned(source) else source.nbytes

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch a kernel for as many images as one may have."""
        common = packed.weights[1] is None
        for some, into, epilogue in parts.in_steps(source, result, self.step):
            piece = self.piece if aligned(into) else 1
            key = (device, len(some), piece, common, parts.types, parts.plain)
            kernel, grid, numbers = self._launches.get(key, functools.partial(self._launch, *key))
            there = some if aligned(some) else some.copy()
            kernel(grid, THREADS, (there, *packed.weights, into, *epilogue, *numbers), self.shared)

    def _launch(
        self, device: Device, batch: int, piece: int, common: bool, types: PartTypes, plain: bool
    ) -> tuple[Kernel, tuple[int, int, int], tuple[Any, ...]]:
        pieces = self.each // piece
        taps = max(self.taps_y, self.taps_x)
        blocks = separable_blocks(piece, pieces, taps, simple=plain and common)
        kernel = device.kernel(
            "separable",
            ELEMENT=ELEMENTS[self.dtype.name],
            **types._asdict(),
            PLAIN=int(plain),
            TRANSPOSED=int(self.law.transposed),
            COMMON=int(common),
            FULL=int(self.full),
            PIECE=piece,
            PIECES=pieces,
            FRESH=self.fresh,
            TAPS_X=self.taps_x,
            TAPS_Y=self.taps_y,
            BLOCKS=blocks,
        )
        wanted = self.fills * blocks * device.multiprocessors
        of_image = self.law.result[1]
        strip, down = strips(batch, of_image, self.across, wanted, LEAST, device.multiprocessors)
        numbers = map(np.int32, (batch, strip, self.stage))
        return kernel, (self.across, down, 1), (self.struct, *numbers)


def _words(taps: int) -> int:
    """Return the words of separable.cu's `Row`, whole chunks of them."""
    chunk = CHUNK_BYTES // 4
    return -(-(1 + taps) // chunk) * chunk


def _phases(axis: dict[str, int], results: range, transposed: bool) -> Iterator[Phase]:
    """Yield what some results read, as `walk` in walk.cuh finds it."""
    if not transposed:
        yield Phase(-axis["low"], 0, 1, axis["taps"])
        return
    every = axis["stride"] // axis["common"]
    for result in results:
        reached = result + axis["low"]
        part, rest = divmod(reached % axis["stride"], axis["common"])
        first = part * axis["inverse"] % every
        taps = 0 if rest else max(0, -(-(axis["taps"] - first) // every))
        origin = (reached - first * axis["dilation"]) // axis["stride"] if taps else 0
        yield Phase(origin, first, every, taps)


def _by_phases(weights: np.ndarray, phases: list[Phase], most: int) -> np.ndarray:
    """Return weights (k, channels) as (phases, taps, channels), zeros where there is no tap."""
    result = np.zeros((len(phases), most, weights.shape[1]), np.float32)
    for of_phase, phase in zip(result, phases, strict=True):
        if phase.taps:  # where there are gaps, `first` is a tap of none
            of_phase[: phase.taps] = weights[phase.first :: phase.every]
    return result
