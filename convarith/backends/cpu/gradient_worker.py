"""The worker of the kernel gradient: tiles of taps and channels by channels of g, over pixels.

A piece of work is some panels of g's channels times some tiles of rows. A row is a channel of the
input under one tap, and is summed over just the pixels whose window has that tap inside of the
input: nothing is padded. Where both have few channels, the two may change places (*swapped*):
rows are channels of g, lanes the channels of all taps of the last axis, which lie side by side.
The tiles of one row of taps then go to scratch, and transposed to the result.

The sum runs in chunks of output rows, or of a part of a long one, whose partial sums are added up
in order; the chunks are the geometry's, so the bits depend on nothing else. Outputs at the *edges*
of the last axis, where not all taps are inside, are few a row: they take longer chunks, at the
end. Where the result is small and the operands are large, a piece is some chunks as well, a *part*
with a result of its own.

A pixel of many channels is a step in memory that leads to few sets of the first-level cache, or to
a page of its own. Of such operands *strips* are copied first, the channels that a piece needs: of
g once a chunk, of the input once a tap.
"""

from __future__ import annotations

import numpy as np

from .gradient_records import BLOCK, CALL, PANEL, ROWS, SPAN
from .intrinsics import copy, entries, inlined, move, run_tile, take_next
from .native import PIECE
from .tile import SEGMENT, SEGMENT_NBYTES, TILE, TILE_NBYTES


@inlined
def _outputs_of(call, axis, k):
    """Return the outputs whose tap k lies inside the input; see axis.Axis.outputs_of."""
    offset = k * call.dilation[axis] - call.low[axis]
    start = max(0, -(offset // call.step[axis]))
    stop = min(call.output[axis], (call.size[axis] - 1 - offset) // call.step[axis] + 1)
    return start, max(start, stop)


@inlined
def _find_segments(call, rows, chunk, start, length, g_strip, b_step, segments):
    """Fill in a segment for each output row that the tap reads; return how many.

    `chunk` are its first row, the row after its last, and its first and last columns.
    """
    if length <= 0:
        return 0
    z_start, z_stop = _outputs_of(call, 0, rows.tap[0])
    y_start, y_stop = _outputs_of(call, 1, rows.tap[1])
    strides = call.x_strides
    first, stop, left, right = chunk
    x = start * call.step[2] + rows.tap[2] * call.dilation[2] - call.low[2]
    count = 0
    for row in range(first, stop):
        rest, y = divmod(row, call.output[1])
        n, z = divmod(rest, call.output[0])
        if z < z_start or z >= z_stop or y < y_start or y >= y_stop:
            continue
        at = n * strides[0] + x * strides[3]
        at += (z * call.step[0] + rows.tap[0] * call.dilation[0] - call.low[0]) * strides[1]
        at += (y * call.step[1] + rows.tap[1] * call.dilation[1] - call.low[1]) * strides[2]
        if call.g_pitch:
            from_g = g_strip - call.g + ((row - first) * (right - left) + start - left) * b_step
        else:
            from_g = row * call.g_strides[2] + start * call.g_strides[3]
        segments[count].a_offset, segments[count].b_offset = at, from_g
        if call.swapped:
            segments[count].a_offset, segments[count].b_offset = from_g, at
        count += 1
    return count


@inlined
def _copy_strip(target, pitch, source, step, pixels, nbytes):
    """Copy some channels of pixels that are `step` apart to others that are `pitch` apart."""
    whole = nbytes // PIECE * PIECE
    for _ in range(pixels):
        for at in range(0, whole, PIECE):
            move(target + at, source + at, PIECE)
        if nbytes > whole:
            copy(target + whole, source + whole, nbytes - whole)
        target += pitch
        source += step


@inlined
def _copy_segments(call, rows, channels, segments, count, length, target):
    """Copy a strip of the pixels that segments read of x, which then read the copy."""
    step = call.step[2] * call.x_strides[3]
    for s in range(count):
        source = call.x + channels + rows.strip + segments[s].a_offset
        segments[s].a_offset = s * length * call.x_pitch
        at = target + segments[s].a_offset
        _copy_strip(at, call.x_pitch, source, step, length, rows.strip_nbytes)


@inlined
def _transpose(source, target, rows, columns, kind):
    """Copy a matrix to its transpose, as numbers of some kind."""
    from_, to = entries(source, kind), entries(target, kind)
    for j in range(columns):
        for i in range(rows):
            to[j * rows + i] = from_[i * columns + j]


@inlined
def _rows_of_edges(call, part_start, part_stop):
    """Return the first row of outputs whose edges are a part's, and the one behind the last."""
    across = -(-call.output[2] // call.width)
    begin, end = -(-part_start // across) * call.chunk, -(-part_stop // across) * call.chunk
    return begin, max(begin, min(end, call.output_rows))


@inlined
def _chunk(call, part_start, part_stop, place):
    """Return the rows and columns of a chunk, and whether it is one of the edges."""
    if place < part_stop:
        down, across = divmod(place, -(-call.output[2] // call.width))
        first, left = down * call.chunk, across * call.width
        stop = min(first + call.chunk, call.output_rows)
        return (first, stop, left, min(left + call.width, call.output[2])), 0
    begin, end = _rows_of_edges(call, part_start, part_stop)
    first = begin + (place - part_stop) * call.edge_chunk
    return (first, min(first + call.edge_chunk, end), 0, call.output[2]), 1


@inlined
def _edge_chunks(call, part_start, part_stop):
    """Return how many chunks of the edges a part has."""
    if call.edge_chunk == 0:
        return 0
    begin, end = _rows_of_edges(call, part_start, part_stop)
    return -(-(end - begin) // call.edge_chunk)


def gradient(call_address, thread):
    """Take pieces of work until there are none left."""
    call = entries(call_address, CALL)[0]
    all_rows = entries(call.rows, ROWS)
    blocks = entries(call.blocks, BLOCK)
    panels = entries(call.panels, PANEL)
    spans = entries(call.spans, SPAN)
    tile_address = call.scratch + thread * call.scratch_nbytes
    tile = entries(tile_address, TILE)[0]
    table = tile_address + TILE_NBYTES
    most_segments = max(call.chunk, call.edge_chunk)
    segments = entries(table, SEGMENT)
    x_strip = tile_address + -(-(TILE_NBYTES + most_segments * SEGMENT_NBYTES) // 64) * 64
    g_strip = x_strip + call.chunk * call.width * call.x_pitch
    result = g_strip + call.chunk * call.width * call.g_pitch
    tile.segments = table
    tile.a_row = call.a_row
    tile.a_step = call.step[2] * call.x_strides[3]
    tile.b_step = call.g_pitch or call.g_strides[3]
    if call.swapped:
        tile.a_step, tile.b_step = call.g_strides[3], call.step[2] * call.x_strides[3]
    if call.x_pitch:
        tile.a_step = call.x_pitch
    tile.c_row = call.c_row
    tile.ahead = call.ahead
    tile.scale = 0
    tile.bias = 0
    tile.residual = 0
    tile.activation = 0
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            return
        rest, b = divmod(unit, call.block_count)
        part, s = divmod(rest, call.span_count)
        span, block = spans[s], blocks[b]
        out = call.out + part * call.nbytes
        results = result if call.swapped else out
        part_start = call.chunks * part // call.parts
        part_stop = call.chunks * (part + 1) // call.parts
        channels = panels[span.first].x_offset  # the same for all of a span
        strip = panels[span.first].g_offset
        strip_nbytes = panels[span.stop - 1].g_offset + panels[span.stop - 1].nbytes - strip
        for place in range(part_start, part_stop + _edge_chunks(call, part_start, part_stop)):
            chunk, edge = _chunk(call, part_start, part_stop, place)
            first, stop, left, right = chunk
            if call.g_pitch and not edge:
                for row in range(first, stop):
                    source = call.g + row * call.g_strides[2] + left * call.g_strides[3] + strip
                    target = g_strip + (row - first) * (right - left) * call.g_pitch
                    _copy_strip(
                        target, call.g_pitch, source, call.g_strides[3], right - left, strip_nbytes
                    )
            for r in range(block.first, block.stop):
                rows = all_rows[r]
                if rows.edge != edge:
                    continue
                start = max(rows.start, left)
                tile.length = min(rows.stop, right) - start
                if r == block.first or not rows.again:
                    tile.count = _find_segments(
                        call, rows, chunk, start, tile.length, g_strip, tile.b_step, segments
                    )
                    if call.x_pitch:
                        _copy_segments(
                            call, rows, channels, segments, tile.count, tile.length, x_strip
                        )
                tile.accumulate = place - part_start + rows.adds
                for p in range(span.first, span.stop):
                    panel = panels[p]
                    x = (x_strip if call.x_pitch else call.x + channels) + rows.x_offset
                    g = call.g + panel.g_offset - (strip if call.g_pitch else 0)
                    if call.swapped:
                        tile.a, tile.b, tile.lanes = g, x, rows.lanes
                    else:
                        tile.a, tile.b, tile.lanes = x, g, panel.lanes
                    tile.c = results + rows.c_offset + panel.c_offset
                    kernel = rows.kernel_last if panel.last else rows.kernel
                    if call.swapped and p == span.stop - 1:
                        kernel = rows.asking
                    run_tile(kernel, tile_address)
        if call.swapped:
            there = out + block.out
            if call.itemsize == 4:
                _transpose(result, there, call.swapped, call.taps, np.int32)
            else:
                _transpose(result, there, call.swapped, call.taps, np.int64)
