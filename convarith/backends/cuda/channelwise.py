"""The two maps where no channel meets another: depthwise kernels, and separable ones."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ...arrays import computed_in
from ...geometry import ConvGeometry
from ...remembered import Remembered
from ..structure import Factors
from .device import Device, Kernel
from .law import CHUNK_BYTES, ELEMENTS, MOST, MOST_GRID, Law
from .layout import LayOut, aligned, simple
from .parts import Packed, Parts, PartTypes


class DepthwiseMap:
    """Every channel by itself, bound by memory."""

    THREADS = 128

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        self.law = law = Law(geometry, transposed=transposed)
        self.dtype = dtype
        self.struct = law.map_struct(1, 1)
        last = law.axes[-1]
        #: Neighbouring results of a thread, which has eight channels of each in a half type.
        self.columns = 4 if dtype.itemsize >= 4 else 2
        span = (self.columns - 1) * last["stride"] + last["taps"]
        plain = not transposed and last["dilation"] == 1 and last["taps"] > 1
        self.window = last["taps"] if plain and span <= 9 else 0
        self.advance = last["stride"] if self.window else 1
        counts = law.phase_counts()
        counts[-1] = -(-counts[-1] // self.columns)
        self.image_blocks = math.prod(counts)
        chunk = CHUNK_BYTES // dtype.itemsize
        self.vector = chunk if law.groups % chunk == 0 else 1
        self._kernels = Remembered()

    @classmethod
    def applies(cls, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> bool:
        """Whether no channel meets another, and one launch can have all phases of an image."""
        law = Law(geometry, transposed=transposed)
        return (
            law.channels == law.filters == 1
            and law.phases < MOST_GRID
            and math.prod(law.result) * law.groups < MOST
        )

    def __str__(self) -> str:
        words = "depthwise, every channel by itself"
        return words + (f", windows of {self.window} taps" if self.window else "")

    def pack(self, device: Device, kernel: Any) -> Packed:
        """Keep the kernel as it is, contiguous: (*k, 1, channels)."""
        return Packed(simple(device, kernel, self.dtype))

    def scratch(self, device: Device, source: Any) -> int:
        """Return 0: it reads and writes where things lie."""
        return 0

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch a kernel for as many images as one may have."""
        whole = all(map(aligned, (source, packed.weights, result)))
        vector = self.vector if whole else 1
        kernel = self._kernels.get(
            (device, vector, parts.types),
            functools.partial(self._kernel, device, vector, parts.types),
        )
        of_image = self.image_blocks * (self.law.groups // vector)
        step = max(1, MOST // 2 // of_image)
        for some, into, epilogue in parts.in_steps(source, result, step):
            grid = (-(-len(some) * of_image // self.THREADS), self.law.phases, 1)
            arguments = (some, packed.weights, into, *epilogue, self.struct, np.int32(len(some)))
            kernel(grid, self.THREADS, arguments, 0)

    def _kernel(self, device: Device, vector: int, types: PartTypes) -> Kernel:
        return device.kernel(
            "depthwise",
            ELEMENT=ELEMENTS[self.dtype.name],
            **types._asdict(),
            VECTOR=vector,
            COLUMNS=self.columns,
            WINDOW=self.window,
            ADVANCE=self.advance,
        )


class DepthwiseStripMap(DepthwiseMap):
    """A convolution of every channel by itself with few taps: a block walks down its columns."""

    #: Channels and neighbouring results of a thread, and rows of sources in shared memory.
    VECTOR, COLUMNS, STAGES = 4, 4, 4
    #: Taps whose weights a thread keeps in registers, and sources that it loads at a time.
    MOST_TAPS, MOST_SPAN = 9, 9
    #: Rows of results of a block, at least, blocks that share a multiprocessor's registers, and
    #: how often they fill all.
    LEAST_STRIP, BLOCKS, FILLS = 8, 3, 4

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        super().__init__(geometry, dtype, transposed=transposed)
        entries = self.law.taps * self.law.groups
        self.looking = LayOut(dtype, (1, 1, entries), (0, 0, 0, 1), entries)
        self.slice, self.beside = self._block()
        self.copies = -(-self._chunks(self.slice, self.beside) // self.THREADS)
        self._launches = Remembered()

    @classmethod
    def applies(cls, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> bool:
        """Whether it is a convolution in two axes whose weights and sources fit registers."""
        if transposed or geometry.rank > 2 or computed_in(dtype) != np.float32:
            return False
        law = Law(geometry, transposed=False)
        y, x = law.axes[1:]
        return (
            super().applies(geometry, dtype, transposed=False)
            and y["dilation"] == x["dilation"] == 1
            and y["stride"] <= y["taps"]
            and 1 < y["taps"] * x["taps"] <= cls.MOST_TAPS
            and 3 * x["stride"] + x["taps"] <= cls.MOST_SPAN
            and law.groups * dtype.itemsize % CHUNK_BYTES == 0
            and max(x["result"], x["source"]) * law.groups < MOST // 8
        )

    def __str__(self) -> str:
        return f"{super().__str__()}, in strips of rows"

    def _block(self) -> tuple[int, int]:
        """Return the vectors and the groups of columns of a block: the least that is wasted."""
        vectors = self.law.groups // self.VECTOR
        groups = -(-self.law.result[-1] // self.COLUMNS)
        even = max(1, CHUNK_BYTES // (self.VECTOR * self.dtype.itemsize))

        def cost(block: tuple[int, int]) -> int:
            across, beside = block
            blocks = -(-vectors // across) * -(-groups // beside)
            # What it copies, and what its threads could make meanwhile; no short pieces of pixels.
            length = across * self.VECTOR * self.dtype.itemsize
            short = length < min(96, self.law.groups * self.dtype.itemsize)
            work = self._chunks(across, beside) + self.COLUMNS * self.THREADS
            return blocks * work << short

        sizes = range(even, min(vectors, self.THREADS) + 1, even)
        return min(((size, min(groups, self.THREADS // size)) for size in sizes), key=cost)

    def _chunks(self, across: int, beside: int) -> int:
        """Return the chunks of a row of sources that a block reads."""
        x = self.law.axes[-1]
        columns = (beside * self.COLUMNS - 1) * x["stride"] + x["taps"]
        return columns * across * self.VECTOR * self.dtype.itemsize // CHUNK_BYTES

    def pack(self, device: Device, kernel: Any) -> Packed:
        """Keep the kernel as it is, and see whether an entry over the padding may be infinite."""
        weights = super().pack(device, kernel).weights
        if not self.law.reads_padding():
            return Packed(weights)
        careful = device.xp.zeros(1, np.int32)
        return Packed(self.looking(device, weights, 1, careful, keep=False), careful)

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch a kernel for as many images as one may have."""
        if not all(map(aligned, (source, packed.weights, result))):
            super().run(device, source, Packed(packed.weights), result, parts)
            return
        strips = -(-self.law.result[1] // self.LEAST_STRIP)
        for some, into, epilogue in parts.in_steps(source, result, max(1, MOST_GRID // strips)):
            key = (device, len(some), parts.types, parts.plain)
            kernel, grid, numbers = self._launches.get(key, functools.partial(self._launch, *key))
            arguments = (some, packed.weights, into, *epilogue, packed.careful, *numbers)
            shared = self.STAGES * self.copies * self.THREADS * CHUNK_BYTES
            kernel(grid, self.THREADS, arguments, shared)

    def _launch(
        self, device: Device, batch: int, types: PartTypes, plain: bool
    ) -> tuple[Kernel, tuple[int, int, int], tuple[Any, ...]]:
        y, x = self.law.axes[1:]
        constants = {"TAPS_Y": y["taps"], "TAPS_X": x["taps"]}
        constants |= {"ADVANCE_Y": y["stride"], "ADVANCE_X": x["stride"]}
        kernel = device.kernel(
            "depthwise_strip",
            ELEMENT=ELEMENTS[self.dtype.name],
            **types._asdict(),
            VECTOR=self.VECTOR,
            PLAIN=int(plain),
            COLUMNS=self.COLUMNS,
            COPIES=self.copies,
            STAGES=self.STAGES,
            BLOCKS=self.BLOCKS,
            **constants,
        )
        vectors, groups = self.law.groups // self.VECTOR, -(-x["result"] // self.COLUMNS)
        across = -(-vectors // self.slice) * -(-groups // self.beside)
        # Enough blocks for a few fills of the multiprocessors, and no more: the rows of sources
        # between two strips are read twice.
        full = max(1, self.FILLS * self.BLOCKS * device.multiprocessors // across)
        strip = max(self.LEAST_STRIP, -(-batch * y["result"] // full))
        strips = -(-y["result"] // min(strip, y["result"]))
        strip = -(-y["result"] // strips)
        numbers = map(np.int32, (self.slice, self.beside, strip, strips))
        return kernel, (across, batch * strips, 1), (self.struct, *numbers)


def depthwise_map(
    geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool
) -> DepthwiseMap | None:
    """Return the kernel for channels by themselves, or None where they meet."""
    if DepthwiseStripMap.applies(geometry, dtype, transposed=transposed):
        return DepthwiseStripMap(geometry, dtype, transposed=transposed)
    if DepthwiseMap.applies(geometry, dtype, transposed=transposed):
        return DepthwiseMap(geometry, dtype, transposed=transposed)
    return None


class SeparableMap:
    """Every channel by itself, its kernel rows times columns: along x, then along y."""

    THREADS = 128
    #: Rows of sources in shared memory, and bytes of zeros behind each, as in separable.cu.
    STAGES, NOTHING = 4, 32
    #: Taps that a result may have along an axis: what a thread keeps in registers.
    MOST_TAPS = 4
    #: Phases of an axis, and bytes of shared memory that a block may take: it copies whole pixels,
    #: which many channels make more than it reads.
    MOST_PHASES, MOST_SHARED = 2048, 96 << 10
    #: Rows of results of a block, at least: what it begins with is then worth it.
    LEAST_STRIP = 8

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        self.law = law = Law(geometry, transposed=transposed)
        self.dtype = dtype
        self.struct = law.map_struct(1, 1)
        y, x = law.axes[1:]
        self.taps_y, self.taps_x = (
            -(-axis["taps"] // (axis["stride"] // axis["common"])) if transposed else axis["taps"]
            for axis in (y, x)
        )
        #: Rows of sources that are new to a row of results.
        walks = y["dilation"] == (y["common"] if transposed else y["stride"])
        self.fresh = 1 if walks else self.taps_y
        lanes = CHUNK_BYTES // dtype.itemsize
        width = law.result[-1] * law.groups
        #: Of 16 bytes of results a thread, and blocks a multiprocessor, by timing them on an H200.
        self.vectors, self.blocks = 1, 12
        if dtype.itemsize >= 4:
            self.vectors, self.blocks = 1 + (width > self.THREADS * lanes), 32
        each = lanes * self.vectors
        self.pieces = -(-width // (self.THREADS * each))
        self.even = width % lanes == 0
        # The pixels of a row of sources that a piece reads, and what alignment adds.
        pixels = -(-self.THREADS * each // law.groups) + 1
        reach = (x["taps"] - 1) * x["dilation"]
        span = (pixels - 1) * x["stride"] + reach + 1
        if transposed:
            span = (pixels - 1 + reach) // x["stride"] + 1
        row = min(span, x["source"]) * law.groups * dtype.itemsize
        self.stage = -(-(row + CHUNK_BYTES) // CHUNK_BYTES) * CHUNK_BYTES + self.NOTHING
        of_row = -(-4 * (1 + self.taps_y) // 16) * 16
        turns = y["stride"] if transposed else 1
        self.shared = self.STAGES * self.stage + 16 * x["phases"] + of_row * turns
        strips = -(-law.result[1] // self.LEAST_STRIP)
        rows = max(law.result[1], law.source[1])
        self.step = max(1, min(MOST // 2 // rows, MOST_GRID // max(1, strips)))
        self._launches = Remembered()

    def applies(self) -> bool:
        """Whether a thread's registers and a block's shared memory hold what they must."""
        law = self.law
        y, x = law.axes[1:]
        return (
            law.geometry.rank == 2
            and computed_in(self.dtype) == np.float32
            and max(self.taps_x, self.taps_y) <= self.MOST_TAPS
            and max(x["phases"], y["stride"] if law.transposed else 1) <= self.MOST_PHASES
            and self.shared <= self.MOST_SHARED
            # Each row of results reads the rows of the one before it, or those one step on.
            and (not law.transposed or y["dilation"] == y["common"] or y["stride"] == 1)
            and max(law.result[-1], law.source[-1]) * law.groups < MOST // 8
            and max(law.result[1], law.source[1]) < MOST // 2
        )

    def __str__(self) -> str:
        return "separable, every channel by itself, along x and then along y"

    def pack(self, device: Device, factors: Factors) -> Packed:
        """Upload (kh, channels), or (kh, 1) where all channels are alike, and (kw, channels)."""
        along_y, along_x = (np.ascontiguousarray(part, np.float32) for part in factors)
        if (along_y == along_y[:, :1]).all():
            along_y = np.ascontiguousarray(along_y[:, :1])
        return Packed(tuple(device.xp.asarray(array) for array in (along_y, along_x)))

    def scratch(self, device: Device, source: Any) -> int:
        """Return the bytes of a copy of the source, where it must be moved to a multiple of 16."""
        return 0 if aligned(source) else source.nbytes

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch a kernel for as many images as one may have."""
        along_y, along_x = packed.weights
        common = along_y.shape[1] == 1
        for some, into, epilogue in parts.in_steps(source, result, self.step):
            even = self.even and aligned(into)
            key = (device, len(some), even, common, parts.types, parts.plain)
            kernel, grid, numbers = self._launches.get(key, functools.partial(self._launch, *key))
            there = some if aligned(some) else some.copy()
            arguments = (there, along_y, along_x, into, *epilogue, *numbers)
            kernel(grid, self.THREADS, arguments, self.shared)

    def _launch(
        self, device: Device, batch: int, even: bool, common: bool, types: PartTypes, plain: bool
    ) -> tuple[Kernel, tuple[int, int, int], tuple[Any, ...]]:
        kernel = device.kernel(
            "separable",
            ELEMENT=ELEMENTS[self.dtype.name],
            **types._asdict(),
            PLAIN=int(plain),
            TRANSPOSED=int(self.law.transposed),
            ALIGNED=int(even),
            COMMON=int(common),
            VECTORS=self.vectors,
            FRESH=self.fresh,
            TAPS_X=self.taps_x,
            TAPS_Y=self.taps_y,
        )
        # Enough blocks for every multiprocessor to have its fill, but no more rows than need be in
        # each: the rows of sources between two strips are read twice.
        rows = self.law.result[1]
        full = -(-self.blocks * device.multiprocessors // self.pieces)
        strip = max(self.LEAST_STRIP, -(-batch * rows // min(full, MOST_GRID)))
        strips = -(-rows // strip)
        strip = -(-rows // strips)
        grid = (self.pieces, batch * strips, 1)
        numbers = map(np.int32, (batch, strip, strips, self.stage))
        return kernel, grid, (self.struct, *numbers)
