"""The maps of depthwise kernels, where no channel meets another."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ...arrays import computed_in
from ...geometry import ConvGeometry
from ...remembered import Remembered
from .device import Device, Kernel
from .law import CHUNK_BYTES, ELEMENTS, MOST, MOST_GRID, Law
from .layout import LayOut, aligned, simple
from .parts import Packed, Parts, PartTypes
from .specialisations import STRIP_BLOCKS
from .strips import MOST_ROWS, strips


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
    #: Of a channel: weights, and sums of the rows of results that a row of sources is in.
    MOST_KEPT = 21
    #: Rows of results of a block that make up for its beginning.
    LEAST = 6

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        super().__init__(geometry, dtype, transposed=transposed)
        self.threads, self.blocks = STRIP_BLOCKS[dtype.itemsize]
        #: How often its blocks fill all multiprocessors, by timing it on an H200.
        self.fills = 5 if dtype.itemsize >= 4 else 3
        entries = self.law.taps * self.law.groups
        self.looking = LayOut(dtype, (1, 1, entries), (0, 0, 0, 1), entries)
        self.slice, self.beside = self._block()
        self.copies = -(-self._chunks(self.slice, self.beside) // self.threads)
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
            and y["taps"] * x["taps"] + -(-y["taps"] // y["stride"]) * cls.COLUMNS <= cls.MOST_KEPT
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
            work = self._chunks(across, beside) + self.COLUMNS * self.threads
            return blocks * work << short

        sizes = range(even, min(vectors, self.threads) + 1, even)
        return min(((size, min(groups, self.threads // size)) for size in sizes), key=cost)

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
        step = max(1, MOST_ROWS // self.law.result[1])
        for some, into, epilogue in parts.in_steps(source, result, step):
            key = (device, len(some), parts.types, parts.plain)
            kernel, grid, numbers = self._launches.get(key, functools.partial(self._launch, *key))
            arguments = (some, packed.weights, into, *epilogue, packed.careful, *numbers)
            shared = self.STAGES * self.copies * self.threads * CHUNK_BYTES
            kernel(grid, self.threads, arguments, shared)

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
            THREADS=self.threads,
            BLOCKS=self.blocks,
            **constants,
        )
        vectors, groups = self.law.groups // self.VECTOR, -(-x["result"] // self.COLUMNS)
        across = -(-vectors // self.slice) * -(-groups // self.beside)
        wanted = self.fills * self.blocks * device.multiprocessors
        of_image = self.law.result[1]
        strip, blocks = strips(batch, of_image, across, wanted, self.LEAST, device.multiprocessors)
        numbers = map(np.int32, (self.slice, self.beside, batch, strip))
        return kernel, (across, blocks, 1), (self.struct, *numbers)


def depthwise_map(
    geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool
) -> DepthwiseMap | None:
    """Return the kernel for channels by themselves, or None where they meet."""
    if DepthwiseStripMap.applies(geometry, dtype, transposed=transposed):
        return DepthwiseStripMap(geometry, dtype, transposed=transposed)
    if DepthwiseMap.applies(geometry, dtype, transposed=transposed):
        return DepthwiseMap(geometry, dtype, transposed=transposed)
    return None
