"""The spread of separable products: a row's pixels blended to every so many places of another.

    out[p*out_step + i] = sum over t of weight[t][i] * source[t][p*source_step + i]

A strided convolution reads pixels apart, and each phase of a transposed one writes them apart.
It is for pixels of a vector at least: the last vector of one overlaps that before it, where the
others would leave lanes over.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir

from . import compiled
from .native import I64, offset
from .separable_taps import MOST_TAPS, TapsEmitter
from .vector import Path

#: What a spread is called with, by address.
SPREAD = np.dtype(
    [
        (name, np.int64)
        for name in (
            "sources",  # address of the sources' addresses
            "count",  # of taps
            "weights",  # one a tap; or one of each channel
            "weights_step",  # bytes from tap to tap
            "pixels",
            "pixel",  # bytes of one, a vector's at least
            "source_step",  # bytes from pixel to pixel
            "out",
            "out_step",
        )
    ]
)
SPREAD_NBYTES = SPREAD.itemsize


@functools.cache
def kernels(path: Path, element: int, channelwise: bool, most: int) -> np.ndarray:
    """Return the addresses of the spreads of 0 to `MOST_TAPS` taps, where there are at most `most`.

    The first one takes any number.
    """
    table = np.full(MOST_TAPS + 1, _kernel(path, element, channelwise, 0), np.int64)
    for taps in range(1, most + 1) if most <= MOST_TAPS else ():
        table[taps] = _kernel(path, element, channelwise, taps)
    return table


@functools.cache
def _kernel(path: Path, element: int, channelwise: bool, taps: int) -> int:
    return compiled.kernel(_Spread, path, element, channelwise, taps)


class _Spread(TapsEmitter):
    """The generator of one spread: over pixels, and a pixel's vectors."""

    def __init__(
        self,
        path: Path,
        element: int,
        channelwise: bool,
        taps: int,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        super().__init__(path, element, builder, SPREAD, arguments)
        self.channelwise, self.taps = channelwise, taps
        held, b = self.arguments, builder
        self.sources = [self._source(I64(t)) for t in range(taps)]
        self.splats = [self._weight(I64(t)) for t in range(taps) if not channelwise]
        last = b.sub(held["pixel"], I64(path.nbytes))

        def body(left, position, out):
            def before_last(channel):
                return b.icmp_signed("<", channel, last)

            def vector(channel):
                self._vector(position, channel, out)
                return [b.add(channel, I64(path.nbytes))]

            self._while([I64(0)], before_last, vector)
            self._vector(position, last, out)
            further = b.add(position, held["source_step"])
            return b.sub(left, I64(1)), further, b.add(out, held["out_step"])

        def going(left, position, out):
            return b.icmp_signed(">", left, I64(0))

        self._while([held["pixels"], I64(0), held["out"]], going, body)

    def _vector(self, position: ir.Value, channel: ir.Value, out: ir.Value) -> None:
        """Blend and store the vector of a pixel that begins at `channel`."""
        b = self.builder

        def add(t, sums):
            known = isinstance(t, int)
            source = self.sources[t] if known else self._source(t)
            if known and not self.channelwise:
                weight = self.splats[t]
            else:
                weight = self._weight(I64(t) if known else t, channel if self.channelwise else None)
            loaded = self._load(offset(b, source, b.add(position, channel)))
            return [self._times_plus(loaded, weight, *sums)]

        (value,) = self._over_taps([self._constant(0)], add)
        at = b.inttoptr(b.add(out, channel), self.vector.as_pointer())
        b.store(value, at).align = self.itemsize
