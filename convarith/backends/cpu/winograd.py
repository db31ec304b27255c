"""Winograd's algorithm for 3 x 3 taps, and for the 2 x 2 and 3 x 3 taps of transposed phases.

Squares of m x m results take n*n = (m + r - 1)^2 products a pair of channels instead of m*m*r*r:
2.25 times fewer for F(2, 3), 4 times for F(4, 3), 1.8 to 2.6 times for F(2, 2) to F(4, 2)
(A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308). A
transposed convolution with a kernel of r*s taps and stride s is s*s stride-1 convolutions with
r x r taps each, one a phase.

Rounding: on random data the largest error, relative to the largest ``|W| |x|``, is 0.3 to 1.1
times that of direct for F(2, r) and F(3, 2), and 0.9 to 2.5 times for F(4, r), on the points in
`cook_toom.POINTS`. For any data it is, with the growth of `cook_toom.Algorithm` (36 to 632),

    |error| <= (channels + STEPS) * eps * growth * sum over channels of max |g| * max |d|

where g are the taps and d the sources of the whole square: the products mix its results. In the
same way an Inf or NaN of the source may spread to all results of its square, and sources within a
factor of 1000 of the largest number may overflow. A kernel that is not finite, or too large to be
transformed, is left to direct, since zeros in the padding would meet infinities.

The order of every sum is the geometry's and the path's: blocks and threads change no bit.
"""

from __future__ import annotations

import functools
import itertools
import math
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ...axis import Axis
from ...geometry import ConvGeometry
from ..protocol import Product
from . import compiled, cook_toom, launch, phases, pool, winograd_transforms
from .direct import MOST_JOBS, DirectPlan
from .direct import Packed as DirectPacked
from .finish import Finish
from .phases import Phase
from .tile import ALONG_STEPS, DENSE
from .tile import kernel as tile_kernel
from .vector import ELEMENTS, Element, Path
from .winograd_layout import LARGE_KERNEL, STREAMED_BYTES, VECTORS, Layout, whole_vectors
from .winograd_records import PACK, PANEL
from .winograd_transforms import TAPS, TRANSFORM

#: What is rounded besides the sum over channels: coefficients and steps, on two axes, both ways.
STEPS = 32
#: More channels than this would need megabytes of scratch for a single square; and more of all
#: operands of a gradient together, hundreds of them for the fewest squares that are worth a call.
MOST_CHANNELS, MOST_OPERANDS = 2**12, 2**14
#: No run by direct of a kernel that is not finite takes more scratch a thread.
DIRECT_SCRATCH = 2**21

#: Cycles a vector and product that the transforms take, by the registers for what is under way,
#: and the calls of tiles; cycles that are lost once, and the rows a tile needs to be worth its
#: time. All measured.
TRANSFORM_CYCLES = {32: 5, 16: 8}
TILE_CYCLES = 3
START_CYCLES = 8000
LEAST_SQUARES = 4
#: For fewer squares, to transform a kernel would take about as long as all the rest.
STREAMED_SQUARES = 24
#: Bytes of a kernel that a thread's cache keeps, and that are read of the others in a cycle in
#: which nothing is computed; measured.
KEPT_BYTES = 2**20
BYTES_A_CYCLE = 11
#: What Winograd must promise to gain to be preferred.
GAIN = 1.1


def applies(geometry: ConvGeometry, product: Product, element: Element, path: Path) -> bool:
    """Whether a `WinogradPlan`, or a `WinogradGradientPlan`, can be made."""
    channels = geometry.in_channels, geometry.out_channels
    return (
        element.floating
        and geometry.rank == 2
        and geometry.groups == 1
        and geometry.dilations == (1, 1)
        and taps_a_stride(geometry, product) in (2, 3)
        and min(channels) >= path.lanes(element)
        and max(channels) <= MOST_CHANNELS
        and math.prod(geometry.strides) <= MOST_JOBS
        and (
            product != "kernel_gradient"
            or math.prod(geometry.strides) * channels[0] + channels[1] <= MOST_OPERANDS
        )
    )


def preferred(geometry: ConvGeometry, product: Product, element: Element, path: Path) -> bool:
    """Whether Winograd is the faster one; a batch of one image decides for all."""
    channels = min(geometry.in_channels, geometry.out_channels)
    if not applies(geometry, product, element, path) or channels < 2 * path.lanes(element):
        return False  # few channels overlap most of their last vector
    sizes = _Sizes.of(geometry, product, element, path)
    fewest = min(_cycles(sizes, m, element) for m in choices(sizes.r))
    return GAIN * fewest < _direct_cycles(sizes, element)


def taps_a_stride(geometry: ConvGeometry, product: Product) -> int:
    """Return r where each phase has r x r taps, 0 where they differ.

    A phase of the kernel gradient are the taps that reach what one of the transpose's does.
    """
    counts = set()
    for axis in geometry.axes:
        step = 1 if product == "forward" else axis.stride
        counts.add(axis.kernel // step if axis.kernel % step == 0 else 0)
        if product == "forward" and axis.stride > 1:
            return 0
    return counts.pop() if len(counts) == 1 else 0


def choices(r: int) -> list[int]:
    """Return every m of an F(m, r)."""
    return [m for m, taps in cook_toom.POINTS if taps == r]


def _phases(axis: Axis, product: Product) -> list[Phase]:
    if product == "transpose":
        return phases.transposed(axis, merge=False)
    return phases.forward(axis)


class _Sizes(NamedTuple):
    """What decides how long a product takes: its taps, channels, vectors, and results."""

    r: int
    source: int
    result: int
    lanes: int
    registers: int
    merged: int  # results of the last axis whose columns share vectors in direct
    counts: list[tuple[int, int]]  # of each job

    @classmethod
    def of(cls, geometry: ConvGeometry, product: Product, element: Element, path: Path) -> _Sizes:
        channels = geometry.in_channels, geometry.out_channels
        counts = [[phase.length for phase in _phases(a, product)] for a in geometry.axes]
        return cls(
            taps_a_stride(geometry, product),
            *(channels[::-1] if product == "transpose" else channels),
            path.lanes(element),
            path.registers,
            geometry.strides[1] if product == "transpose" else 1,
            [(y, x) for y, x in itertools.product(*counts)],
        )


def _cycles(sizes: _Sizes, m: int, element: Element) -> float:
    """Estimate the cycles of F(m, r), with those of reading the kernel that are not hidden."""
    products = (m + sizes.r - 1) ** 2
    # A tile of fewer rows would take as long.
    squares = sum(
        max(LEAST_SQUARES, math.prod(-(-count // m) for count in counts)) for counts in sizes.counts
    )
    into, out_of = (-(-c // sizes.lanes) for c in (sizes.source, sizes.result))
    each = out_of * (sizes.source / 2 + TILE_CYCLES)
    each += (into + out_of) * TRANSFORM_CYCLES[sizes.registers]
    return START_CYCLES + products * squares * each + _read_cycles(sizes, products, element)


def _direct_cycles(sizes: _Sizes, element: Element) -> float:
    taps = sizes.r**2
    results = sum(math.prod(counts) for counts in sizes.counts)
    vectors = -(-sizes.result * sizes.merged // sizes.lanes) / sizes.merged
    each = vectors * (taps * sizes.source / 2 + TILE_CYCLES)
    return results * each + _read_cycles(sizes, taps, element)


def _read_cycles(sizes: _Sizes, products: int, element: Element) -> float:
    entries = len(sizes.counts) * products * sizes.source * sizes.result
    return max(0, entries * element.dtype.itemsize - KEPT_BYTES) / BYTES_A_CYCLE


class Packed(NamedTuple):
    """A transformed kernel as ``[job][panel][product][depth][lane]``, or what there is of it.

    Of a kernel that calls transform, its taps; of one that is not finite, direct's.
    """

    kernel: np.ndarray | None
    direct: DirectPacked | None = None


class WinogradPlan:
    """``W x`` or ``W^T y`` by squares; see `winograd_worker`.

    Parameters
    ----------
    m : int, optional
        Of F(m, r); the default is what takes the fewest cycles.
    compact : bool
        Whether to keep the taps of a large kernel, which every call transforms, where that takes
        a small part of its time. No bit of a result depends on it.
    """

    def __init__(
        self,
        path: Path,
        element: Element,
        geometry: ConvGeometry,
        product: Product,
        m: int | None = None,
        *,
        compact: bool = False,
    ) -> None:
        self.path, self.element, self.geometry, self.product = path, element, geometry, product
        self.transposed = product == "transpose"
        self.lanes = path.lanes(element)
        sizes = _Sizes.of(geometry, product, element, path)
        self.channels = sizes.source, sizes.result
        m = m or min(choices(sizes.r), key=lambda m: _cycles(sizes, m, element))
        self.algorithm = cook_toom.algorithm(m, sizes.r)
        self.axes = geometry.axes
        self.jobs = list(itertools.product(*(_phases(axis, product) for axis in self.axes)))
        self.squares = [[-(-phase.length // m) for phase in job] for job in self.jobs]
        #: The range of columns of each panel.
        self.columns = whole_vectors(sizes.result, self.lanes, VECTORS)
        #: Entries of one job's packed kernel, whose panels may overlap.
        self.job_entries = self.algorithm.n**2 * sizes.source * sum(b - a for a, b in self.columns)
        squares = [math.prod(counts) for counts in self.squares]
        v_nbytes = sum(squares) * self.algorithm.n**2 * sizes.source * element.dtype.itemsize
        #: Whether what is kept of the kernel are its taps, which every call transforms.
        self.streamed = (
            compact
            and len(squares) == 1
            and squares[0] >= STREAMED_SQUARES
            and v_nbytes <= STREAMED_BYTES
            and self.job_entries * element.dtype.itemsize > LARGE_KERNEL
        )
        gain = max(sum(map(abs, row)) for row in self.algorithm.kernel) ** 2
        self.limit = float(np.finfo(element.dtype).max) / max(1.0, float(gain))
        products = sum(map(math.prod, self.squares)) * self.algorithm.n**2
        self.work = products * math.prod(self.channels)  # for one of the batch
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(functools.partial(Layout, self))

    def panels(self, rows: int) -> np.ndarray:
        """Return the table of panels for tiles of `rows`; 0 where no tile is run."""
        depth, itemsize = self.channels[0], self.element.dtype.itemsize
        index = ELEMENTS.index(self.element)
        panels = []
        at = 0
        for start, stop in self.columns:
            vectors = (stop - start) // self.lanes
            kernels = [0, 0]
            if rows:
                kernels = [
                    tile_kernel(
                        self.path, index, rows, vectors, DENSE, adjacent=ALONG_STEPS, asks=asks
                    )
                    for asks in (False, True)
                ]
            panels.append((at, start * itemsize, *kernels, vectors * self.path.nbytes))
            at += self.algorithm.n**2 * depth * vectors * self.path.nbytes
        return np.array(panels, PANEL)

    def transform(self, kind: int) -> int:
        """Return the address of a transform."""
        index = ELEMENTS.index(self.element)
        return winograd_transforms.kernel(self.path, index, *self.algorithm[:2], kind)

    def __str__(self) -> str:
        kind = "transposed" if self.transposed else "forward"
        layout = self.layout(1, launch.allowed(self.work))
        return (
            f"winograd F({self.algorithm.m}, {self.algorithm.r}), {kind}: {len(self.jobs)} jobs "
            f"of {self.algorithm.n**2} products, blocks of {layout.block} squares in tiles of "
            f"{layout.rows} x {VECTORS} vectors of {self.path.nbytes} bytes ({self.path.name}), "
            f"{layout.scratch_nbytes // 1024} KiB of scratch in all"
        )

    @cached_property
    def direct(self) -> DirectPlan:
        """The plan for kernels that are not finite."""
        return DirectPlan(self.path, self.element, self.geometry, self.product)

    def pack(self, kernel: np.ndarray) -> Packed:
        """Transform the kernel and lay it out in panels, or leave it to direct."""
        with np.errstate(all="ignore"):
            taps = self._taps(kernel.astype(self.element.dtype, copy=False))
            if not (-self.limit < taps.min(initial=0) and taps.max(initial=0) < self.limit):
                return Packed(None, self.direct.pack(kernel))
        if self.streamed:
            return Packed(taps)
        itemsize, (source, result) = self.element.dtype.itemsize, self.channels
        packed = pool.aligned(len(self.jobs) * self.job_entries, self.element.dtype)
        units = len(self.jobs) * len(self.columns)
        threads = min(units, launch.allowed(packed.size))
        each = -(-TRANSFORM.itemsize // 64) * 64
        call = launch.Call(
            compiled.worker("winograd_worker", "pack"),
            PACK,
            each * threads,
            r=self.algorithm.r,
            depth=source,
            tap=source * result * itemsize,
            vector=self.path.nbytes,
            of_taps=self.transform(TAPS),
            panels=self.panels(0),
            panel_count=len(self.columns),
            job_nbytes=self.job_entries * itemsize,
            units=units,
            scratch_nbytes=each,
        )
        call.run(threads, taps, packed)
        return Packed(packed)

    def _taps(self, kernel: np.ndarray) -> np.ndarray:
        """Return each job's taps as ``[job][y][x][channel][column]``, zeros where it has none."""
        r = self.algorithm.r
        if self.transposed:
            kernel = np.swapaxes(kernel, 2, 3)
        if [(y.taps[0], x.taps[0]) for y, x in self.jobs] == [(tuple(range(r)),) * 2]:
            return np.ascontiguousarray(kernel)[None]
        taps = np.zeros((len(self.jobs), r, r, *self.channels), kernel.dtype)
        for target, (y, x) in zip(taps, self.jobs, strict=True):
            target[: len(y.taps[0]), : len(x.taps[0])] = kernel[np.ix_(y.taps[0], x.taps[0])]
        return taps

    def scratch(self, batch: int, threads: int) -> int:
        """Return the bytes that a run allocates besides its result, by direct where it may."""
        return max(self.layout(batch, threads).scratch_nbytes, threads * DIRECT_SCRATCH)

    def run(self, source: np.ndarray, packed: Packed, out: np.ndarray, finish: Finish) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        if packed.direct is not None:
            self.direct.run(source, packed.direct, out, finish)
            return
        layout = self.layout(len(source), launch.allowed(len(source) * self.work))
        layout.run(source, packed.kernel, out, finish)
