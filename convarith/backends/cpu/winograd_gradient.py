"""The kernel gradient by Winograd's algorithm: the exact adjoint of what `winograd` computes.

    dg = G^T (sum over squares of (A^T u A) * (B d B^T)) G

with the matrices of F(m, r) (see `cook_toom`), sources d of a square, and gradients u of its m x m
results. It takes as many products as the convolution does, 2.25 times fewer than direct for F(2, 3)
and 4 times for F(4, 3), and they are summed over the squares of all images before one transform
makes r x r taps of them. Kernels of r*s taps at stride s are s*s of these, one for each residue of
the taps; all share the transformed u.

Rounding: on random data the largest error is 0.5 to 1.2 times that of direct for F(2, 3), and 1.7
to 3.5 times for F(4, 3). For any data it is, in each pair of channels and with the growth of
`cook_toom.Algorithm.gradient_growth` (36 to 958),

    |error| <= (squares + STEPS) * eps * growth * sum over squares of max |u| * max |d|

since a product is at most the row sums of |A^T| and of |B| times the largest u and d, it is rounded
once for each square that is added and in STEPS steps before and after, and it reaches a tap by an
entry of |G^T|; `growth` is the most that these make of it on both axes. An Inf or NaN of d may
spread to all taps of its channel of the source, one of u to all taps of its channel of the result,
also to those under which direct finds the padding alone; and numbers within a factor of 1000 of the
largest may overflow.

The squares are summed in chunks and runs that depend on the sizes alone: blocks and threads change
no bit.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from ...geometry import ConvGeometry
from ..protocol import Product
from . import cook_toom, launch, winograd_transforms
from .gradient import GradientPlan
from .vector import ELEMENTS, Element, Path
from .winograd import applies, choices, taps_a_stride
from .winograd_gradient_layout import Layout

#: Cycles a vector and product: to multiply and add, to transform an operand, and to store and
#: transform a sum; and cycles that are lost once. Fitted to 156 gradients, as are direct's.
STEP_CYCLES = 0.73
OPERAND_CYCLES = 6.4
SUM_CYCLES = 6.5
START_CYCLES = 86_000
#: Direct's to multiply and add, and those lost once; its sums are longer.
DIRECT_CYCLES = 0.63
DIRECT_START_CYCLES = 60_000
#: Bytes of x that a nearer cache keeps. Each beyond them costs Winograd, whose windows of a residue
#: read short pieces, so many cycles more than direct.
NEAR_BYTES = 7 * 2**18
READ_CYCLES = 0.36
#: Bytes of a result that the last cache keeps, and cycles a byte of what is beyond: its rows are
#: written in short pieces.
KEPT_BYTES = 2**24
WRITE_CYCLES = 0.8
#: What Winograd must promise to gain to be preferred: its threads wait for each other more often.
GAIN = 1.05


def preferred(geometry: ConvGeometry, product: Product, element: Element, path: Path) -> bool:
    """Whether Winograd is the faster one; a batch of one image decides for all."""
    if not applies(geometry, product, element, path):
        return False
    lanes, itemsize = path.lanes(element), element.dtype.itemsize
    read = max(0, math.prod(geometry.input_shape) * itemsize - NEAR_BYTES)
    written = max(0, math.prod(geometry.kernel_shape) * itemsize - KEPT_BYTES)
    fewest = min(_cycles(geometry, lanes, m) for m in choices(_taps(geometry)))
    direct = _direct_cycles(geometry, lanes, GradientPlan(path, element, geometry).swapped)
    return GAIN * (fewest + read * READ_CYCLES + written * WRITE_CYCLES) < direct


def _taps(geometry: ConvGeometry) -> int:
    """Return r, the taps of a job along either axis."""
    return taps_a_stride(geometry, "kernel_gradient")


def _cycles(geometry: ConvGeometry, lanes: int, m: int) -> float:
    """Estimate the cycles of F(m, r)."""
    products, jobs = (m + _taps(geometry) - 1) ** 2, math.prod(geometry.strides)
    squares = math.prod(-(-count // m) for count in geometry.output_size)
    into, out_of = (-(-c // lanes) for c in (geometry.in_channels, geometry.out_channels))
    pairs = jobs * into * lanes * out_of  # the last block may overlap
    operands = squares * (jobs * into + out_of) * OPERAND_CYCLES
    return START_CYCLES + products * (pairs * (squares * STEP_CYCLES + SUM_CYCLES) + operands)


def _direct_cycles(geometry: ConvGeometry, lanes: int, swapped: bool) -> float:
    """Estimate direct's cycles, with lanes of the result's channels, or of all taps' of a row."""
    (y, x), source, result = geometry.kernel_size, geometry.in_channels, geometry.out_channels
    each = source * x * -(-result // lanes)
    if swapped:
        each = result * -(-source * x // lanes)
    return DIRECT_START_CYCLES + each * y * math.prod(geometry.output_size) * DIRECT_CYCLES


class WinogradGradientPlan:
    """The kernel gradient by squares; see `winograd_gradient_worker`.

    Parameters
    ----------
    m : int, optional
        Of F(m, r); the default is what takes the fewest cycles.
    """

    def __init__(
        self, path: Path, element: Element, geometry: ConvGeometry, m: int | None = None
    ) -> None:
        self.path, self.element, self.geometry = path, element, geometry
        r, lanes = _taps(geometry), path.lanes(element)
        m = m or min(choices(r), key=lambda m: _cycles(geometry, lanes, m))
        self.algorithm = cook_toom.algorithm(m, r)
        self.squares = [-(-count // m) for count in geometry.output_size]
        #: The residues of the taps (y, x), each a job.
        self.residues = list(itertools.product(*map(range, geometry.strides)))
        squares = math.prod(self.squares) * self.algorithm.n**2 * len(self.residues)
        self.work = squares * geometry.in_channels * geometry.out_channels  # for one of the batch
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(functools.partial(Layout, self))

    def __str__(self) -> str:
        layout = self.layout(1, launch.allowed(self.work))
        return (
            f"winograd F({self.algorithm.m}, {self.algorithm.r}), kernel gradient: "
            f"{len(self.residues)} jobs of {self.algorithm.n**2} products, blocks of "
            f"{layout.block} channels in tiles of {layout.rows} x {layout.vectors} vectors of "
            f"{self.path.nbytes} bytes ({self.path.name}), sums over {layout.chunk} squares at a "
            f"time, {layout.scratch_nbytes // 1024} KiB of scratch in all"
        )

    def transform(self, kind: int) -> int:
        """Return the address of a transform."""
        index = ELEMENTS.index(self.element)
        return winograd_transforms.kernel(self.path, index, *self.algorithm[:2], kind)

    def scratch(self, batch: int, threads: int) -> int:
        """Return the bytes that a run allocates besides its result."""
        return self.layout(batch, threads).scratch_nbytes

    def run(self, x: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        if len(x) == 0:
            out[...] = 0
            return
        self.layout(len(x), launch.allowed(len(x) * self.work)).run(x, g, out)
