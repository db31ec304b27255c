"""The worker of separable kernels: rows resampled along x, then blended along y.

A row of the source is resampled once, into a ring of rows as wide as the result, or as a strip of
it; an upsampling by s so pays 1/s of the work along x. What is left is one kernel,

    out[i] = sum over t of weight[t][i mod C] * source[t][i]

over contiguous elements, all lanes of every vector at work however few the channels. It blends
rows of the ring into rows of the result, as many at once as read the same sources, and it
resamples. A stride of the convolution, or that of a transposed one, sets pixels apart: those of a
vector or more are *spread*, read and written where they lie. Of smaller ones the pixels of a row
are dealt to as many streams first, and phases are streams whose pixels are put in turn afterwards.
Both move whole vectors, a pixel at a time in ascending order, so that each overwrites what the one
before left behind. Where a vector holds several pixels, the streams of a few phases are *woven*:
blended and put in turn in registers.

All sums start at +0 and run over the taps in order. A tap outside of the source adds zero or is
left out, which is the same to the last bit.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from . import compiled
from .direct_places import inside
from .native import clear, copy, finish_stores, pointer, run_tile, take_next
from .separable_blend import BLEND, BLEND_NBYTES, ROWS
from .separable_spread import SPREAD, SPREAD_NBYTES
from .separable_taps import MOST_TAPS
from .separable_weave import WEAVE, WEAVE_NBYTES

_int = np.int64
_LEVELS, _KINDS = len(ROWS), MOST_TAPS + 1  # of blends; see separable_blend.kernels


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
)
#: What a packed kernel has for the worker, in this order.
PACKED = (
    *(f"{axis}_{name}" for axis in "yx" for name in ("kernels", "weights", "weights_step")),
    *("spreads", "weave"),  # addresses of kernels and of a kernel
)
#: What a worker is called with; all steps and sizes but those above are in bytes.
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "source", "out")),
        *((name, _int) for name in ("scale", "bias", "residual", "activation", *PACKED)),
        *((f"{axis}_{name}", _int) for axis in "yx" for name in _OF_AXIS),
        *((name, _int) for name in ("pixel", "move", "moves")),  # see BLEND
        *((name, _int) for name in ("block", "blocks", "strip", "strips", "units")),  # results
        *((name, _int) for name in ("streams", "chunk", "spreading")),
        ("past", _int),  # bytes of a vector, where results go past the caches; or 0
        ("rows", _int),  # of results that are blended at once, at most
        *((name, _int) for name in ("order", "weave_step")),
        *((name, _int) for name in ("ring", "ring_step", "stream_step", "most_taps")),
        *((name, _int) for name in ("scratch", "scratch_nbytes", "staged_nbytes")),
    ]
)


def scratch_nbytes(most_taps: int, ring: int, ring_step: int, streams: int, staged: int) -> int:
    """Return the scratch of one thread: kernels' arguments, tags, ring, streams, a row."""
    words = 2 * BLEND_NBYTES + WEAVE_NBYTES + SPREAD_NBYTES + 8 * (2 * most_taps + ring)
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
def _resample(call, along, source, start, width, work, target):
    """Resample the row at `source` to `width` results from `start` on, at `target`.

    `along` is the address of a BLEND, a WEAVE and a SPREAD.
    """
    weave_address, spread_address = along + BLEND_NBYTES, along + BLEND_NBYTES + WEAVE_NBYTES
    blend = carray(pointer(along), 1, BLEND)[0]
    sources = carray(pointer(blend.sources), call.most_taps, _int)
    residues = carray(pointer(call.x_residues), call.x_step, RESIDUE)
    kernels = carray(pointer(call.x_kernels), _KINDS, _int)
    spreads = carray(pointer(call.spreads), _KINDS, _int)
    pixel, step, source_step = call.pixel, call.x_step, call.x_source_step
    each = -(-width // step)  # results of a residue
    if call.x_span == 0:
        clear(target, width * pixel)
        return
    low = call.x_low + start // step * source_step
    span = (each - 1) * source_step + call.x_span
    row = source + low * pixel
    dealing = source_step > 1 and not call.spreading
    if low < 0 or low + span > call.x_source_size or dealing:
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
    if dealing:  # tap t reads every so many pixels: a stream
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
            at = residue.first - call.x_low + t * call.x_space
            if dealing:
                sources[blended + t] = (
                    row + t % dealt * call.stream_step + at // source_step * pixel
                )
            else:
                sources[blended + t] = row + at * pixel
        weights = call.x_weights + residue.weights * call.x_weights_step
        if call.weave:
            blended += residue.taps
        elif call.spreading:
            spread = carray(pointer(spread_address), 1, SPREAD)[0]
            spread.count = residue.taps
            spread.weights = weights
            spread.pixels = each
            spread.out = target + i * pixel
            run_tile(spreads[min(residue.taps, MOST_TAPS)], spread_address)
        else:
            blend.count = residue.taps
            blend.weights0 = weights
            blend.nbytes = each * pixel
            blend.out = target if step == 1 else streams + i * call.stream_step
            run_tile(kernels[min(residue.taps, MOST_TAPS)], along)
    if call.weave:
        weaving = carray(pointer(weave_address), 1, WEAVE)[0]
        weaving.out, weaving.nbytes = target, each * pixel
        run_tile(call.weave, weave_address)
    elif step > 1 and not call.spreading:
        _take(call.chunk, target, streams, each, pixel, step, call.stream_step, pixel)


def separable(call_address, thread):
    """Take pieces of work until there are none left."""
    call = carray(pointer(call_address), 1, CALL)[0]
    y_residues = carray(pointer(call.y_residues), call.y_step, RESIDUE)
    kernels = carray(pointer(call.y_kernels), (_LEVELS, _KINDS), _int)
    at = call.scratch + thread * call.scratch_nbytes
    across_address, along_address = at, at + BLEND_NBYTES
    across = carray(pointer(across_address), 1, BLEND)[0]
    along = carray(pointer(along_address), 1, BLEND)[0]
    at += 2 * BLEND_NBYTES
    weaving = carray(pointer(at), 1, WEAVE)[0]
    at += WEAVE_NBYTES
    spread = carray(pointer(at), 1, SPREAD)[0]
    at += SPREAD_NBYTES
    along.sources, across.sources = at, at + 8 * call.most_taps
    y_sources = carray(pointer(across.sources), call.most_taps, _int)
    at += 16 * call.most_taps
    held = carray(pointer(at), call.ring, _int)  # which row of the source is in each of the ring
    at += 8 * call.ring
    ring = at + -at % 64
    work = ring + call.ring * call.ring_step
    along.period = across.period = spread.pixel = call.pixel
    along.move = across.move = call.move
    along.moves = across.moves = call.moves
    weaving.sources = spread.sources = along.sources
    along.weights_step = weaving.weights_step = spread.weights_step = call.x_weights_step
    weaving.weights, weaving.order, weaving.step = call.x_weights, call.order, call.weave_step
    spread.source_step = call.x_source_step * call.pixel
    spread.out_step = call.x_step * call.pixel
    along.past = along.scale = along.bias = along.residual = along.activation = along.c_row = 0
    across.weights_step = call.y_weights_step
    across.scale, across.bias = call.scale, call.bias
    across.residual = 0
    across.activation = call.activation
    across.c_row = call.x_result_size * call.pixel
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            if call.past:
                finish_stores()
            return
        unit, strip = divmod(unit, call.strips)
        n, block = divmod(unit, call.blocks)
        start = strip * call.strip
        width = min(call.strip, call.x_result_size - start)
        across.nbytes = width * call.pixel
        held[:] = -1
        y, stop = block * call.block, min((block + 1) * call.block, call.y_result_size)
        while y < stop:
            u, residue = divmod(y, call.y_step)
            residue = y_residues[residue]
            first = residue.first + u * call.y_source_step
            t_start, t_stop = inside(first, call.y_space, residue.taps, call.y_source_size)
            for t in range(t_start, t_stop):
                q = first + t * call.y_space
                slot = q % call.ring
                row = ring + slot * call.ring_step
                y_sources[t - t_start] = row
                if held[slot] != q:
                    held[slot] = q
                    source = call.source
                    source += (n * call.y_source_size + q) * call.x_source_size * call.pixel
                    _resample(call, along_address, source, start, width, work, row)
            across.count = t_stop - t_start
            weights = call.y_weights + t_start * call.y_weights_step
            across.weights0 = weights + residue.weights * call.y_weights_step
            rows = 1  # that read the same
            while rows < min(call.rows, stop - y):
                u, i = divmod(y + rows, call.y_step)
                following = y_residues[i]
                if following.first + u * call.y_source_step != first:
                    break
                if following.taps != residue.taps:
                    break
                there = weights + following.weights * call.y_weights_step
                if rows == 1:
                    across.weights1 = there
                elif rows == 2:
                    across.weights2 = there
                else:
                    across.weights3 = there
                rows += 1
            level, kind = rows >> 1, min(across.count, MOST_TAPS)  # the last of ROWS that is there
            while kernels[level, kind] == 0:
                level -= 1
            place = ((n * call.y_result_size + y) * call.x_result_size + start) * call.pixel
            across.out = call.out + place
            across.past = 0
            if call.past and (across.out | across.c_row) % call.past == 0:
                across.past = 1
            if call.residual:
                across.residual = call.residual + place
            run_tile(kernels[level, kind], across_address)
            y += 1 << level
