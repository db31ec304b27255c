"""The two maps where no channel meets another: depthwise kernels, and separable ones."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ...arrays import computed_in
from ...geometry import ConvGeometry
from ..structure import Factors
from .device import Device, Kernel
from .law import CHUNK_BYTES, ELEMENTS, MOST, MOST_GRID, Law
from .layout import LayOut, aligned, simple
from .parts import Packed, Parts
from .remembered import Remembered


def _blocks(dtype: np.dtype) -> int:
    """Return the blocks a multiprocessor of a kernel that walks down strips: two or three fills."""
    return 8 * dtype.itemsize


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
            (device, vector, parts.element),
            functools.partial(self._kernel, device, vector, parts.element),
        )
        of_image = self.image_blocks * (self.law.groups // vector)
        step = max(1, MOST // 2 // of_image)
        for some, into, epilogue in parts.in_steps(source, result, step):
            grid = (-(-len(some) * of_image // self.THREADS), self.law.phases, 1)
            arguments = (some, packed.weights, into, *epilogue, self.struct, np.int32(len(some)))
            kernel(grid, self.THREADS, arguments, 0)

    def _kernel(self, device: Device, vector: int, part: str) -> Kernel:
        return device.kernel(
            "depthwise",
            ELEMENT=ELEMENTS[self.dtype.name],
            PART=part,
            VECTOR=vector,
            COLUMNS=self.columns,
            WINDOW=self.window,
            ADVANCE=self.advance,
        )


class DepthwiseStripMap(DepthwiseMap):
    """A convolution of every channel by itself with few taps: a thread walks down its columns."""

    #: Taps whose weights a thread keeps in registers, and sources that it loads at a time.
    MOST_TAPS, MOST_SPAN = 9, 9
    #: Rows of results of a thread, at least.
    LEAST_STRIP = 4

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        super().__init__(geometry, dtype, transposed=transposed)
        self.blocks = 2 if dtype == np.float16 else 3  # that share a multiprocessor's registers
        entries = self.law.taps * self.law.groups
        self.looking = LayOut(dtype, (1, 1, entries), (0, 0, 0, 1), entries)
        self._launches = Remembered()

    @classmethod
    def applies(cls, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> bool:
        """Whether it is a convolution in two axes whose weights and sources fit registers."""
        if transposed or geometry.rank > 2 or computed_in(dtype) != np.float32:
            return False
        y, x = Law(geometry, transposed=False).axes[1:]
        return (
            super().applies(geometry, dtype, transposed=False)
            and y["dilation"] == x["dilation"] == 1
            and y["stride"] <= y["taps"]
            and 1 < y["taps"] * x["taps"] <= cls.MOST_TAPS
            and 3 * x["stride"] + x["taps"] <= cls.MOST_SPAN
        )

    def __str__(self) -> str:
        return f"{super().__str__()}, in strips of rows"

    def pack(self, device: Device, kernel: Any) -> Packed:
        """Keep the kernel as it is, and see whether an entry over the padding may be infinite."""
        weights = super().pack(device, kernel).weights
        if not self.law.reads_padding():
            return Packed(weights)
        careful = device.xp.zeros(1, np.int32)
        return Packed(self.looking(device, weights, 1, careful, keep=False), careful)

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch a kernel for as many images as one may have."""
        whole = all(map(aligned, (source, packed.weights, result)))
        vector = self.vector if whole else 1
        step = max(1, MOST // 2 // (self.image_blocks * (self.law.groups // vector)))
        for some, into, epilogue in parts.in_steps(source, result, step):
            key = (device, len(some), vector, parts.element, parts.plain)
            kernel, grid, numbers = self._launches.get(key, functools.partial(self._launch, *key))
            arguments = (some, packed.weights, into, *epilogue, packed.careful, *numbers)
            kernel(grid, self.THREADS, arguments, 0)

    def _launch(
        self, device: Device, batch: int, vector: int, part: str, plain: bool
    ) -> tuple[Kernel, tuple[int, int, int], tuple[Any, ...]]:
        y, x = self.law.axes[1:]
        constants = {"TAPS_Y": y["taps"], "TAPS_X": x["taps"]}
        constants |= {"ADVANCE_Y": y["stride"], "ADVANCE_X": x["stride"]}
        kernel = device.kernel(
            "depthwise_strip",
            ELEMENT=ELEMENTS[self.dtype.name],
            PART=part,
            VECTOR=vector,
            PLAIN=int(plain),
            COLUMNS=self.columns,
            BLOCKS=self.blocks,
            **constants,
        )
        across = -(-x["result"] // self.columns) * (self.law.groups // vector)
        full = -(-_blocks(self.dtype) * device.multiprocessors * self.THREADS // across)
        strip = max(self.LEAST_STRIP, -(-batch * y["result"] // full))
        strips = -(-y["result"] // strip)
        grid = (-(-batch * strips * across // self.THREADS), 1, 1)
        return kernel, grid, (self.struct, *map(np.int32, (batch, strip, strips)))


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
    #: Taps that a result may have along an axis: what a thread keeps in registers.
    MOST_TAPS = 4
    #: Phases of both axes that shared memory holds.
    MOST_PHASES = 2048
    #: Rows of results of a block, at least: what it begins with is then worth it.
    LEAST_STRIP = 8

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        self.law = law = Law(geometry, transposed=transposed)
        self.dtype = dtype
        self.struct = law.map_struct(1, 1)
        self.taps_y, self.taps_x = (
            -(-axis["taps"] // (axis["stride"] // axis["common"])) if transposed else axis["taps"]
            for axis in law.axes[1:]
        )
        each = CHUNK_BYTES // dtype.itemsize
        width = law.result[-1] * law.groups
        self.pieces = -(-width // (self.THREADS * each))
        self.even = width % each == 0
        y, x = law.axes[1:]
        self.shared = 16 * (x["phases"] + y["phases"]) + 4 * self.taps_y * y["phases"]
        self.step = max(1, MOST // 2 // max(law.result[1], law.source[1]))
        self._launches = Remembered()

    def applies(self) -> bool:
        """Whether a thread's registers and a block's shared memory hold what they must."""
        law = self.law
        return (
            law.geometry.rank == 2
            and computed_in(self.dtype) == np.float32
            and max(self.taps_x, self.taps_y) <= self.MOST_TAPS
            and law.phases <= self.MOST_PHASES
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
        """Return 0: it reads and writes where things lie."""
        return 0

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch a kernel for as many images as one may have."""
        along_y, along_x = packed.weights
        common = along_y.shape[1] == 1
        for some, into, epilogue in parts.in_steps(source, result, self.step):
            even = self.even and aligned(into)
            key = (device, len(some), even, common, parts.element, parts.plain)
            kernel, grid, numbers = self._launches.get(key, functools.partial(self._launch, *key))
            arguments = (some, along_y, along_x, into, *epilogue, *numbers)
            kernel(grid, self.THREADS, arguments, self.shared)

    def _launch(
        self, device: Device, batch: int, even: bool, common: bool, part: str, plain: bool
    ) -> tuple[Kernel, tuple[int, int, int], tuple[Any, ...]]:
        kernel = device.kernel(
            "separable",
            ELEMENT=ELEMENTS[self.dtype.name],
            PART=part,
            PLAIN=int(plain),
            TRANSPOSED=int(self.law.transposed),
            ALIGNED=int(even),
            COMMON=int(common),
            TAPS_X=self.taps_x,
            TAPS_Y=self.taps_y,
        )
        rows = batch * self.law.result[1]
        # Enough blocks for every multiprocessor to have its fill, but no more rows than need be in
        # each: the rows of sources between two strips are read twice.
        full = -(-_blocks(self.dtype) * device.multiprocessors // self.pieces)
        strip = max(self.LEAST_STRIP, -(-rows // min(full, MOST_GRID)))
        grid = (self.pieces, -(-rows // strip), 1)
        return kernel, grid, (self.struct, np.int32(strip), np.int32(rows))
