"""The kernel gradient: which kernel, how g is packed, and its launches."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from ...arrays import computed_in
from ...geometry import ConvGeometry
from ...remembered import Remembered
from .device import Device, Kernel
from .law import CHUNK_BYTES, ELEMENTS, MOST, MOST_GRID, Law
from .layout import LayOut, aligned, blocks_of, simple, whole_chunks
from .maps import PLAIN_THREADS
from .parts import Packed
from .specialisations import GRADIENT_TILES

#: Blocks that the sum over pixels is cut for: two for each multiprocessor of a large GPU. A number
#: of its own, since the order of a sum may not depend on the device.
BLOCKS = 264
MOST_PARTS = 128
#: Stages that a part has at least.
LEAST_STAGES = 8


class PlainGradient:
    """One entry a thread, for every dtype and size: the specification."""

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype) -> None:
        self.law = Law(geometry, transposed=False)
        self.dtype = dtype

    def __str__(self) -> str:
        return "gradient_plain, one entry a thread"

    def pack(self, device: Device, g: Any) -> Packed:
        """Keep g as it is, contiguous."""
        return Packed(simple(device, g, self.dtype))

    def scratch(self, device: Device, source: Any) -> int:
        """Return the bytes that a run takes besides its result."""
        return 0

    def run(self, device: Device, x: Any, packed: Packed, result: Any) -> None:
        """Launch one kernel."""
        constants = {"WIDE": 1} if self.law.wide else {}
        element = ELEMENTS[self.dtype.name]
        kernel = device.kernel("gradient_plain", ELEMENT=element, **constants)
        struct = self.law.gradient_struct(self.law.channels, self.law.filters)
        arguments = (x, packed.weights, result, struct, np.int64(len(x)))
        grid = blocks_of(result.size, PLAIN_THREADS)
        kernel(grid, PLAIN_THREADS, (*arguments, np.uint64(result.size)), 0)


class Piece(NamedTuple):
    """What one launch sums: `count` parts of `part_pixels`, from an image and a part on."""

    image: int
    part: int
    pixels: int
    part_pixels: int
    count: int


class InParts:
    """A sum over pixels that is cut into parts, and where they are too many into launches."""

    output_pixels: int
    input_pixels: int

    def part_pixels(self, pixels: int) -> int:
        """Return the pixels of a part, by the geometry and the batch alone."""
        raise NotImplementedError

    def images(self) -> int:
        """Return how many images one launch may take."""
        return max(1, MOST // 2 // max(self.output_pixels, self.input_pixels, 1))

    def pieces(self, batch: int) -> list[Piece]:
        """Return the launches for a batch."""
        found, part, step = [], 0, self.images()
        for image in range(0, batch, step):
            pixels = min(step, batch - image) * self.output_pixels
            part_pixels = self.part_pixels(pixels)
            found.append(Piece(image, part, pixels, part_pixels, -(-pixels // part_pixels)))
            part += found[-1].count
        return found


class TiledGradient(InParts):
    """One matrix product a group, summed over pixels in parts, on FFMA units or tensor cores."""

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, tensor_cores: bool) -> None:
        self.law = law = Law(geometry, transposed=False)
        self.dtype, self.tensor_cores = dtype, tensor_cores
        self.name = "gradient_mma" if tensor_cores else "gradient_ffma"
        itemsize = dtype.itemsize
        self.padded_channels = whole_chunks(law.channels, itemsize)
        self.padded_filters = whole_chunks(law.filters, itemsize)
        self.struct = law.gradient_struct(self.padded_channels, self.padded_filters)
        rows = law.taps * self.padded_channels
        large, small = GRADIENT_TILES[self.name]
        # The large one's registers hold no third axis, and no entries that are rounded one by one.
        roomy = law.rank == 2 and not (tensor_cores and dtype == np.float32)
        self.tile = large if roomy and min(rows, law.filters) >= large.size else small
        self.tiles_m = -(-rows // self.tile.size)
        self.tiles_n = -(-law.filters // self.tile.size)
        self.blocks = self.tiles_m * self.tiles_n * law.groups
        self.stage_pixels = 64 // itemsize
        self.output_pixels, self.input_pixels = math.prod(law.result), math.prod(law.source)
        self.entries = law.taps * law.channels * law.groups * law.filters
        self.x_in_chunks, self.g_in_chunks = (
            LayOut(dtype, (law.groups, 1, width), (law.groups * width, width, 0, 1), padded)
            for width, padded in (
                (law.channels, self.padded_channels),
                (law.filters, self.padded_filters),
            )
        )
        self._launches = Remembered()

    @classmethod
    def applies(cls, geometry: ConvGeometry, dtype: np.dtype) -> bool:
        """Whether one image has few enough pixels, taps and channels for 32-bit numbers."""
        law = Law(geometry, transposed=False)
        padded = whole_chunks(law.channels, dtype.itemsize)
        pixels = max(math.prod(law.result), math.prod(law.source))
        channels = law.groups * whole_chunks(max(law.channels, law.filters), dtype.itemsize)
        return max(pixels, law.taps * padded, channels) < MOST // 2

    def __str__(self) -> str:
        kind = "tensor cores" if self.tensor_cores else "FFMA"
        tf32 = " in TF32" if self.tensor_cores and self.dtype == np.float32 else ""
        return f"{self.name}, tiles of entries on {kind}{tf32}, pixels in parts"

    def pack(self, device: Device, g: Any) -> Packed:
        """Lay g out in chunks, as (n, -1), and see whether it is finite."""
        g = simple(device, g, self.dtype)
        careful = device.xp.zeros(1, np.int32) if self.law.reads_padding() else None
        keep = self.padded_filters != self.law.filters or not aligned(g)
        batch = len(g)
        if careful is not None or keep:
            g = self.g_in_chunks(device, g, batch * self.output_pixels, careful, keep=keep)
        return Packed(g.reshape(batch, -1), careful)

    def part_pixels(self, pixels: int) -> int:
        """Return the pixels of a part: whole stages, by the geometry and the batch alone."""
        stages = -(-pixels // self.stage_pixels)
        parts = min(-(-BLOCKS // self.blocks), MOST_PARTS, max(1, stages // LEAST_STAGES))
        return -(-stages // parts) * self.stage_pixels

    def scratch(self, device: Device, source: Any) -> int:
        """Return the bytes of x and g in chunks, and of the parts' sums."""
        batch, groups = len(source), self.law.groups
        pixels = min(batch, self.images()) * self.output_pixels
        launches = -(-batch // self.images())
        parts = -(-pixels // self.part_pixels(max(1, pixels))) + 1
        chunks = self.input_pixels * self.padded_channels + self.output_pixels * self.padded_filters
        return batch * groups * chunks * self.dtype.itemsize + 4 * launches * parts * self.entries

    def run(self, device: Device, x: Any, packed: Packed, result: Any) -> None:
        """Launch a kernel for as many images as one may have, and add up the parts."""
        batch = len(x)
        if self.padded_channels != self.law.channels or not aligned(x):
            x = self.x_in_chunks(device, x, batch * self.input_pixels).reshape(batch, -1)
        launch = self._launches.get((device, batch), lambda: _Launch(self, device, batch))
        sums = None
        if launch.parts > 1:
            sums = device.xp.empty((launch.parts, self.entries), np.float32)
        for first, at, grid, numbers in launch.launches:
            some = (x[first:], packed.weights[first:]) if first else (x, packed.weights)
            into = sums if sums is None or not at else sums[at:]
            arguments = (*some, result, packed.careful, self.struct, *numbers, into)
            launch.kernel(grid, self.tile.threads, arguments, self.tile.shared)
        if sums is not None:
            launch.add(launch.add_grid, PLAIN_THREADS, (sums, result, *launch.add_numbers), 0)


class DepthwiseGradient(InParts):
    """Every channel by itself, bound by memory: strips of pixels, then blocks, added in order."""

    THREADS = 256
    MOST_SHARED = 40 << 10

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype) -> None:
        self.law = law = Law(geometry, transposed=False)
        self.dtype = dtype
        self.struct = law.gradient_struct(1, 1)
        chunk = CHUNK_BYTES // dtype.itemsize
        # Of the geometry, like the order of every sum; arrays that do not lie so are copied.
        self.vector = chunk if law.groups % chunk == 0 else 1
        self.taps = min(law.taps, 9 if self.vector <= 4 else 3)  # what registers hold
        vectors = law.groups // self.vector
        self.columns = -(-vectors // self.THREADS)
        self.vectors = -(-vectors // self.columns)
        self.strips = self.THREADS // self.vectors
        while 4 * self.strips * self.taps * self.vectors * self.vector > self.MOST_SHARED:
            self.strips //= 2
        self.tap_blocks = -(-law.taps // self.taps)
        self.shared = 4 * self.strips * self.taps * self.vectors * self.vector
        self.output_pixels, self.input_pixels = math.prod(law.result), math.prod(law.source)
        self.entries = law.taps * law.groups
        self._launches = Remembered()

    @classmethod
    def applies(cls, geometry: ConvGeometry, dtype: np.dtype) -> bool:
        """Whether no channel meets another, and a launch can have all taps of an image."""
        law = Law(geometry, transposed=False)
        return (
            law.channels == law.filters == 1
            and computed_in(dtype) == np.float32
            and law.taps < MOST_GRID
            and max(math.prod(law.result), math.prod(law.source)) < MOST // 2
            and law.taps * law.groups < MOST // 2
        )

    def __str__(self) -> str:
        return "gradient_depthwise, every channel by itself, pixels in parts"

    def pack(self, device: Device, g: Any) -> Packed:
        """Keep g as it is, contiguous."""
        return Packed(_in_vectors(simple(device, g, self.dtype)))

    def part_pixels(self, pixels: int) -> int:
        """Return the pixels of a part, by the geometry and the batch alone."""
        parts = min(-(-BLOCKS // (self.columns * self.tap_blocks)), MOST_PARTS)
        return -(-pixels // min(parts, -(-pixels // self.strips)))

    def scratch(self, device: Device, source: Any) -> int:
        """Return the bytes of the parts' sums, and of arrays that do not lie in vectors."""
        copies = 2 * source.size * self.dtype.itemsize
        return copies + 4 * self.entries * (MOST_PARTS + 1) * (1 + len(source) // self.images())

    def run(self, device: Device, x: Any, packed: Packed, result: Any) -> None:
        """Launch a kernel for as many images as one may have, and add up the parts."""
        x, batch = _in_vectors(x), len(x)
        kernel, add, launches, parts = self._launches.get(
            (device, batch), functools.partial(self._launch, device, batch)
        )
        sums = device.xp.empty((parts, self.entries), np.float32)
        for piece, numbers in launches:
            some = (x[piece.image :], packed.weights[piece.image :], sums[piece.part :])
            grid = (self.columns, piece.count, self.tap_blocks)
            kernel(grid, self.THREADS, (*some, self.struct, *numbers), self.shared)
        counts = (np.int32(parts), np.int32(1), np.int64(self.entries))
        arguments = (sums, result, None, None, None, np.int32(0), *counts)
        add(blocks_of(self.entries, PLAIN_THREADS), PLAIN_THREADS, arguments, 0)

    def _launch(
        self, device: Device, batch: int
    ) -> tuple[Kernel, Kernel, list[tuple[Piece, tuple[Any, ...]]], int]:
        element, pieces = ELEMENTS[self.dtype.name], self.pieces(batch)
        constants = {"ELEMENT": element, "VECTOR": self.vector, "TAPS": self.taps}
        launches = [
            (each, tuple(map(np.int32, (*each[2:4], self.vectors, self.strips)))) for each in pieces
        ]
        return (
            device.kernel("gradient_depthwise", **constants),
            device.kernel("sum_parts", ELEMENT=element, PART=element, RESIDUAL=element),
            launches,
            pieces[-1].part + pieces[-1].count,
        )


def _in_vectors(array: Any) -> Any:
    """Return an array that begins at a multiple of 16 bytes: itself, or a copy."""
    return array if aligned(array) else array.copy()


class _Launch:
    """The launches for a batch: where each begins, its grid, and its numbers."""

    def __init__(self, of: TiledGradient, device: Device, batch: int) -> None:
        element = ELEMENTS[of.dtype.name]
        constants = of.tile.constants(of.dtype.itemsize)
        self.kernel = device.kernel(of.name, **constants, ELEMENT=element, RANK=of.law.rank)
        self.launches: list[tuple[int, int, tuple[int, int, int], tuple[Any, ...]]] = []
        pieces, tiles = of.pieces(batch), (np.int32(of.tiles_m), np.int32(of.tiles_n))
        for piece in pieces:
            numbers = (np.int32(piece.pixels), np.int32(piece.part_pixels), *tiles)
            self.launches.append((piece.image, piece.part, (of.blocks, piece.count, 1), numbers))
        self.parts = pieces[-1].part + pieces[-1].count
        self.add = device.kernel("sum_parts", ELEMENT=element, PART=element, RESIDUAL=element)
        self.add_grid = blocks_of(of.entries, PLAIN_THREADS)
        counts = (np.int32(self.parts), np.int32(1), np.int64(of.entries))
        self.add_numbers = (None, None, None, np.int32(0), *counts)
