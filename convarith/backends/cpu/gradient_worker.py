"""The worker of the kernel gradient: tiles of taps and channels by channels of g, over pixels.

A piece of work is one panel of g's channels times some tiles of rows. A row is a channel of the
input under one tap, and is summed over just the pixels whose window has that tap inside of the
input: nothing is padded. Where g has few channels and the input's are few as well, the two change
places: rows are channels of g, lanes the channels of several taps. The sum runs in chunks of
output rows, whose partial sums are added up in order; the chunks are the geometry's, so the bits
depend on nothing else.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import carray, njit

from . import compiled
from .native import clear, copy, copy_line, pointer, run_tile, take_next
from .tile import SEGMENT, TILE

_int = np.int64

#: The rows of one tile: under the tap `(z, y, x)`, or the taps from it on along the last axis.
ROWS = np.dtype(
    [
        ("tap", _int, 3),
        *((name, _int) for name in ("start", "stop")),  # outputs along the last axis
        *((name, _int) for name in ("a_offset", "c_offset")),  # in bytes
        *((name, _int) for name in ("kernel", "kernel_last")),  # for a full panel, for the last
        ("adds", _int),  # whether other rows before it have written the same results
        ("again", _int),  # whether the rows before it have the same taps and outputs
        ("lanes", _int),  # where the two have changed places
    ]
)
#: Rows that one thread does, one after the other: all that add to the same results.
BLOCK = np.dtype([("first", _int), ("stop", _int)])
#: As many of g's channels as a tile has lanes.
PANEL = np.dtype(
    [
        (name, _int)
        for name in ("a_offset", "b_offset", "c_offset", "last", "lanes", "nbytes", "width")
    ]
)
#: What a worker is called with. Strides are in bytes, over (n, z, y, x).
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "x", "g", "out")),
        ("size", _int, 3),
        ("output", _int, 3),
        ("step", _int, 3),
        ("dilation", _int, 3),
        ("low", _int, 3),
        ("x_strides", _int, 4),
        ("g_strides", _int, 4),
        *((name, _int) for name in ("rows", "row_count", "panels", "panel_count")),
        *((name, _int) for name in ("blocks", "block_count", "units")),
        *((name, _int) for name in ("chunk", "output_rows")),  # of rows (n, z, y) of the output
        *((name, _int) for name in ("a_row", "c_row", "packs", "swapped")),
        *((name, _int) for name in ("scratch", "scratch_nbytes")),
    ]
)
_TILE, _SEGMENT = TILE.itemsize, SEGMENT.itemsize


def scratch_nbytes(chunk: int, packed: int) -> int:
    """Return the scratch of one thread: tile, segments, a packed panel."""
    return -(-(_TILE + chunk * _SEGMENT + packed) // 64) * 64 + 64


@functools.cache
def worker() -> int:
    """Return the address of the worker, compiled on first use."""
    return compiled.address(compiled.WORKER, gradient)


@njit
def _outputs_of(call, axis, k):
    """Return the outputs whose tap k lies inside the input; see axis.Axis.outputs_of."""
    offset = k * call.dilation[axis] - call.low[axis]
    start = max(0, -(offset // call.step[axis]))
    stop = min(call.output[axis], (call.size[axis] - 1 - offset) // call.step[axis] + 1)
    return start, max(start, stop)


@njit
def _find_segments(call, rows, first, stop, packed, b_step, segments):
    """Fill in a segment for each output row that the tap reads; return how many."""
    if rows.stop <= rows.start:
        return 0
    z_start, z_stop = _outputs_of(call, 0, rows.tap[0])
    y_start, y_stop = _outputs_of(call, 1, rows.tap[1])
    strides = call.x_strides
    x = rows.start * call.step[2] + rows.tap[2] * call.dilation[2] - call.low[2]
    count = 0
    for row in range(first, stop):
        rest, y = divmod(row, call.output[1])
        n, z = divmod(rest, call.output[0])
        if z < z_start or z >= z_stop or y < y_start or y >= y_stop:
            continue
        at = n * strides[0] + x * strides[3]
        at += (z * call.step[0] + rows.tap[0] * call.dilation[0] - call.low[0]) * strides[1]
        at += (y * call.step[1] + rows.tap[1] * call.dilation[1] - call.low[1]) * strides[2]
        if call.packs:
            from_g = packed - call.g + ((row - first) * call.output[2] + rows.start) * b_step
        else:
            from_g = row * call.g_strides[2] + rows.start * call.g_strides[3]
        segments[count].a_offset, segments[count].b_offset = at, from_g
        if call.swapped:
            segments[count].a_offset, segments[count].b_offset = from_g, at
        count += 1
    return count


@njit
def _pack(call, panel, first, stop, target):
    """Copy a panel of g's channels of some output rows, zeros in the lanes that it has not."""
    at = call.g + first * call.g_strides[2] + panel.b_offset
    lines = panel.nbytes // 64
    rest, missing = panel.nbytes - lines * 64, panel.width - panel.nbytes
    for _ in range((stop - first) * call.output[2]):
        for line in range(lines):
            copy_line(target + line * 64, at + line * 64)
        if rest:
            copy(target + lines * 64, at + lines * 64, rest)
        if missing:
            clear(target + panel.nbytes, missing)
        target += panel.width
        at += call.g_strides[3]


def gradient(call_address, thread):
    """Take pieces of work until there are none left."""
    call = carray(pointer(call_address), 1, CALL)[0]
    all_rows = carray(pointer(call.rows), call.row_count, ROWS)
    blocks = carray(pointer(call.blocks), call.block_count, BLOCK)
    panels = carray(pointer(call.panels), call.panel_count, PANEL)
    tile_address = call.scratch + thread * call.scratch_nbytes
    tile = carray(pointer(tile_address), 1, TILE)[0]
    table = tile_address + _TILE
    segments = carray(pointer(table), call.chunk, SEGMENT)
    packed = tile_address + -(-(_TILE + call.chunk * _SEGMENT) // 64) * 64
    tile.segments = table
    tile.a_row = call.a_row
    tile.a_step = call.step[2] * call.x_strides[3]
    if call.swapped:
        tile.a_step = call.g_strides[3]
    tile.c_row = call.c_row
    tile.scale = 0
    tile.bias = 0
    tile.residual = 0
    tile.activation = 0
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            return
        p, b = divmod(unit, call.block_count)
        panel, block = panels[p], blocks[b]
        tile.lanes = panel.lanes
        tile.b_step = panel.width if call.packs else call.g_strides[3]
        if call.swapped:
            tile.b_step = call.step[2] * call.x_strides[3]
        for first in range(0, call.output_rows, call.chunk):
            stop = min(first + call.chunk, call.output_rows)
            if call.packs:
                _pack(call, panel, first, stop, packed)
            for r in range(block.first, block.stop):
                rows = all_rows[r]
                if r == block.first or not rows.again:
                    tile.count = _find_segments(
                        call, rows, first, stop, packed, tile.b_step, segments
                    )
                tile.length = rows.stop - rows.start
                tile.a = call.x + rows.a_offset + panel.a_offset
                tile.b = call.g if call.packs else call.g + panel.b_offset
                if call.swapped:
                    tile.a, tile.b = call.g, call.x
                    tile.lanes = rows.lanes
                tile.c = call.out + rows.c_offset + panel.c_offset
                tile.accumulate = first + rows.adds
                run_tile(rows.kernel_last if panel.last else rows.kernel, tile_address)
