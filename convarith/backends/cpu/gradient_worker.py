"""The worker of the kernel gradient: tiles of taps and channels by channels of g, over pixels.

A piece of work is one panel of g's channels times some tiles of rows. A row is a channel of the
input under one tap; where channels are few and lie beside those of the next tap, rows run on
over the taps of the last axis, and input rows that the windows leave are copied with zeros around
them. The sum over pixels runs in chunks of output rows, whose partial sums are added up in
order; the chunks are the geometry's, so the bits depend on nothing else.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import carray, njit

from . import compiled
from .native import clear, copy, pointer, run_tile, take_next
from .tile import SEGMENT, TILE

_int = np.int64

#: A tile's rows: channels of one tap, or of all taps of the last axis from `tap[2]` on.
ROWS = np.dtype(
    [
        ("tap", _int, 3),
        *((name, _int) for name in ("a_offset", "c_offset")),  # in bytes
        *((name, _int) for name in ("kernel", "kernel_last")),  # for a full panel, for the last
    ]
)
PANEL = np.dtype(
    [
        (name, _int)
        for name in ("a_offset", "b_offset", "c_offset", "last", "lanes", "nbytes", "width")
    ]
)
#: Strides are in bytes, over (n, z, y, x), of x and g.
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
        *((name, _int) for name in ("block", "blocks", "units")),
        *((name, _int) for name in ("chunk", "output_rows")),  # of rows (n, z, y) of the output
        *((name, _int) for name in ("itemsize", "c_row", "joined", "padded_nbytes", "packs")),
        *((name, _int) for name in ("scratch", "scratch_nbytes", "packed_nbytes")),
    ]
)
_TILE, _SEGMENT = TILE.itemsize, SEGMENT.itemsize


def scratch_nbytes(chunk: int, packed: int, padded: int) -> int:
    """Return the scratch of one thread: tile, segments, a packed panel, padded rows."""
    return -(-(_TILE + chunk * (_SEGMENT + padded) + packed) // 64) * 64


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
def _find_segments(call, rows, first, stop, b_step, b_origin, segments, padded):
    """Fill in a segment for each output row that the tap reads; return how many, how long."""
    z_start, z_stop = _outputs_of(call, 0, rows.tap[0])
    y_start, y_stop = _outputs_of(call, 1, rows.tap[1])
    x_start, x_stop = _outputs_of(call, 2, rows.tap[2])
    if call.joined:
        x_start, x_stop = 0, call.output[2]
    length = x_stop - x_start
    if length == 0:
        return 0, 0
    strides = call.x_strides
    x_first = x_start * call.step[2] + rows.tap[2] * call.dilation[2] - call.low[2]
    count = 0
    for row in range(first, stop):
        rest, y = divmod(row, call.output[1])
        n, z = divmod(rest, call.output[0])
        if z < z_start or z >= z_stop or y < y_start or y >= y_stop:
            continue
        at = n * strides[0]
        at += (z * call.step[0] + rows.tap[0] * call.dilation[0] - call.low[0]) * strides[1]
        at += (y * call.step[1] + rows.tap[1] * call.dilation[1] - call.low[1]) * strides[2]
        if call.padded_nbytes:
            slot = padded + count * call.padded_nbytes
            before = min(call.low[2] * strides[3], call.padded_nbytes)
            start = max(-before, 0)
            before = max(before, 0)
            inside = min(call.size[2] * strides[3] - start, call.padded_nbytes - before)
            inside = max(inside, 0)
            clear(slot, before)
            copy(slot + before, call.x + at + start, inside)
            clear(slot + before + inside, call.padded_nbytes - before - inside)
            segments[count].a_offset = slot - call.x
        else:
            segments[count].a_offset = at + x_first * strides[3]
        if call.packs:
            segments[count].b_offset = b_origin - call.g
            segments[count].b_offset += ((row - first) * call.output[2] + x_start) * b_step
        else:
            segments[count].b_offset = row * call.g_strides[2] + x_start * call.g_strides[3]
        count += 1
    return count, length


@njit
def _pack(call, panel, first, stop, target):
    """Copy a panel of g's channels of some output rows, zeros in the lanes that it has not."""
    at = call.g + first * call.g_strides[2] + panel.b_offset
    for _ in range((stop - first) * call.output[2]):
        copy(target, at, panel.nbytes)
        clear(target + panel.nbytes, panel.width - panel.nbytes)
        target += panel.width
        at += call.g_strides[3]


def gradient(call_address, thread):
    """Take pieces of work until there are none left."""
    call = carray(pointer(call_address), 1, CALL)[0]
    all_rows = carray(pointer(call.rows), call.row_count, ROWS)
    panels = carray(pointer(call.panels), call.panel_count, PANEL)
    scratch = call.scratch + thread * call.scratch_nbytes
    tile_address = scratch
    tile = carray(pointer(tile_address), 1, TILE)[0]
    table = scratch + _TILE
    segments = carray(pointer(table), call.chunk, SEGMENT)
    packed = table + call.chunk * _SEGMENT
    padded = packed + call.packed_nbytes
    tile.segments = table
    tile.a_row = call.itemsize
    tile.a_step = call.step[2] * call.x_strides[3]
    tile.c_row = call.c_row
    tile.scale = 0
    tile.bias = 0
    tile.residual = 0
    tile.activation = 0
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            return
        p, block = divmod(unit, call.blocks)
        panel = panels[p]
        tile.lanes = panel.lanes
        tile.b_step = panel.width if call.packs else call.g_strides[3]
        for first in range(0, call.output_rows, call.chunk):
            stop = min(first + call.chunk, call.output_rows)
            if call.packs:
                _pack(call, panel, first, stop, packed)
            tile.accumulate = first
            before = -1
            for r in range(block * call.block, min((block + 1) * call.block, call.row_count)):
                rows = all_rows[r]
                tap = ((rows.tap[0] << 20) + rows.tap[1] << 20) + rows.tap[2]
                if tap != before:
                    tile.count, tile.length = _find_segments(
                        call, rows, first, stop, tile.b_step, packed, segments, padded
                    )
                    before = tap
                tile.a = call.x + rows.a_offset + panel.a_offset
                tile.b = call.g if call.packs else call.g + panel.b_offset
                tile.c = call.out + rows.c_offset + panel.c_offset
                run_tile(rows.kernel_last if panel.last else rows.kernel, tile_address)
