"""The two maps, W x and W^T y, where channels meet: by result, by tile, and for few channels."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ...geometry import ConvGeometry
from ...remembered import Remembered
from .device import Device, Kernel
from .law import CHUNK_BYTES, ELEMENTS, MOST, MOST_GRID, Law
from .layout import LayOut, aligned, blocks_of, simple, whole_chunks
from .parts import Packed, Parts, PartTypes
from .specialisations import FEW, MAP_CUTS, MAP_TILES, STAGE_BYTES, MapTile, map_tiles

PLAIN_THREADS = 256
#: Chunks of the sources of a launch of a tiled kernel stay below this: 64 GiB.
MOST_CHUNKS = 2**32


class PlainMap:
    """One result a thread, for every dtype and size: the specification."""

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        self.law = Law(geometry, transposed=transposed)
        self.dtype = dtype

    def __str__(self) -> str:
        return "map_plain, one result a thread"

    def pack(self, device: Device, kernel: Any) -> Packed:
        """Keep the kernel as it is, contiguous."""
        return Packed(simple(device, kernel, self.dtype))

    def scratch(self, device: Device, source: Any) -> int:
        """Return the bytes that a run takes besides its result."""
        return 0

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch one kernel."""
        constants = {"WIDE": 1} if self.law.wide else {}
        element = ELEMENTS[self.dtype.name]
        kernel = device.kernel("map_plain", ELEMENT=element, **parts.types._asdict(), **constants)
        entries = result.size
        struct = self.law.map_struct(self.law.channels, 1)
        arguments = (source, packed.weights, result, *parts.arguments, struct)
        grid = blocks_of(entries, PLAIN_THREADS)
        kernel(grid, PLAIN_THREADS, (*arguments, np.uint64(entries)), 0)


class TiledMap:
    """One matrix product a group and phase, on FFMA units or tensor cores."""

    def __init__(
        self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool, tensor_cores: bool
    ) -> None:
        self.law = law = Law(geometry, transposed=transposed)
        self.dtype, self.tensor_cores = dtype, tensor_cores
        self.name = "map_mma" if tensor_cores else "map_ffma"
        self.tf32 = tensor_cores and dtype == np.float32
        chunk = CHUNK_BYTES // dtype.itemsize
        self.padded = whole_chunks(law.channels, dtype.itemsize)
        self.struct = law.map_struct(self.padded, chunk)
        self.stages, self.segments = _stages(law, dtype), _segments(law, dtype, self.name)
        self.source_chunks = math.prod(law.source) * law.groups * self.padded // chunk  # an image's
        self.source_pixels, self.result_pixels = math.prod(law.source), math.prod(law.result)
        self.phase_pixels = math.prod(law.phase_counts())  # of the largest phase
        width = law.groups * law.channels
        self.in_chunks = LayOut(
            dtype, (law.groups, 1, law.channels), (width, law.channels, 0, 1), self.padded
        )
        g, c, n = law.groups, law.channels, law.filters
        strides = (c, g * c, n * g * c, 1) if transposed else (n, 1, c * g * n, g * n)
        self.packing = LayOut(dtype, (n, law.taps, c), strides, self.padded, round_tf32=self.tf32)
        self._launches = Remembered()

    @classmethod
    def applies(cls, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> bool:
        """Whether one image has few enough pixels, taps and channels for the kernel's numbers."""
        law = Law(geometry, transposed=transposed)
        padded = whole_chunks(law.channels, dtype.itemsize)
        reach = math.prod(
            axis["source"] + axis["taps"] * axis["dilation"] + axis["stride"] for axis in law.axes
        )
        columns = -(-law.filters // 32) * law.groups * _segments(law, dtype, "map_ffma")
        return (
            max(math.prod(law.result), reach, law.taps * padded) < MOST // 2
            and law.groups * max(law.filters, padded) < MOST // 16
            and math.prod(law.source) * law.groups * padded * dtype.itemsize
            < MOST_CHUNKS * CHUNK_BYTES
            and max(columns, law.phases) < MOST_GRID
        )

    def __str__(self) -> str:
        kind = "tensor cores" if self.tensor_cores else "FFMA"
        words = f"{self.name}, tiles of results by channels on {kind}"
        if self.tf32:
            words += " in TF32"
        if self.law.phases > 1:
            words += f", {self.law.phases} phases in one launch"
        if self.segments > 1:
            words += f", sums in {self.segments} segments"
        return words

    def pack(self, device: Device, kernel: Any) -> Packed:
        """Lay the kernel out as (group, result channel, tap, source channel)."""
        kernel = simple(device, kernel, self.dtype)
        careful = device.xp.zeros(1, np.int32) if self.law.reads_padding() else None
        return Packed(self.packing(device, kernel, self.law.groups, careful), careful)

    def scratch(self, device: Device, source: Any) -> int:
        """Return the bytes of a source in chunks, and of segments' sums."""
        law, batch, found = self.law, len(source), 0
        if self._copied(source):
            found = batch * self.source_pixels * law.groups * self.padded * self.dtype.itemsize
        if self.segments > 1:  # each has its own blocks where they are few
            most = 2 * device.multiprocessors * max(t.m * t.n for t in MAP_TILES[self.name])
            results = batch * self.result_pixels * law.groups * law.filters
            found += 4 * self.segments * min(results, most)
        return found

    def _copied(self, source: Any) -> bool:
        """Whether channels do not lie in whole chunks."""
        return self.padded != self.law.channels or not aligned(source)

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch a kernel for as many images as one may have."""
        if self._copied(source):
            source = self.in_chunks(device, source, len(source) * self.source_pixels)
            source = source.reshape(len(result), -1)
        pixels = MOST // 2 // max(self.source_pixels, self.result_pixels)
        step = max(1, min(pixels, MOST_CHUNKS // self.source_chunks))
        for some, into, epilogue in parts.in_steps(source, result, step):
            self._launch(device, some, packed, into, parts.types, epilogue)

    def _launch(
        self,
        device: Device,
        source: Any,
        packed: Packed,
        result: Any,
        types: PartTypes,
        epilogue: tuple[Any, ...],
    ) -> None:
        batch = len(result)
        launch = self._launches.get(
            (device, batch, types), functools.partial(_TileLaunch, self, device, batch, types)
        )
        shape = (self.segments, result.size)
        sums = device.xp.empty(shape, np.float32) if launch.add else None
        arguments = (source, packed.weights, result, *epilogue, packed.careful, *launch.numbers)
        launch.kernel(
            launch.grid, launch.tile.threads, (*arguments, sums, launch.entries), launch.tile.shared
        )
        if launch.add:
            arguments = (sums, result, *epilogue, *launch.add_numbers, launch.entries)
            launch.add(launch.add_grid, PLAIN_THREADS, arguments, 0)


class _TileLaunch:
    """The tile that keeps a device busiest with a batch, and the numbers of its launch."""

    def __init__(self, of: TiledMap, device: Device, batch: int, types: PartTypes) -> None:
        law = of.law

        cut, filled = MAP_CUTS[of.name], 2 * device.multiprocessors

        def grid(tile: MapTile) -> tuple[int, int, int]:
            rows, columns = -(-batch * of.phase_pixels // tile.m), -(-law.filters // tile.n)
            return rows, columns * law.groups, law.phases

        def segments(tile: MapTile) -> int:
            """Return how the kernel has them, as map_tile.cuh says."""
            return 0 if of.segments == 1 else 1 + (math.prod(grid(tile)) < filled)

        def cost(tile: MapTile) -> float:
            blocks, stages, kind = math.prod(grid(tile)), of.stages, segments(tile)
            if kind == 2:
                blocks, stages = blocks * of.segments, cut.segment
            together = tile.resident(kind)
            cycles = tile.m * tile.n * cut.cycles / tile.efficiency

            def wave(active: int) -> float:
                return max(active * cycles, cut.latency / (tile.stages - 1)) if active else 0

            waves, rest = divmod(blocks, together * device.multiprocessors)
            return stages * (waves * wave(together) + wave(-(-rest // device.multiprocessors)))

        self.tile = min(map_tiles(of.name, law.rank, law.filters), key=cost)
        rows, columns, phases = grid(self.tile)
        kind = segments(self.tile)
        self.grid = (rows, columns * (of.segments if kind == 2 else 1), phases)
        constants = self.tile.constants(cut.segment, kind)
        element = ELEMENTS[of.dtype.name]
        constants |= {"ELEMENT": element, "RANK": law.rank, **types._asdict()}
        self.kernel = device.kernel(of.name, **constants)
        self.numbers = (of.struct, np.int32(batch), np.int32(columns // law.groups))
        entries = batch * of.result_pixels * law.groups * law.filters
        self.entries = np.int64(entries)
        self.add: Kernel | None = None
        if kind == 2:
            self.add = device.kernel("sum_parts", ELEMENT=element, **types._asdict())
            self.add_grid = blocks_of(entries, PLAIN_THREADS)
            self.add_numbers = (np.int32(of.segments), np.int32(law.groups * law.filters))


def _stages(law: Law, dtype: np.dtype) -> int:
    """Return the stages of a sum: so many as its channels and taps alone say."""
    padded = whole_chunks(law.channels, dtype.itemsize)
    return -(-law.most_taps() * padded * dtype.itemsize // STAGE_BYTES)


def _segments(law: Law, dtype: np.dtype, name: str) -> int:
    """Return into how many a sum is cut, which is the order of every sum."""
    cut, stages = MAP_CUTS[name], _stages(law, dtype)
    return 1 if stages <= cut.uncut else -(-stages // cut.segment)


class FewMap:
    """A pixel a thread, where a group has few results and its kernel fits shared memory."""

    THREADS = 128

    def __init__(self, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> None:
        self.law = law = Law(geometry, transposed=transposed)
        self.dtype = dtype
        self.struct = law.map_struct(law.channels, 1)
        self.width = -(-law.filters // 4) * 4
        g, c, n = law.groups, law.channels, law.filters
        of_n, of_c = (g * c, 1) if transposed else (1, g * n)
        strides = (c if transposed else n, n * g * c, of_c, of_n)
        self.packing = LayOut(np.dtype(np.float32), (law.taps, c, n), strides, self.width)
        table = law.taps * c * self.width
        self.shared = 4 * (table + self.THREADS * (n | 1))
        self.pieces = -(-law.result[-1] // self.THREADS)
        self.rows = law.result[0] * law.result[1]
        self.step = max(1, MOST // 2 // self.rows)
        self._launches = Remembered()

    @classmethod
    def applies(cls, geometry: ConvGeometry, dtype: np.dtype, *, transposed: bool) -> bool:
        """Whether a group's channels are few and its taps not many."""
        law = Law(geometry, transposed=transposed)
        table = law.taps * law.channels * -(-law.filters // 4) * 4
        return (
            law.filters <= FEW
            and 4 * table <= 32 << 10
            and _segments(law, dtype, "map_ffma") == 1
            and law.groups < MOST_GRID
            and law.result[-1] * law.groups * law.filters < MOST
            and law.result[0] * law.result[1] < MOST // 2
        )

    def __str__(self) -> str:
        return f"map_few, all {self.law.filters} results of a pixel a thread"

    def pack(self, device: Device, kernel: Any) -> Packed:
        """Lay the kernel out as (group, tap, source channel, result channel) in float32."""
        return Packed(
            self.packing(device, simple(device, kernel, np.dtype(np.float32)), self.law.groups)
        )

    def scratch(self, device: Device, source: Any) -> int:
        """Return 0: it reads and writes where things lie."""
        return 0

    def run(self, device: Device, source: Any, packed: Packed, result: Any, parts: Parts) -> None:
        """Launch a kernel for as many images as one may have: a block makes pieces of rows."""
        for some, into, epilogue in parts.in_steps(source, result, self.step):
            batch, types = len(some), parts.types
            kernel, grid, numbers = self._launches.get(
                (device, batch, types), functools.partial(self._launch, device, batch, types)
            )
            arguments = (some, packed.weights, into, *epilogue, *numbers)
            kernel(grid, self.THREADS, arguments, self.shared)

    def _launch(self, device: Device, batch: int, types: PartTypes) -> tuple[Kernel, Any, Any]:
        law = self.law
        kernel = device.kernel(
            "map_few", ELEMENT=ELEMENTS[self.dtype.name], **types._asdict(), FILTERS=law.filters
        )
        rows = batch * self.rows
        full = -(-24 * device.multiprocessors // (self.pieces * law.groups))
        grid = (self.pieces, min(rows, full, MOST_GRID), law.groups)
        return kernel, grid, (self.struct, np.int32(rows))
