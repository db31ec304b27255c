"""The plan of a product in which few channels do not meet: numbers of a row fill the vectors.

A pixel of one channel, or three, would leave most lanes of a vector empty. At stride 1 along x a
tap moves the whole row of ``w*c`` numbers, pixels and channels alike, so a tile is a stretch of
it: result ``j`` of a row is the sum over taps of ``w[k, j mod c]`` times number ``j + (k*d -
low)*c`` of the source's row. A *block* is as many numbers as whole vectors and whole pixels have
both, and the weights stand in it once for each pixel.

It sums in the order of the tiles of `direct`, so which of the two does it changes no number.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...axis import Axis
from ...geometry import ConvGeometry
from . import compiled, launch, pool
from .blocks import PIECES_A_THREAD, choose_tile, multiply_adds
from .direct_layout import strides_of
from .finish import NOTHING, Finish
from .phases import ONE
from .rowwise_records import CALL, scratch_nbytes
from .tile import CHANNELWISE, shapes
from .tile import kernel as tile_kernel
from .vector import ELEMENTS, Element, Path

if TYPE_CHECKING:
    from ..protocol import Product

#: The most that a small tile's source may take, as a copy with zeros around it.
MOST_COPIED = 2**20
#: Vectors of a small tile: fewer sums under way would take as long.
SMALL = 4
#: Large tiles of a line at most: longer rows are several lines.
PART = 64


def applies(path: Path, element: Element, geometry: ConvGeometry, product: Product) -> bool:
    """Whether channels do not meet and are fewer than a vector has lanes, and x has no stride.

    A transpose has none along any axis. The arrays' sizes have no part in it, so that a tile and
    the whole are computed alike.
    """
    channels, strides = geometry.in_channels, geometry.strides
    if not geometry.groups == channels == geometry.out_channels:
        return False
    if channels >= path.lanes(element) or product == "kernel_gradient":
        return False
    if strides[-1] > 1 or (product == "transpose" and max(strides) > 1):
        return False
    vectors = _vectors(path, element, channels)
    if all(wide != vectors for _, wide in shapes(path, channelwise=True)):
        return False
    *outer, width = geometry.kernel_size
    reach = (width - 1) * geometry.dilations[-1] * channels * element.dtype.itemsize
    return math.prod(outer) * (max(vectors, SMALL) * path.nbytes + reach) <= MOST_COPIED


def _vectors(path: Path, element: Element, channels: int) -> int:
    """Return how many vectors a block has."""
    return channels // math.gcd(channels, path.lanes(element))


class Packed(NamedTuple):
    """The weights ``[tap][lane]`` of a block."""

    blocks: np.ndarray
    exact: bool  # some weight is not finite, so no zero around the source may meet it


class RowwisePlan:
    """``W x`` or ``W^T y``, a stretch of a row at a time; see `rowwise_worker`."""

    def __init__(
        self, path: Path, element: Element, geometry: ConvGeometry, product: Product
    ) -> None:
        self.path, self.element, self.channels = path, element, geometry.out_channels
        self.flipped = product == "transpose"
        axes = [_transposed(axis) if self.flipped else axis for axis in geometry.axes]
        # Where every axis is pointwise, all of them are one row.
        if all((a.kernel, a.stride, a.low, a.output) == (1, 1, 0, a.size) for a in axes):
            axes = [ONE._replace(size=math.prod(axis.size for axis in axes))]
        self.axes = [ONE] * (3 - len(axes)) + axes
        self.taps = math.prod(axis.kernel for axis in axes)
        self.vectors = vectors = _vectors(path, element, self.channels)
        self.block = vectors * path.lanes(element)
        blocks = -(-axes[-1].output * self.channels // self.block)
        chosen = choose_tile(path, element, blocks, self.block, self.taps, True, vectors)
        #: Blocks of a tile.
        self.large, self.small = chosen.rows, min(chosen.rows, max(1, SMALL // vectors))
        self.work = multiply_adds(geometry)  # for one of the batch
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(self._layout)

    def __str__(self) -> str:
        return (
            f"direct, rows of {self.channels} channels: tiles of {self.large * self.block} numbers "
            f"in vectors of {self.path.nbytes} bytes ({self.path.name})"
        )

    def pack(self, weights: np.ndarray) -> Packed:
        """Lay the taps out once for each pixel of a block, last first for a transpose."""
        *size, _, _ = weights.shape
        taps = weights.reshape(*size, self.channels)
        if self.flipped:
            taps = np.flip(taps, range(len(size)))
        packed = pool.aligned(self.taps * self.block, self.element.dtype)
        pixels = packed.reshape(self.taps, -1, self.channels)
        pixels[...] = taps.reshape(self.taps, 1, self.channels)
        return Packed(packed, self.element.floating and not np.isfinite(weights).all())

    def scratch(self, batch: int, threads: int) -> int:
        """Return the bytes that a run allocates besides its result."""
        return self._scratch_nbytes() * threads

    def run(self, source: np.ndarray, packed: Packed, out: np.ndarray, finish: Finish) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        batch = len(source)
        call, threads = self.layout(batch, launch.allowed(batch * self.work), packed.exact)
        if finish is not NOTHING:
            finish = finish.laid_out(self._pixels)
        call.run(threads, source, packed.blocks, out, *finish)

    def _pixels(self, part: np.ndarray) -> np.ndarray:
        """Return a scale or bias once for each pixel of a block."""
        return np.tile(part, self.block // self.channels)

    def _scratch_nbytes(self) -> int:
        z, y, x = self.axes
        itemsize = self.element.dtype.itemsize
        reach = (x.kernel - 1) * x.dilation * self.channels * itemsize
        return scratch_nbytes(z.kernel * y.kernel, self.small * self.block * itemsize, reach)

    def _kernel(self, rows: int, vectors: int, *, partial: bool = False) -> int:
        element = ELEMENTS.index(self.element)
        return tile_kernel(self.path, element, rows, vectors, CHANNELWISE, partial=partial)

    def _layout(self, batch: int, threads: int, exact: bool) -> tuple[launch.Call, int]:
        """Return what the worker is called with, and on how many threads."""
        axes, itemsize = self.axes, self.element.dtype.itemsize
        sizes, outputs = [a.size for a in axes], [a.output for a in axes]
        pixel, block = self.channels * itemsize, self.block * itemsize
        row, part = outputs[2] * pixel, PART * self.large * block
        parts = -(-row // part)
        lines = batch * outputs[0] * outputs[1] * parts
        chunk = -(-lines // (PIECES_A_THREAD * threads))
        units = -(-lines // chunk)
        threads = min(threads, units)
        call = launch.Call(
            compiled.worker("rowwise_worker", "rowwise"),
            CALL,
            self._scratch_nbytes() * threads,
            size=sizes,
            output=outputs,
            kernel=[a.kernel for a in axes],
            step=[a.stride for a in axes],
            dilation=[a.dilation for a in axes],
            low=[a.low for a in axes],
            source_strides=strides_of(sizes, pixel),
            result_strides=strides_of(outputs, pixel),
            block=block,
            large=self._kernel(self.large, self.vectors),
            small=self._kernel(self.small, self.vectors),
            single=self._kernel(1, 1, partial=True) if exact else 0,
            large_nbytes=self.large * block,
            small_nbytes=self.small * block,
            itemsize=itemsize,
            parts=parts,
            part=part,
            lines=lines,
            chunk=chunk,
            units=units,
            scratch_nbytes=self._scratch_nbytes(),
        )
        return call, threads


def _transposed(axis: Axis) -> Axis:
    """Return the convolution that the transpose of a stride 1 is, with the taps turned round."""
    reach = axis.effective_kernel - 1
    return Axis(axis.output, axis.kernel, 1, axis.dilation, reach - axis.low, reach - axis.high)
