"""The worker of separable kernels: rows resampled along x, then blended along y.

A row of the source is resampled once, into a ring of rows as wide as the result, or as a strip of
it; an upsampling by s so pays 1/s of the work along x. What is left is one kernel,

    out[i] = sum over t of weight[t][i mod C] * source[t][i]

over contiguous elements, all lanes of every vector at work however few the channels. It blends
rows of the ring into rows of the result, and it resamples: for a stride of the convolution the
pixels of a row are dealt to as many streams first, for that of a transposed one the phases are
streams of their own whose pixels are put in turn afterwards. Both move whole vectors, a pixel at a
time in ascending order, so that each overwrites what the one before left behind. Where a vector
holds several pixels, the streams of a few phases are *woven*: blended and put in turn in registers.

All sums start at +0 and run over the taps in order. A tap outside of the source adds zero or is
left out, which is the same to the last bit.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from . import compiled
from .direct_worker import _inside
from .native import BYTES, I64, clear, copy, offset, pointer, run_tile, take_next
from .tile import _Tile
from .vector import ELEMENTS, PATHS, Path

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


class _Blend(_Tile):
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
        self.path, self.element = path, ELEMENTS[element]
        self.channelwise, self.taps = bool(channelwise), taps
        self.builder = b = builder
        self.lanes = path.lanes(self.element)
        self.vector = ir.VectorType(self.element.type, self.lanes)
        self.itemsize = self.element.dtype.itemsize
        base = b.inttoptr(arguments, BYTES)
        self.arguments = {
            name: self._load_int(offset(b, base, field[1])) for name, field in BLEND.fields.items()
        }
        self.arguments["c_row"] = I64(0)
        self.rows, self.stored, self.halved = 1, self.lanes, False
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
            *(b.function.append_basic_block(name) for name in ("head", "body", "after")),
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
            *(b.function.append_basic_block(name) for name in ("tap", "sums")),
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


class _Weave(_Tile):
    """The generator of one weave, for AVX-512: pixels from streams, in turn.

    A step blends a vector of each stream, as far as it holds whole pixels, and writes as many
    vectors, each of which takes its lanes from any of them. What the last one holds too much the
    next step overwrites.
    """

    def __init__(
        self, element: int, channelwise: int, taps: str, builder: ir.IRBuilder, arguments: ir.Value
    ) -> None:
        self.path, self.element = PATHS["avx512"], ELEMENTS[element]
        self.builder = b = builder
        self.lanes = self.stored = self.path.lanes(self.element)
        self.vector = ir.VectorType(self.element.type, self.lanes)
        self.itemsize = self.element.dtype.itemsize
        self.integer = ir.IntType(8 * self.itemsize)
        base = b.inttoptr(arguments, BYTES)
        self.arguments = {
            name: self._load_int(offset(b, base, field[1])) for name, field in WEAVE.fields.items()
        }
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
            *(b.function.append_basic_block(name) for name in ("head", "body", "after")),
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


@intrinsic(prefer_literal=True)
def move(typing, target, source, nbytes):
    """Copy 4 bytes, or a power of two more that is a constant, from one address to another."""
    signature = types.void(target, source, nbytes)

    def generate(context, builder, signature, arguments):
        words = signature.args[2].literal_value // 4
        kind = ir.VectorType(ir.IntType(32), words)
        at = [builder.inttoptr(address, kind.as_pointer()) for address in arguments[:2]]
        loaded = builder.load(at[1], typ=kind)
        loaded.align = 4
        builder.store(loaded, at[0]).align = 4
        return context.get_dummy_value()

    return signature, generate


#: Results at the same place modulo the step read the source alike; see phases.Phase.
RESIDUE = np.dtype([("first", _int), ("taps", _int), ("weights", _int)])
_OF_AXIS = (
    *("source_size", "result_size", "source_step", "step", "space"),
    "residues",  # address of RESIDUEs, as many as the step
    *("low", "span"),  # where the first `step` results read, all together
    *("kernels", "weights", "weights_step"),
)
#: What a worker is called with; all steps and sizes but those above are in bytes.
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "source", "out")),
        *((name, _int) for name in ("scale", "bias", "residual", "activation")),
        *((f"{axis}_{name}", _int) for axis in "yx" for name in _OF_AXIS),
        *((name, _int) for name in ("pixel", "move", "moves")),  # see BLEND
        *((name, _int) for name in ("block", "blocks", "strip", "strips", "units")),  # results
        *((name, _int) for name in ("streams", "chunk")),
        *((name, _int) for name in ("weave", "order", "weave_step")),  # 0 where there is none
        *((name, _int) for name in ("ring", "ring_step", "stream_step", "most_taps")),
        *((name, _int) for name in ("scratch", "scratch_nbytes", "staged_nbytes")),
    ]
)


def scratch_nbytes(most_taps: int, ring: int, ring_step: int, streams: int, staged: int) -> int:
    """Return the scratch of one thread: kernels' arguments, tags, ring, streams, a row."""
    words = 2 * BLEND_NBYTES + WEAVE_NBYTES + 8 * (2 * most_taps + ring)
    return -(-words // 64) * 64 + ring * ring_step + streams + staged


@functools.cache
def worker() -> int:
    """Return the address of the worker, compiled on first use."""
    return compiled.address(compiled.WORKER, separable)


def _taking(chunk):
    """Return a function that copies pixels, `chunk` bytes at a time, to where they lie in a row."""

    @njit
    def take(target, source, outer, outer_step, inner, inner_step, pixel):
        for i in range(outer):
            at = source + i * outer_step
            for _ in range(inner):
                if pixel <= chunk:
                    move(target, at, chunk)
                else:
                    for part in range(0, pixel, chunk):
                        move(target + part, at + part, chunk)
                target += pixel
                at += inner_step

    return take


_take4, _take16, _take64 = (_taking(chunk) for chunk in (4, 16, 64))


@njit
def _take(chunk, target, source, outer, outer_step, inner, inner_step, pixel):
    if chunk == 4:
        _take4(target, source, outer, outer_step, inner, inner_step, pixel)
    elif chunk == 16:
        _take16(target, source, outer, outer_step, inner, inner_step, pixel)
    else:
        _take64(target, source, outer, outer_step, inner, inner_step, pixel)


@njit
def _resample(call, blend_address, weave_address, source, start, width, work, target):
    """Resample the row at `source` to `width` results from `start` on, at `target`."""
    blend = carray(pointer(blend_address), 1, BLEND)[0]
    sources = carray(pointer(blend.sources), call.most_taps, _int)
    residues = carray(pointer(call.x_residues), call.x_step, RESIDUE)
    kernels = carray(pointer(call.x_kernels), 5, _int)
    pixel, step, source_step = call.pixel, call.x_step, call.x_source_step
    each = -(-width // step)  # results of a residue
    if call.x_span == 0:
        clear(target, width * pixel)
        return
    low = call.x_low + start // step * source_step
    span = (each - 1) * source_step + call.x_span
    row = source + low * pixel
    if low < 0 or low + span > call.x_source_size or source_step > 1:
        before = min(max(-low, 0), span)
        behind = min(max(low + span - call.x_source_size, 0), span - before)
        inside = work + -(-before * pixel // 64) * 64  # aligned vectors are stored faster
        nbytes = (span - before - behind) * pixel
        clear(inside - before * pixel, before * pixel)
        for at in range(0, nbytes & -64, 64):
            move(inside + at, row + before * pixel + at, 64)
        at = nbytes & -64
        copy(inside + at, row + before * pixel + at, nbytes - at)
        clear(inside + nbytes, behind * pixel)
        row = inside - before * pixel
    streams = work + call.staged_nbytes
    dealt = 1
    if source_step > 1:  # tap t reads every so many pixels: a stream
        dealt = call.streams
        for i in range(dealt):
            first = i * call.x_space % source_step
            count = (span - 1 - first) // source_step + 1
            _take(
                call.chunk,
                streams + i * call.stream_step,
                row + first * pixel,
                count,
                source_step * pixel,
                1,
                0,
                pixel,
            )
        row = streams
    blended = 0
    for i in range(step):
        residue = residues[i]
        for t in range(residue.taps):
            at = (residue.first - call.x_low + t * call.x_space) // source_step
            sources[blended + t] = row + t % dealt * call.stream_step + at * pixel
        if call.weave:
            blended += residue.taps
            continue
        blend.count = residue.taps
        blend.weights = call.x_weights + residue.weights * call.x_weights_step
        blend.nbytes = each * pixel
        blend.out = target if step == 1 else streams + i * call.stream_step
        run_tile(kernels[min(residue.taps, 4)], blend_address)
    if call.weave:
        weaving = carray(pointer(weave_address), 1, WEAVE)[0]
        weaving.out, weaving.nbytes = target, each * pixel
        run_tile(call.weave, weave_address)
    elif step > 1:
        _take(call.chunk, target, streams, each, pixel, step, call.stream_step, pixel)


def separable(call_address, thread):
    """Take pieces of work until there are none left."""
    call = carray(pointer(call_address), 1, CALL)[0]
    y_residues = carray(pointer(call.y_residues), call.y_step, RESIDUE)
    kernels = carray(pointer(call.y_kernels), 5, _int)
    at = call.scratch + thread * call.scratch_nbytes
    x_address, y_address = at, at + BLEND_NBYTES
    along = carray(pointer(x_address), 1, BLEND)[0]
    across = carray(pointer(y_address), 1, BLEND)[0]
    at += 2 * BLEND_NBYTES
    weave_address = at
    weaving = carray(pointer(weave_address), 1, WEAVE)[0]
    at += WEAVE_NBYTES
    along.sources, across.sources = at, at + 8 * call.most_taps
    y_sources = carray(pointer(across.sources), call.most_taps, _int)
    at += 16 * call.most_taps
    held = carray(pointer(at), call.ring, _int)  # which row of the source is in each of the ring
    at += 8 * call.ring
    ring = at + -at % 64
    work = ring + call.ring * call.ring_step
    along.period = across.period = call.pixel
    along.move = across.move = call.move
    along.weights_step, across.weights_step = call.x_weights_step, call.y_weights_step
    weaving.sources, weaving.order, weaving.step = along.sources, call.order, call.weave_step
    weaving.weights, weaving.weights_step = call.x_weights, call.x_weights_step
    along.moves = across.moves = call.moves
    along.scale = along.bias = along.residual = along.activation = 0
    across.scale, across.bias = call.scale, call.bias
    across.residual = 0
    across.activation = call.activation
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            return
        unit, strip = divmod(unit, call.strips)
        n, block = divmod(unit, call.blocks)
        start = strip * call.strip
        width = min(call.strip, call.x_result_size - start)
        held[:] = -1
        for y in range(block * call.block, min((block + 1) * call.block, call.y_result_size)):
            u, residue = divmod(y, call.y_step)
            residue = y_residues[residue]
            first = residue.first + u * call.y_source_step
            t_start, t_stop = _inside(first, call.y_space, residue.taps, call.y_source_size)
            for t in range(t_start, t_stop):
                q = first + t * call.y_space
                slot = q % call.ring
                row = ring + slot * call.ring_step
                y_sources[t - t_start] = row
                if held[slot] != q:
                    held[slot] = q
                    source = call.source
                    source += (n * call.y_source_size + q) * call.x_source_size * call.pixel
                    _resample(call, x_address, weave_address, source, start, width, work, row)
            place = ((n * call.y_result_size + y) * call.x_result_size + start) * call.pixel
            across.count = t_stop - t_start
            across.weights = call.y_weights + (residue.weights + t_start) * call.y_weights_step
            across.out = call.out + place
            across.nbytes = width * call.pixel
            if call.residual:
                across.residual = call.residual + place
            run_tile(kernels[min(across.count, 4)], y_address)
