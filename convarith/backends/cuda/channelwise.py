"""The two maps where no channel meets another: depthwise kernels, and separable ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...arrays import computed_in
from ...geometry import ConvGeometry
from ..structure import Factors
from .device import Device
from .law import CHUNK_BYTES, ELEMENTS, MOST, MOST_GRID, Law
from .layout import aligned, simple
from .parts import Packed, Parts

#: Neighbouring results a thread of `depthwise`.
COLUMNS = 4


class DepthwiseMap:
    """Every channel by itself, bound by memory."""

    THREADS = 128

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        self.law = law = Law(geometry, transposed=transposed)
        self.dtype = dtype
        self.struct = law.map_struct(1, 1)
        last = law.axes[-1]
        span = (COLUMNS - 1) * last["stride"] + last["taps"]
        plain = not transposed and last["dilation"] == 1 and last["taps"] > 1
        self.window = last["taps"] if plain and span <= 10 else 0
        self.advance = last["stride"] if self.window else 1
        counts = law.phase_counts()
        counts[-1] = -(-counts[-1] // COLUMNS)
        self.image_blocks = math.prod(counts)

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

    def scratch(self, batch: int) -> int:
        """Return 0: it reads and writes where things lie."""
        return 0

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch a kernel for as many images as one may have."""
        law, channels = self.law, self.law.groups
        vector = CHUNK_BYTES // self.dtype.itemsize
        if channels % vector or not all(map(aligned, (source, packed.weights, result))):
            vector = 1
        kernel = device.kernel(
            "depthwise",
            ELEMENT=ELEMENTS[self.dtype.name],
            PART=parts.element,
            VECTOR=vector,
            COLUMNS=COLUMNS,
            WINDOW=self.window,
            ADVANCE=self.advance,
        )
        of_image = self.image_blocks * (channels // vector)
        step = max(1, (MOST - 1) // of_image)
        for first in range(0, len(source), step):
            some, into, epilogue = source, result, parts.arguments
            if len(source) > step:
                images = slice(first, first + step)
                some, into, epilogue = source[images], result[images], parts.of(images)
            grid = (-(-len(some) * of_image // self.THREADS), law.phases, 1)
            arguments = (some, packed.weights, into, *epilogue, self.struct, np.int32(len(some)))
            kernel(grid, self.THREADS, arguments, 0)


class SeparableMap:
    """Every channel by itself, its kernel rows times columns: along y, then along x."""

    THREADS = 256
    #: Bytes of shared memory for a row of sources and a piece of results each, and for all else.
    MOST_ROW, MOST_REST = 16384, 16384

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        self.law = law = Law(geometry, transposed=transposed)
        self.dtype = dtype
        self.struct = law.map_struct(1, 1)
        last = law.axes[-1]
        self.rest = 4 * last["taps"] * law.groups + 16 * last["phases"]
        written = CHUNK_BYTES // dtype.itemsize
        self.columns = law.result[-1]
        pieces = 1
        while not self._fits() and self.columns > written:  # evenly, in whole steps of 16 bytes
            pieces += 1
            steps = -(-law.result[-1] // (pieces * written))
            self.columns = steps * written
        self.pieces = -(-law.result[-1] // self.columns)
        self.even = law.result[-1] * law.groups % written == 0
        self.each = 4 if last["phases"] >= 4 else last["phases"]
        results = -(-self.columns * law.groups // written) * CHUNK_BYTES
        self.shared = results + 4 * self._span() * law.groups + self.rest

    def _span(self) -> int:
        """Return the sources that a piece of a row reads."""
        axis = self.law.axes[-1]
        reach, stride = (axis["taps"] - 1) * axis["dilation"], axis["stride"]
        if self.law.transposed:
            return (self.columns + reach) // stride + 4
        return (self.columns - 1) * stride + reach + 1

    def _fits(self) -> bool:
        groups = self.law.groups
        longest = max(self.columns * self.dtype.itemsize, 4 * self._span())
        return longest * groups <= self.MOST_ROW

    def applies(self) -> bool:
        """Whether what a block holds fits its shared memory."""
        law = self.law
        return (
            law.geometry.rank == 2
            and computed_in(self.dtype) == np.float32
            and self._fits()
            and self.rest <= self.MOST_REST
            and law.result[-1] * law.groups < MOST // 2
        )

    def __str__(self) -> str:
        return "separable, every channel by itself, along y and then along x"

    def pack(self, device: Device, factors: Factors) -> Packed:
        """Upload the factors, (kh, channels) and (kw, channels)."""
        arrays = (np.ascontiguousarray(part, np.float32) for part in factors)
        return Packed(tuple(device.xp.asarray(array) for array in arrays))

    def scratch(self, batch: int) -> int:
        """Return 0: it reads and writes where things lie."""
        return 0

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch one kernel: a block makes the same piece of several rows."""
        law = self.law
        kernel = device.kernel(
            "separable",
            ELEMENT=ELEMENTS[self.dtype.name],
            PART=parts.element,
            ALIGNED=int(self.even and aligned(result)),
            EACH=self.each,
        )
        rows = len(source) * law.result[1]
        # Enough blocks for every multiprocessor to have its fill, and few enough for the tables
        # that a block begins with to be worth it.
        lines = min(rows, -(-16 * device.multiprocessors // self.pieces), MOST_GRID)
        along_y, along_x = packed.weights
        numbers = (np.int32(self.columns), np.int32(self._span()), np.int32(rows))
        arguments = (source, along_y, along_x, result, *parts.arguments, self.struct, *numbers)
        kernel((self.pieces, lines, 1), self.THREADS, arguments, self.shared)
