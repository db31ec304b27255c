"""The weave of separable products: a row for each phase of a strided axis, put in turn.

It is for vectors that hold several pixels: the phases' rows are blended, and their pixels put in
order, all in registers.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir

from . import compiled
from .native import I64, offset
from .separable_taps import TapsEmitter
from .vector import Path

#: What a weave is called with, by address.
WEAVE = np.dtype(
    [
        (name, np.int64)
        for name in (
            "sources",  # address of the sources' addresses, those of each stream in turn
            "weights",  # likewise
            "weights_step",
            "order",  # address of as many vectors as streams, see `order`
            "step",  # bytes of the whole pixels in a vector
            "out",
            "nbytes",  # of a stream
        )
    ]
)
WEAVE_NBYTES = WEAVE.itemsize
#: The paths that can move any lane to any other, four bytes at a time.
WEAVING = ("avx512", "avx2")


@functools.cache
def weave(path: Path, element: int, channelwise: bool, taps: tuple[int, ...]) -> int:
    """Return the address of the kernel that blends streams of so many taps into one row."""
    return compiled.kernel(_Weave, path, element, channelwise, taps)


@functools.cache
def order(path: Path, pixel: int, streams: int) -> np.ndarray:
    """Return which word of all streams' vectors each word of as many vectors takes in a weave.

    Words have four bytes; pixels of `pixel` words lie in the streams' vectors as far as they are
    whole there.
    """
    words = path.nbytes // 4
    place, word = np.divmod(np.arange(streams * words), pixel)
    number, stream = np.divmod(place, streams)
    there = number * pixel + word
    return np.where(there < words, stream * words + there, 0).astype(np.int32)


class _Weave(TapsEmitter):
    """The generator of one weave.

    A step blends a vector of each stream, as far as it holds whole pixels, and writes as many
    vectors, each of which takes its words from any of them. What the last one holds too much the
    next step overwrites.
    """

    def __init__(
        self,
        path: Path,
        element: int,
        channelwise: bool,
        taps: tuple[int, ...],
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        super().__init__(path, element, builder, WEAVE, arguments)
        b = builder
        words = path.nbytes // 4
        self.words = ir.VectorType(ir.IntType(32), words)
        sources = [self._source(I64(t)) for t in range(sum(taps))]
        whole = I64(0) if channelwise else None  # pixels, from the first channel on
        weights = [self._weight(I64(t), whole) for t in range(sum(taps))]
        self.orders = []
        for member in range(len(taps)):
            at = offset(b, self._pointer("order"), member * path.nbytes)
            loaded = b.load(b.bitcast(at, self.words.as_pointer()), typ=self.words)
            loaded.align = 4
            self.orders.append(loaded)
        held, nbytes = self.arguments, path.nbytes

        def loop(state, masked):
            def left_at(position):
                return b.sub(held["nbytes"], position)

            def going(position, out):
                return b.icmp_signed(">=", left_at(position), I64(1 if masked else nbytes))

            def body(position, out):
                there = b.sdiv(left_at(position), I64(self.itemsize))
                self._mask(there, self.lanes)
                taken, blended = iter(zip(sources, weights, strict=True)), []
                for count in taps:
                    value = self._constant(0)
                    for _ in range(count):
                        source, weight = next(taken)
                        loaded = self._load(offset(b, source, position), last=masked)
                        value = self._times_plus(loaded, weight, value)
                    blended.append(value)
                for member, value in enumerate(self._ordered(blended)):
                    at = b.bitcast(offset(b, out, member * nbytes), self.vector.as_pointer())
                    b.store(value, at).align = self.itemsize
                further = b.mul(held["step"], I64(len(taps)))
                return b.add(position, held["step"]), offset(b, out, further)

            return self._while(state, going, body)

        # A whole vector is there to be read wherever as much is left of a stream.
        loop(loop([I64(0), self._pointer("out")], False), True)

    def _ordered(self, vectors: list[ir.Value]) -> list[ir.Value]:
        """Return the vectors' words in their order."""
        b = self.builder
        floats = ir.VectorType(ir.FloatType(), self.words.count)
        sources = [b.bitcast(value, floats) for value in vectors]
        return [b.bitcast(self._taken(sources, order), self.vector) for order in self.orders]

    def _taken(self, sources: list[ir.Value], order: ir.Value) -> ir.Value:
        """Return a vector of the words, numbered through all sources, that `order` names."""
        b, floats = self.builder, sources[0].type
        several = self.path.name == "avx512"  # two sources at once
        name = "llvm.x86.avx512.vpermi2var.ps.512" if several else "llvm.x86.avx2.permps"
        kinds = [floats, order.type, floats] if several else [floats, order.type]
        function = b.module.declare_intrinsic(name, (), ir.FunctionType(floats, kinds))
        result = None
        each = 2 if several else 1
        for first in range(0, len(sources), each):  # bits above the lanes' choose between these
            own = sources[first : first + each]
            arguments = [own[0], order, own[-1]] if several else [own[0], order]
            taken = b.call(function, arguments)
            if result is not None:
                least = ir.IntType(32)(first * self.words.count)
                least = ir.Constant(order.type, [least] * self.words.count)
                taken = b.select(b.icmp_signed(">=", order, least), taken, result)
            result = taken
        return result
