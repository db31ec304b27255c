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

import numpy as np

from .direct_places import inside
from .intrinsics import clear, copy, entries, finish_stores, inlined, move, run_tile, take_next
from .separable_blend import BLEND, BLEND_NBYTES
from .separable_records import CALL, RESIDUE
from .separable_spread import SPREAD, SPREAD_NBYTES
from .separable_taps import MOST_TAPS
from .separable_weave import WEAVE, WEAVE_NBYTES

#: Blends of any number of rows; see separable_blend.kernels.
KINDS = MOST_TAPS + 1


def _taking(chunk):
    """Return a function that copies pixels, `chunk` bytes at a time, to where they lie in a row."""

    @inlined
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


@inlined
def _take(chunk, target, source, outer, outer_step, inner, inner_step, pixel):
    if chunk == 4:
        _take4(target, source, outer, outer_step, inner, inner_step, pixel)
    elif chunk == 16:
        _take16(target, source, outer, outer_step, inner, inner_step, pixel)
    else:
        _take64(target, source, outer, outer_step, inner, inner_step, pixel)


@inlined
def _resample(call, along, source, start, width, work, target):
    """Resample the row at `source` to `width` results from `start` on, at `target`.

    `along` is the address of a BLEND, a WEAVE and a SPREAD.
    """
    weave_address, spread_address = along + BLEND_NBYTES, along + BLEND_NBYTES + WEAVE_NBYTES
    blend = entries(along, BLEND)[0]
    sources = entries(blend.sources, np.int64)
    residues = entries(call.x_residues, RESIDUE)
    kernels = entries(call.x_kernels, np.int64)
    spreads = entries(call.spreads, np.int64)
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
            spread = entries(spread_address, SPREAD)[0]
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
        weaving = entries(weave_address, WEAVE)[0]
        weaving.out, weaving.nbytes = target, each * pixel
        run_tile(call.weave, weave_address)
    elif step > 1 and not call.spreading:
        _take(call.chunk, target, streams, each, pixel, step, call.stream_step, pixel)


def separable(call_address, thread):
    """Take pieces of work until there are none left."""
    call = entries(call_address, CALL)[0]
    y_residues = entries(call.y_residues, RESIDUE)
    kernels = entries(call.y_kernels, np.int64)
    at = call.scratch + thread * call.scratch_nbytes
    across_address, along_address = at, at + BLEND_NBYTES
    across = entries(across_address, BLEND)[0]
    along = entries(along_address, BLEND)[0]
    at += 2 * BLEND_NBYTES
    weaving = entries(at, WEAVE)[0]
    at += WEAVE_NBYTES
    spread = entries(at, SPREAD)[0]
    at += SPREAD_NBYTES
    along.sources, across.sources = at, at + 8 * call.most_taps
    y_sources = entries(across.sources, np.int64)
    at += 16 * call.most_taps
    held = entries(at, np.int64)  # which row of the source is in each of the ring
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
        for slot in range(call.ring):
            held[slot] = -1
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
            while kernels[level * KINDS + kind] == 0:
                level -= 1
            place = ((n * call.y_result_size + y) * call.x_result_size + start) * call.pixel
            across.out = call.out + place
            across.past = 0
            if call.past and (across.out | across.c_row) % call.past == 0:
                across.past = 1
            if call.residual:
                across.residual = call.residual + place
            run_tile(kernels[level * KINDS + kind], across_address)
            y += 1 << level
