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
from .layout import aligned, simple
from .parts import Packed, Parts
from .remembered import Remembered


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


class SeparableMap:
    """Every channel by itself, its kernel rows times columns: along y, then along x."""

    THREADS = 256
    #: Taps that a result may have along an axis, and entries of a row of sources that a thread
    #: may read: what it keeps in registers.
    MOST_TAPS, MOST_SOURCES = 4, 8
    MOST_SHARED = 40 << 10
    #: Rows of results at a time.
    LINES = 4

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        self.law = law = Law(geometry, transposed=transposed)
        self.dtype = dtype
        self.struct = law.map_struct(1, 1)
        last, channels = law.axes[-1], law.groups
        self.taps_y, self.taps_x = (
            -(-axis["taps"] // (axis["stride"] // axis["common"])) if transposed else axis["taps"]
            for axis in law.axes[1:]
        )
        each = CHUNK_BYTES // dtype.itemsize
        width = law.result[-1] * channels
        self.pieces = -(-width // (self.THREADS * each))
        columns = min(law.result[-1], self.THREADS * each // channels + 2)
        reach, stride = (last["taps"] - 1) * last["dilation"], last["stride"]
        self.span = (
            (columns + reach) // stride + 4 if transposed else (columns - 1) * stride + reach + 1
        )
        self.sources = -(-self.span * channels // self.THREADS)
        self.even = width % each == 0
        self.shared = self._shared()
        self.step = max(1, MOST // 2 // law.result[1])
        self._launches = Remembered()

    def _shared(self) -> int:
        """Return the bytes of shared memory: rows of sources, and phases."""
        rows = -(-self.LINES * (self.span * self.law.groups + 1) // 4) * 16
        return rows + 16 * self.law.axes[-1]["phases"]

    def applies(self) -> bool:
        """Whether a thread's registers and a block's shared memory hold what they must."""
        law = self.law
        return (
            law.geometry.rank == 2
            and computed_in(self.dtype) == np.float32
            and max(self.taps_x, self.taps_y) <= self.MOST_TAPS
            and self.sources <= self.MOST_SOURCES
            and self.shared <= self.MOST_SHARED
            and max(law.result[-1], law.source[-1]) * law.groups < MOST // 2
            and law.result[1] < MOST // 2
        )

    def __str__(self) -> str:
        return "separable, every channel by itself, along y and then along x"

    def pack(self, device: Device, factors: Factors) -> Packed:
        """Upload the factors, (kh, channels) and (kw, channels)."""
        arrays = (np.ascontiguousarray(part, np.float32) for part in factors)
        return Packed(tuple(device.xp.asarray(array) for array in arrays))

    def scratch(self, device: Device, source: Any) -> int:
        """Return 0: it reads and writes where things lie."""
        return 0

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch a kernel for as many images as one may have."""
        along_y, along_x = packed.weights
        for some, into, epilogue in parts.in_steps(source, result, self.step):
            key = (device, len(some), self.even and aligned(into), parts.element)
            kernel, grid, numbers = self._launches.get(key, functools.partial(self._launch, *key))
            arguments = (some, along_y, along_x, into, *epilogue, *numbers)
            kernel(grid, self.THREADS, arguments, self.shared)

    def _launch(
        self, device: Device, batch: int, even: bool, part: str
    ) -> tuple[Kernel, tuple[int, int, int], tuple[Any, ...]]:
        kernel = device.kernel(
            "separable",
            ELEMENT=ELEMENTS[self.dtype.name],
            PART=part,
            ALIGNED=int(even),
            TAPS_X=self.taps_x,
            TAPS_Y=self.taps_y,
            SOURCES=self.sources,
            LINES=self.LINES,
        )
        rows = batch * self.law.result[1]
        # Enough blocks for every multiprocessor to have its fill, and few enough for what a block
        # begins with to be worth it.
        full = -(-8 * device.multiprocessors // self.pieces)
        grid = (self.pieces, min(-(-rows // self.LINES), full, MOST_GRID), 1)
        return kernel, grid, (self.struct, np.int32(self.span), np.int32(rows))
