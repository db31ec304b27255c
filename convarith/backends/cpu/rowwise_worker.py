"""The worker of products of few channels: tiles that are stretches of a row; see `rowwise`.

A *line* is a row of results, or a part of it. Where every tap of a stretch lies within its row,
tiles read straight from the source; the last one may write once more what the one before wrote.
Near the ends of a row small tiles read a copy, with zeros around it; where a weight is not finite,
which no zero may meet, pixel by pixel with the taps that each has.
"""

from __future__ import annotations

from .intrinsics import clear, copy, entries, inlined, run_tile, take_next
from .rowwise_records import CALL
from .tile import SEGMENT, SEGMENT_NBYTES, TILE, TILE_NBYTES


@inlined
def _enter(call, z, y, segments, copied):
    """Fill in the rows of taps that a row of results has, in the source and as copies.

    Return how many there are.
    """
    found = 0
    span = call.small_nbytes + (call.kernel[2] - 1) * call.dilation[2] * call.source_strides[3]
    for kz in range(call.kernel[0]):
        source_z = z * call.step[0] + kz * call.dilation[0] - call.low[0]
        if source_z < 0 or source_z >= call.size[0]:
            continue
        for ky in range(call.kernel[1]):
            source_y = y * call.step[1] + ky * call.dilation[1] - call.low[1]
            if source_y < 0 or source_y >= call.size[1]:
                continue
            at = source_z * call.source_strides[1] + source_y * call.source_strides[2]
            segments[found].a_offset = at
            segments[found].b_offset = (kz * call.kernel[1] + ky) * call.kernel[2] * call.block
            copied[found].a_offset = found * span
            copied[found].b_offset = segments[found].b_offset
            found += 1
    return found


@inlined
def _straight(call, tile, address, image, row, start, stop):
    """Compute bytes ``start..stop`` of a row of results whose taps lie in the source's rows.

    Return how far it came: what is shorter than a small tile is left.
    """
    at = start
    nbytes, kernel = call.large_nbytes, call.large
    while at < stop:
        if stop - at < nbytes:
            if stop - start >= nbytes:
                at = stop - nbytes
            elif nbytes > call.small_nbytes:
                nbytes, kernel = call.small_nbytes, call.small
                continue
            else:
                break
        tile.a = image + at - call.low[2] * call.source_strides[3]
        tile.c = call.out + row + at
        if call.residual:
            tile.residual = call.residual + row + at
        run_tile(kernel, address)
        at += nbytes
    return at


@inlined
def _stage(row, at, span, nbytes, staged):
    """Copy bytes ``at..at + span`` of a row that has `nbytes`, zeros where it has none."""
    start = min(span, max(0, -at))
    stop = max(start, min(span, nbytes - at))
    clear(staged, start)
    copy(staged + start, row + at + start, stop - start)
    clear(staged + stop, span - stop)


@inlined
def _staged(call, tile, address, segments, scratch, image, row, start, stop):
    """Compute bytes ``start..stop`` of a row of results from copies of what they read."""
    nbytes = call.small_nbytes
    span = nbytes + (call.kernel[2] - 1) * tile.a_step
    residuals = scratch + nbytes
    tile.a = residuals + nbytes
    tile.c = scratch
    for at in range(start, stop, nbytes):
        first = at - call.low[2] * call.source_strides[3]
        for s in range(tile.count):
            there = image + segments[s].a_offset
            _stage(there, first, span, call.source_strides[2], tile.a + s * span)
        inside = min(nbytes, stop - at)
        if call.residual:
            copy(residuals, call.residual + row + at, inside)
            tile.residual = residuals
        run_tile(call.small, address)
        copy(call.out + row + at, scratch, inside)


@inlined
def _singly(call, tile, address, image, row, start, stop):
    """Compute bytes ``start..stop`` of a row of results a pixel at a time, by the taps it has."""
    count, pixel = tile.count, call.source_strides[3]
    for at in range(start, stop, pixel):
        first = at - call.low[2] * pixel
        tap = max(0, -(first // tile.a_step))
        end = min(call.kernel[2], (call.source_strides[2] - pixel - first) // tile.a_step + 1)
        tile.count = count if tap < end else 0
        tile.length = end - tap
        tile.a = image + first + tap * tile.a_step
        tile.b = call.packed + tap * call.block
        tile.c = call.out + row + at
        if call.residual:
            tile.residual = call.residual + row + at
        run_tile(call.single, address)
    tile.count, tile.length, tile.b = count, call.kernel[2], call.packed


def rowwise(call_address, thread):
    """Take pieces of work until there are none left."""
    call = entries(call_address, CALL)[0]
    address = call.scratch + thread * call.scratch_nbytes
    tile = entries(address, TILE)[0]
    most = call.kernel[0] * call.kernel[1]
    table = address + TILE_NBYTES
    segments = entries(table, SEGMENT)
    copied_table = table + most * SEGMENT_NBYTES
    copied = entries(copied_table, SEGMENT)
    scratch = copied_table + most * SEGMENT_NBYTES
    pixel, source_row, result_row = (
        call.source_strides[3],
        call.source_strides[2],
        call.result_strides[2],
    )
    tile.a_row = tile.b_step = tile.c_row = call.block
    tile.a_step = call.dilation[2] * pixel
    tile.length = call.kernel[2]
    tile.lanes = pixel // call.itemsize
    tile.accumulate = tile.residual = tile.c_half = 0
    tile.scale, tile.bias, tile.activation = call.scale, call.bias, call.activation
    tile.b = call.packed
    inner_start = max(0, call.low[2] * pixel)
    inner_stop = source_row + call.low[2] * pixel - (call.kernel[2] - 1) * tile.a_step
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            return
        for line in range(unit * call.chunk, min((unit + 1) * call.chunk, call.lines)):
            rest, part = divmod(line, call.parts)
            rest, y = divmod(rest, call.output[1])
            n, z = divmod(rest, call.output[0])
            tile.count = _enter(call, z, y, segments, copied)
            image = call.source + n * call.source_strides[0]
            row = n * call.result_strides[0] + z * call.result_strides[1] + y * result_row
            start, stop = part * call.part, min((part + 1) * call.part, result_row)
            first, last = start, stop
            if tile.count:
                first = min(stop, max(start, inner_start))
                last = max(first, min(stop, inner_stop))
            tile.segments = table
            reached = _straight(call, tile, address, image, row, first, last)
            if call.single:
                _singly(call, tile, address, image, row, start, first)
                _singly(call, tile, address, image, row, reached, stop)
            else:
                tile.segments = copied_table
                _staged(call, tile, address, segments, scratch, image, row, start, first)
                _staged(call, tile, address, segments, scratch, image, row, reached, stop)
