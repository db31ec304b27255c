"""The kernels of separable products: rows blended into one, and pixels woven from several.

A *blend* is ``out[i] = sum over t of weight[t][i mod C] * source[t][i]`` over contiguous elements,
with the epilogue. A *weave* blends a row for each phase of a strided axis and puts their pixels in
turn, all in registers; it is for vectors that hold several pixels.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import compiled
from .emitter import Emitter
from .native import BYTES, I64, offset
from .vector import PATHS, Path

_int = np.int64

#: What a blend is called with, by address.
BLEND = np.dtype(
    [
        (name, _int)
        for name in (
            "sources",  # address of the sources' addresses
            "count",  # of taps
            "weights",  # one a tap; or of each channel, and then on from the first ones again
            "weights_step",  # bytes from tap to tap
            "period",  # bytes of the channels
            "move",  # those of a vector, modulo the period
            "moves",  # those of UNROLLED vectors
            "out",
            "nbytes",
            "scale",  # as long as the weights of a tap; or 0
            "bias",
            "residual",
            "activation",  # its place in ACTIVATIONS
        )
    ]
)
BLEND_NBYTES = BLEND.itemsize
#: Taps that a kernel of its own holds in registers; 0 is the one for any number.
MOST_TAPS = 4

#: Vectors that a step of the loop blends.
UNROLLED = 4


@functools.cache
def kernels(path: Path, element: int, channelwise: bool, most: int) -> np.ndarray:
    """Return the addresses of the blends of 0 to `MOST_TAPS` taps, where there are at most `most`.

    `channelwise` ones have a weight for each channel, others one for all.
    """
    own = range(1, most + 1) if most <= MOST_TAPS else ()
    general = _kernel(path, element, channelwise, 0)
    each = [_kernel(path, element, channelwise, n) if n in own else general for n in range(5)]
    return np.array(each, np.int64)


@functools.cache
def _kernel(path: Path, element: int, channelwise: bool, taps: int) -> int:
    constants = (path.name, element, int(channelwise), taps)
    name, element, channelwise_, taps = constants

    def blend(arguments):
        emit(name, element, channelwise_, taps, arguments)

    return compiled.address(compiled.TILE, blend)


@intrinsic(prefer_literal=True)
def emit(typing, path, element, channelwise, taps, arguments):
    """Generate the blend; all but the last are constants."""
    signature = types.void(path, element, channelwise, taps, arguments)
    constants = [constant.literal_value for constant in (element, channelwise, taps)]

    def generate(context, builder, signature, arguments):
        _Blend(PATHS[path.literal_value], *constants, builder, arguments[-1])
        return context.get_dummy_value()

    return signature, generate


class _Blend(Emitter):
    """The generator of one blend: three loops, of one row of vectors each."""

    def __init__(
        self,
        path: Path,
        element: int,
        channelwise: int,
        taps: int,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        super().__init__(path, element, builder, BLEND, arguments)
        self.channelwise, self.taps = bool(channelwise), taps
        self.arguments["c_row"] = I64(0)
        self.rows, self.stored = 1, self.lanes
        self.sources = [self._source(I64(t)) for t in range(taps)]
        self.splats = [self._weight(I64(t)) for t in range(taps) if not channelwise]
        state = I64(0), I64(0)
        for vectors, masked in ((UNROLLED, False), (1, False), (1, True)):
            state = self._loop(state, vectors, masked)

    def _source(self, t: ir.Value) -> ir.Value:
        b = self.builder
        table = b.inttoptr(self.arguments["sources"], BYTES)
        return b.inttoptr(self._load_int(offset(b, table, b.shl(t, I64(3)))), BYTES)

    def _weight(self, t: ir.Value, channel: ir.Value | None = None) -> ir.Value:
        """Return the weights of a tap, from `channel` on or of all."""
        b = self.builder
        at = offset(b, self._pointer("weights"), b.mul(t, self.arguments["weights_step"]))
        if channel is not None:
            return self._load(offset(b, at, channel))
        scalar = b.load(b.bitcast(at, self.element.type.as_pointer()))
        scalar.align = self.itemsize
        return self._splat(scalar)

    def _loop(self, state, vectors, masked):
        """Blend while `vectors` whole ones are left, or if masked any part of one.

        The state is how far it is from the start, and from the first channel, in bytes.
        """
        b, wide = self.builder, self.path.nbytes
        before, head, body, after = (
            b.block,
            b.function.append_basic_block("head"),
            b.function.append_basic_block("body"),
            b.function.append_basic_block("after"),
        )
        b.branch(head)
        b.position_at_end(head)
        position, channel = (b.phi(I64) for _ in state)
        left = b.sub(self.arguments["nbytes"], position)
        needed = 1 if masked else vectors * wide
        b.cbranch(b.icmp_signed(">=", left, I64(needed)), body, after)

        b.position_at_end(body)
        self.vectors, self.masked = vectors, masked
        there = b.sdiv(left, I64(self.itemsize)) if masked else I64(self.lanes)
        self.mask = self._first_lanes(there, self.lanes)
        held = self.arguments
        self.arguments = held | {
            "scale_at": b.add(held["scale"], channel),
            "bias_at": b.add(held["bias"], channel),
            "residual_at": b.add(held["residual"], position),
        }
        sums = self._epilogue([self._blended(position, channel)])
        self.arguments = held
        out = offset(b, self._pointer("out"), position)
        for j, value in enumerate(sums[0]):
            self._store_at(value, offset(b, out, j * wide))
        moved = b.add(channel, held["move" if vectors == 1 else "moves"])
        around = b.sub(moved, held["period"])
        end = b.block
        for phi, first, next_ in (
            (position, state[0], b.add(position, I64(vectors * wide))),
            (channel, state[1], b.select(b.icmp_signed("<", around, I64(0)), moved, around)),
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, end)
        b.branch(head)
        b.position_at_end(after)
        return position, channel

    def _pointer(self, name: str) -> ir.Value:
        at = self.arguments.get(name + "_at", self.arguments[name])  # where the loop has come to
        return self.builder.inttoptr(at, BYTES)

    def _blended(self, position: ir.Value, channel: ir.Value) -> list[ir.Value]:
        """Return the sums of a step's vectors."""
        b = self.builder
        zeros = [self._constant(0)] * self.vectors
        if self.taps:
            sums = zeros
            for t in range(self.taps):
                splat = None if self.channelwise else self.splats[t]
                sums = self._add_tap(sums, self.sources[t], I64(t), splat, position, channel)
            return sums
        before, tap, after = (
            b.block,
            b.function.append_basic_block("tap"),
            b.function.append_basic_block("sums"),
        )
        count = self.arguments["count"]
        b.cbranch(b.icmp_signed(">", count, I64(0)), tap, after)
        b.position_at_end(tap)
        t = b.phi(I64)
        running = [b.phi(self.vector) for _ in zeros]
        splat = None if self.channelwise else self._weight(t)
        summed = self._add_tap(running, self._source(t), t, splat, position, channel)
        following = b.add(t, I64(1))
        b.cbranch(b.icmp_signed("<", following, count), tap, after)
        b.position_at_end(after)
        result = [b.phi(self.vector) for _ in zeros]
        t.add_incoming(I64(0), before)
        t.add_incoming(following, tap)
        for zero, phi, value, final in zip(zeros, running, summed, result, strict=True):
            phi.add_incoming(zero, before)
            phi.add_incoming(value, tap)
            final.add_incoming(zero, before)
            final.add_incoming(value, tap)
        return result

    def _add_tap(self, sums, source, t, splat, position, channel) -> list[ir.Value]:
        b = self.builder
        source = offset(b, source, position)
        result = []
        for j, value in enumerate(sums):
            at = j * self.path.nbytes
            weight = self._weight(t, b.add(channel, I64(at))) if splat is None else splat
            loaded = self._load(offset(b, source, at), last=self.masked)
            result.append(self._times_plus(loaded, weight, value))
        return result

    def _store_at(self, value: ir.Value, at: ir.Value) -> None:
        b = self.builder
        if self.masked:
            self._masked_store(value, at)
        else:
            b.store(value, b.bitcast(at, self.vector.as_pointer())).align = self.itemsize


#: What a weave is called with, by address.
WEAVE = np.dtype(
    [
        (name, _int)
        for name in (
            "sources",  # address of the sources' addresses, those of each stream in turn
            "weights",  # likewise
            "weights_step",
            "order",  # address of as many vectors as streams: where each lane comes from
            "step",  # bytes of the whole pixels in a vector
            "out",
            "nbytes",  # of a stream
        )
    ]
)
WEAVE_NBYTES = WEAVE.itemsize


@functools.cache
def weave(element: int, channelwise: bool, taps: tuple[int, ...]) -> int:
    """Return the address of the kernel that blends streams of so many taps into one row."""
    element, channelwise_, digits = element, int(channelwise), "".join(map(str, taps))

    def woven(arguments):
        emit_weave(element, channelwise_, digits, arguments)

    return compiled.address(compiled.TILE, woven)


@intrinsic(prefer_literal=True)
def emit_weave(typing, element, channelwise, taps, arguments):
    """Generate the weave; all but the last are constants."""
    signature = types.void(element, channelwise, taps, arguments)
    constants = [constant.literal_value for constant in (element, channelwise, taps)]

    def generate(context, builder, signature, arguments):
        _Weave(*constants, builder, arguments[-1])
        return context.get_dummy_value()

    return signature, generate


class _Weave(Emitter):
    """The generator of one weave, for AVX-512: pixels from streams, in turn.

    A step blends a vector of each stream, as far as it holds whole pixels, and writes as many
    vectors, each of which takes its lanes from any of them. What the last one holds too much the
    next step overwrites.
    """

    def __init__(
        self, element: int, channelwise: int, taps: str, builder: ir.IRBuilder, arguments: ir.Value
    ) -> None:
        super().__init__(PATHS["avx512"], element, builder, WEAVE, arguments)
        b = builder
        self.stored = self.lanes
        self.integer = ir.IntType(8 * self.itemsize)
        members = [int(digit) for digit in taps]
        places = [list(range(sum(members[:i]), sum(members[: i + 1]))) for i in range(len(members))]
        sources, weights = [], []
        for t in range(sum(members)):
            at = offset(b, self._pointer("sources"), 8 * t)
            sources.append(b.inttoptr(self._load_int(at), BYTES))
            at = offset(b, self._pointer("weights"), b.mul(I64(t), self.arguments["weights_step"]))
            if channelwise:
                weights.append(self._load(at))
            else:
                scalar = b.load(b.bitcast(at, self.element.type.as_pointer()))
                scalar.align = self.itemsize
                weights.append(self._splat(scalar))
        kind = ir.VectorType(self.integer, self.lanes)
        orders = []
        for member in range(len(members)):
            at = offset(b, self._pointer("order"), member * self.path.nbytes)
            order = b.load(b.bitcast(at, kind.as_pointer()), typ=kind)
            order.align = self.itemsize
            orders.append(order)

        # A whole vector is there to be read wherever as much is left of a stream.
        state = I64(0), self._pointer("out")
        for masked in (False, True):
            state = self._loop(state, sources, weights, places, orders, masked)

    def _loop(self, state, sources, weights, places, orders, masked):
        """Weave while there are whole vectors, or if masked anything, in the streams.

        The state is how far it is in them, in bytes, and in the row.
        """
        b, step, nbytes = self.builder, self.arguments["step"], self.path.nbytes
        before, head, body, after = (
            b.block,
            b.function.append_basic_block("head"),
            b.function.append_basic_block("body"),
            b.function.append_basic_block("after"),
        )
        b.branch(head)
        b.position_at_end(head)
        position, out = b.phi(I64), b.phi(BYTES)
        left = b.sub(self.arguments["nbytes"], position)
        b.cbranch(b.icmp_signed(">=", left, I64(1 if masked else nbytes)), body, after)
        b.position_at_end(body)
        self.mask = self._first_lanes(b.sdiv(left, I64(self.itemsize)), self.lanes)
        blended = []
        for own in places:
            value = self._constant(0)
            for t in own:
                source = self._load(offset(b, sources[t], position), last=masked)
                value = self._times_plus(source, weights[t], value)
            blended.append(value)
        for member, order in enumerate(orders):
            at = b.bitcast(offset(b, out, member * nbytes), self.vector.as_pointer())
            b.store(self._ordered(blended, order), at).align = self.itemsize
        for phi, first, next_ in (
            (position, state[0], b.add(position, step)),
            (out, state[1], offset(b, out, b.mul(step, I64(len(places))))),
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, body)
        b.branch(head)
        b.position_at_end(after)
        return position, out

    def _ordered(self, vectors: list[ir.Value], order: ir.Value) -> ir.Value:
        """Return a vector of the lanes, numbered through all vectors, that `order` names."""
        b = self.builder
        letter = "s" if self.itemsize == 4 else "d"
        function = cgutils.get_or_insert_function(
            b.module,
            ir.FunctionType(self.vector, [self.vector, order.type, self.vector]),
            f"llvm.x86.avx512.vpermi2var.p{letter}.512",
        )
        result = None
        for first in range(0, len(vectors), 2):  # of two at once; the bits above choose which two
            pair = vectors[first : first + 2]
            taken = b.call(function, [pair[0], order, pair[-1]])
            if result is not None:
                least = ir.Constant(order.type, [self.integer(first * self.lanes)] * self.lanes)
                taken = b.select(b.icmp_signed(">=", order, least), taken, result)
            result = taken
        return result
