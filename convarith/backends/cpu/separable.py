"""The separable plan: depthwise products whose kernel is rows times columns, as interpolation's is.

It takes ``kh + kw`` multiply-adds where the direct plan takes ``kh*kw``, of which an upsampling
shares those along x among all its rows; and few channels fill its vectors as well as many.
"""

from __future__ import annotations

import functools
import itertools
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from ...axis import Axis
from ...geometry import ConvGeometry
from ..protocol import Product
from ..structure import Factors
from . import compiled, launch, phases, pool, rowwise
from .blocks import PIECES_A_THREAD
from .finish import NOTHING, Finish
from .separable_blend import MOST_ROWS, UNROLLED
from .separable_blend import kernels as blend_kernels
from .separable_records import CALL, RESIDUE, scratch_nbytes
from .separable_spread import kernels as spread_kernels
from .separable_taps import MOST_TAPS
from .separable_weave import WEAVING, order, weave
from .vector import ELEMENTS, Element, Path, path

#: What a thread's ring of rows may take of the caches; strips are cut to fit.
RING = 2**16
#: Where the narrowest strip takes more, or a stride is larger, there is no plan.
MOST_RING = 2**20
MOST_STRIDE = 2**10
#: Rows of a block for each of the ring, which a block has to fill before it has a result.
ROWS_A_FILLED = 8
#: Bytes of the last cache where it is not known.
LAST_CACHE = 2**25

MOST_WOVEN = 4  # phases
_NONE = np.zeros(0, np.int64)  # kernels
_SLACK = 64 * MOST_WOVEN  # bytes that whole vectors may reach past the end of a row


def applies(geometry: ConvGeometry, product: Product, element: Element) -> bool:
    """Return whether there is a plan, faster than others where the weights are separable.

    The arrays' sizes have no part in it, so that a tile and the whole are computed alike.
    """
    channels, size = geometry.in_channels, geometry.effective_kernel_size
    depthwise = geometry.groups in (1, channels) and channels == geometry.out_channels
    if not (depthwise and element.floating and geometry.rank == 2 and product != "kernel_gradient"):
        return False
    if min(geometry.kernel_size) < 2 or max(geometry.strides) > MOST_STRIDE:
        return False
    widest = max(size[0] * geometry.strides[1], size[1] + geometry.strides[1])
    if widest * channels * element.dtype.itemsize > MOST_RING:
        return False
    if rowwise.applies(path(), element, geometry, product):
        return _cheaper_than_rows(geometry)
    return product == "transpose" or _fewer_steps(geometry, element)


def _cheaper_than_rows(geometry: ConvGeometry) -> bool:
    """Whether it takes less time than by `rowwise`, whose steps cost less, as was measured."""
    (kh, kw), sy = geometry.kernel_size, geometry.strides[0]
    return min(sy, kh) * kw + kh <= kh * kw * (0.8 if geometry.in_channels <= 2 else 0.35)


def _fewer_steps(geometry: ConvGeometry, element: Element) -> bool:
    """Whether a convolution takes fewer steps for a vector of results than tile by tile.

    A tile has the lanes of whole vectors a pixel; so has dealing pixels to streams.
    """
    (kh, kw), (sy, sx) = geometry.kernel_size, geometry.strides
    lanes = path().lanes(element)
    used = -(-geometry.in_channels // lanes) * lanes / geometry.in_channels
    dealing = used * sx if sx > 1 else 0
    return min(sy, kh) * (dealing + kw) + kh <= kh * kw * used


class Packed(NamedTuple):
    """The weights along both axes, and the kernels to blend by."""

    numbers: tuple[int, ...]  # what the worker takes, as PACKED names it
    arrays: tuple[np.ndarray, ...]  # whose addresses are among them


class SeparablePlan:
    """``W x`` or ``W^T y`` for separable depthwise weights; see `separable_worker`.

    The geometry is that of a depthwise kernel, or of a dense one whose diagonal this is; `pack`
    takes the factors of its weights.
    """

    def __init__(
        self, path: Path, element: Element, geometry: ConvGeometry, product: Product
    ) -> None:
        self.path, self.element, self.geometry = path, element, geometry
        self.transposed = product == "transpose"
        self.channels = geometry.in_channels
        self.y, self.x = (Resampling(axis, self.transposed) for axis in geometry.axes)
        self.weaves = self._weaves()
        apart = self.x.step > 1 or self.x.source_step > 1
        self.spreads = apart and self.channels >= path.lanes(element)
        self.work = math.prod(geometry.input_size) * self.channels * self.y.most_taps
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(functools.partial(Layout, self))

    def _weaves(self) -> bool:
        """Whether phases along x are blended together, and put in order in registers.

        That is for pixels that a vector holds whole, and for the few numbers of taps that an
        interpolation has: each combination is a kernel to compile.
        """
        taps = self.x.residues["taps"]
        alike = taps.min() == taps.max() <= MOST_TAPS or (len(taps) <= 3 and taps.max() <= 2)
        return bool(
            self.path.name in WEAVING
            and 2 <= len(taps) <= MOST_WOVEN
            and taps.min() > 0
            and alike
            and self.channels < self.path.lanes(self.element)
        )

    def __str__(self) -> str:
        kind = "transposed" if self.transposed else "forward"
        layout = self.layout(1, launch.allowed(self.work))
        return (
            f"separable, {kind}: sums of up to {self.y.most_taps} + {self.x.most_taps} steps, "
            f"strips of {layout.strip} columns, vectors of {self.path.nbytes} bytes "
            f"({self.path.name}), {layout.scratch_nbytes // 1024} KiB of scratch in all"
        )

    def pack(self, factors: Factors) -> Packed:
        """Lay the factors out, one weight a tap where all channels share it."""
        (y, y_channelwise), (x, x_channelwise) = (
            self._weights(self.y, factors.y),
            self._weights(self.x, factors.x),
        )
        element = ELEMENTS.index(self.element)
        along, across = (self.path, element, x_channelwise), (self.path, element, y_channelwise)
        y_blends = blend_kernels(*across, self.y.most_taps, self.y.alike)
        x_blends = spreads = _NONE
        woven = 0
        if self.weaves:
            woven = weave(*along, tuple(self.x.residues["taps"].tolist()))
        elif self.spreads:
            spreads = spread_kernels(*along, self.x.most_taps)
        else:
            x_blends = blend_kernels(*along, self.x.most_taps)
        arrays = y_blends, y, x_blends, x, spreads
        at = [pool.address(array) for array in arrays]
        steps = [array.shape[1] * array.itemsize for array in (y, x)]
        return Packed((at[0], at[1], steps[0], at[2], at[3], steps[1], at[4], woven), arrays)

    def _weights(self, axis: Resampling, factor: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return those of an axis, in the order of residues and taps; are there any a channel?"""
        channelwise = bool((factor != factor[:, :1]).any())
        values = (self._around(factor) if channelwise else factor[:, :1])[axis.taps]
        packed = pool.aligned(values.size, self.element.dtype).reshape(values.shape)
        packed[...] = values
        return packed, channelwise

    def _around(self, parts: np.ndarray) -> np.ndarray:
        """Return what each channel has, and on for some vectors from the first one again."""
        more = UNROLLED * self.path.lanes(self.element)
        places = np.arange(self.channels + more) % self.channels
        return np.take(parts, places, axis=-1)

    def scratch(self, batch: int, threads: int) -> int:
        """Return the bytes that a run allocates besides its result."""
        return self.layout(batch, threads).scratch_nbytes

    def run(self, source: np.ndarray, packed: Packed, out: np.ndarray, finish: Finish) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        batch = len(source)
        layout = self.layout(batch, launch.allowed(batch * self.work))
        if finish is not NOTHING:
            finish = finish.laid_out(self._around)
        layout.call.run(layout.threads, source, out, *finish, *packed.numbers)


class Resampling:
    """One axis: which sources a result reads, by its place modulo the step.

    Attributes
    ----------
    taps : ndarray
        The entries of the kernel that the results of each residue in turn meet.
    low, span : int
        The first source that the first `step` results read, and how many from there to the last.
    """

    def __init__(self, axis: Axis, transposed: bool) -> None:
        self.source_size, self.result_size = axis.size, axis.output
        self.source_step, self.step = axis.stride, 1
        found = phases.forward(axis)
        if transposed:
            self.source_size, self.result_size = axis.output, axis.size
            self.source_step, self.step = 1, axis.stride
            found = phases.transposed(axis, merge=False)
        self.residues = np.zeros(self.step, RESIDUE)
        self.space = found[0].space if found else 1  # that of all
        taps: list[int] = []
        reached = []
        for phase in sorted(found):  # each starts at its residue
            (own,) = phase.taps
            self.residues[phase.start] = phase.first, len(own), len(taps)
            taps.extend(own)
            if own:
                reached.append((phase.first, phase.first + (len(own) - 1) * self.space + 1))
        self.taps = np.array(taps, np.intp)
        self.most_taps = int(self.residues["taps"].max())
        self.low = min((first for first, _ in reached), default=0)
        self.span = max((stop for _, stop in reached), default=self.low) - self.low

    @property
    def alike(self) -> int:
        """The most results in turn that read the same sources."""
        if self.step == 1:
            return 1
        read = [(int(r["first"]), int(r["taps"])) for r in self.residues]
        read += [(first + self.source_step, taps) for first, taps in read]
        return max(len(list(run)) for _, run in itertools.groupby(read))

    @property
    def streams(self) -> int:
        """As how many streams the taps of a strided axis see its pixels."""
        return min(self.most_taps, self.source_step // math.gcd(self.source_step, self.space))

    def fields(self, name: str) -> dict[str, Any]:
        """Return them as the worker takes them."""
        own = ("source_size", "result_size", "source_step", "step", "space", "low", "span")
        return {f"{name}_{field}": getattr(self, field) for field in (*own, "residues")}


@functools.cache
def past_bytes() -> int:
    """Return from how many bytes on results are stored past the caches: half of the last one.

    What it holds beside other things is stored faster there; of more, each line would be read
    only to be written over.
    """
    try:
        size = pathlib.Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text()
        found = int(size.strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        found = 0
    return (found or LAST_CACHE) // 2


class Layout:
    """What a worker is called with for one size of batch, and how its work is cut."""

    def __init__(self, plan: SeparablePlan, batch: int, threads: int) -> None:
        y, x, path = plan.y, plan.x, plan.path
        pixel = plan.channels * plan.element.dtype.itemsize
        ring = max(1, y.span)
        # Strips are whole steps: of results in the ring, or of sources, as they are and dealt.
        steps = max(1, RING // (pixel * max(ring * x.step, 2 * x.source_step)))
        strips = -(-x.result_size // (steps * x.step))
        steps = -(-x.result_size // (x.step * max(1, strips)))
        self.strip = strip = max(1, steps) * x.step
        # Blocks of whole steps: enough for the threads, but each worth the filling of its ring.
        wanted = -(-PIECES_A_THREAD * threads // max(1, batch * strips)) if threads > 1 else 1
        block = max(-(-y.result_size // wanted), ROWS_A_FILLED * ring)
        block = -(-block // y.step) * y.step
        blocks = -(-y.result_size // block)
        units = batch * blocks * strips
        self.threads = max(1, min(threads, units))
        read = (steps - 1) * x.source_step + x.span  # sources of a row of a strip
        stream = -(-read // x.source_step) if x.step == 1 else steps
        ring_step, staged, stream_step = (
            -(-(pixels * pixel + _SLACK) // 64) * 64 for pixels in (strip, read, stream)
        )
        streams = x.streams if x.source_step > 1 else x.step if x.step > 1 else 0
        if plan.weaves or plan.spreads:
            streams = 0
        most_taps = max(1, y.most_taps, len(x.taps) if plan.weaves else x.most_taps)
        each = scratch_nbytes(most_taps, ring, ring_step, streams * stream_step, staged)
        self.scratch_nbytes = each * self.threads
        large = batch * y.result_size * x.result_size * pixel >= past_bytes()
        self.call = launch.Call(
            compiled.worker("separable_worker", "separable"),
            CALL,
            self.scratch_nbytes,
            **y.fields("y"),
            **x.fields("x"),
            pixel=pixel,
            move=path.nbytes % pixel,
            moves=UNROLLED * path.nbytes % pixel,
            block=block,
            blocks=blocks,
            strip=strip,
            strips=strips,
            units=units,
            streams=x.streams,
            chunk=next((n for n in (4, 16) if pixel <= n), 64),
            order=order(path, pixel // 4, x.step) if plan.weaves else 0,
            spreading=plan.spreads,
            past=path.nbytes if large else 0,
            rows=min(MOST_ROWS, y.alike),
            weave_step=path.nbytes // pixel * pixel,
            ring=ring,
            ring_step=ring_step,
            stream_step=stream_step,
            most_taps=most_taps,
            scratch_nbytes=each,
            staged_nbytes=staged,
        )
