"""The worker of a depthwise kernel gradient: windows over strips, and the sum of their chunks.

A *strip* is a few rows of g, or a part of them, and all channels. A *chunk* is some strips that
follow each other; its sums are kept by themselves, as whole vectors, and whoever finishes the last
chunk adds them up in order. Chunks are the geometry's, so the bits do not depend on threads.
"""

from __future__ import annotations

import numpy as np

from .depthwise_gradient_kernel import SUMS
from .depthwise_gradient_records import CALL, COLUMNS, SCRATCH, TAPS
from .intrinsics import clear, entries, inlined, run_tile, take_next
from .tile import SEGMENT, TILE, TILE_NBYTES
from .window import GROUP


@inlined
def _inside(call, y, first, height):
    """Return the range of `height` taps from `first` on whose line at output y is in x."""
    at = y * call.step[1] - call.low[1] + first * call.dilation[1]
    start = max(0, -(at // call.dilation[1]))
    stop = min(height, (call.size[1] - 1 - at) // call.dilation[1] + 1)
    return start, stop


@inlined
def _add_up(call, taps, partials, scratch):
    """Add the sums of all chunks up, in order, as a tile: ``1*sums``."""
    tile = entries(scratch, TILE)[0]
    table = scratch + TILE_NBYTES
    segment = entries(table, SEGMENT)[0]
    segment.a_offset = 0
    segment.b_offset = 0
    tile.a, tile.a_row, tile.a_step = call.one, 0, 0
    tile.b_step = taps * call.sums_tap
    tile.segments, tile.count, tile.length = table, 1, call.chunks
    tile.c_row = 0
    tile.lanes = call.lanes
    tile.accumulate = 0
    tile.scale = 0
    tile.bias = 0
    tile.residual = 0
    tile.activation = 0
    for tap in range(taps):
        for at in range(0, call.pixel, call.added):
            tile.b = partials + tap * call.sums_tap + at
            tile.c = call.out + tap * call.pixel + at
            run_tile(call.adds if at + call.added <= call.pixel else call.adds_last, scratch)


def depthwise_gradient(call_address, thread):
    """Take pieces of work until there are none left."""
    call = entries(call_address, CALL)[0]
    columns = entries(call.columns, COLUMNS)
    taps = entries(call.taps, TAPS)
    groups = entries(call.groups, GROUP)
    kernels = entries(call.kernels, np.int64)
    scratch = call.scratch + thread * SCRATCH
    partials = call.scratch + call.scratch_nbytes  # of all threads
    window = entries(scratch, SUMS)[0]
    x_strides, g_strides = call.x_strides, call.g_strides
    window.x_line = call.line_step * x_strides[2]
    window.x_line_class = call.dilation[1] * x_strides[2]
    window.x_step, window.x_class, window.g_step = call.x_step, call.x_class, call.g_step
    window.g_row = call.apart * g_strides[2]
    window.c_row, window.c_tap = call.kernel[2] * call.sums_tap, call.sums_tap
    all_taps = call.kernel[0] * call.kernel[1] * call.kernel[2]
    per_strip = call.column_count // call.parts
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            return
        # Threads begin far from each other, and each goes on where it has read before.
        unit, which = divmod(unit, call.group_count)
        unit, part = divmod(unit, call.runs)
        chunk = part * (call.units // (call.runs * call.group_count)) + unit
        if chunk >= call.chunks:
            continue
        group = groups[which]
        channels, panels = group.first * call.panel, group.panels * call.panel
        sums = partials + chunk * all_taps * call.sums_tap + channels
        for tap in range(all_taps):
            clear(sums + tap * call.sums_tap, panels + (group.lanes > 0) * call.panel)
        for strip in range(chunk * call.chunk, min((chunk + 1) * call.chunk, call.strips)):
            rest, part = divmod(strip, call.parts)
            rest, rows = divmod(rest, call.row_groups)
            n, z = divmod(rest, call.output[0])
            rows, first = divmod(rows, call.apart)
            first += rows * call.apart * call.rows
            count = min(call.rows, (call.output[1] - 1 - first) // call.apart + 1)
            for t_z in range(call.kernel[0]):
                x_z = z * call.step[0] + t_z * call.dilation[0] - call.low[0]
                if x_z < 0 or x_z >= call.size[0]:
                    continue
                x_plane = call.x + n * x_strides[0] + x_z * x_strides[1]
                g_plane = call.g + n * g_strides[0] + z * g_strides[1]
                for t in range(call.tap_count):
                    ky, height = taps[t].first, taps[t].height
                    start, _ = _inside(call, first, ky, height)
                    _, stop = _inside(call, first + (count - 1) * call.apart, ky, height)
                    several = count == call.rows and start == 0 and stop == height
                    for j in range(1 if several else count):
                        y = first + j * call.apart
                        start, stop = _inside(call, y, ky, height)
                        if start >= stop:
                            continue
                        x_y = y * call.step[1] - call.low[1] + (ky + start) * call.dilation[1]
                        row_of_taps = t_z * call.kernel[1] + ky + start
                        for k in range(part * per_strip, (part + 1) * per_strip):
                            here = columns[k]
                            window.range = here.range
                            x = x_plane + x_y * x_strides[2] + here.x_offset + channels
                            g = g_plane + y * g_strides[2] + here.g_offset + channels
                            c = sums + row_of_taps * window.c_row + here.c_offset
                            at = here.kernels + 4 * (stop - start) + 2 * several
                            if group.panels:
                                window.panels = group.panels
                                window.x, window.g, window.c = x, g, c
                                run_tile(kernels[at], scratch)
                            if group.lanes:
                                window.panels, window.lanes = 1, group.lanes
                                window.x, window.g, window.c = x + panels, g + panels, c + panels
                                run_tile(kernels[at + 1], scratch)
        if take_next(call.counter + 8) == call.chunks * call.group_count - 1:
            _add_up(call, all_taps, partials, scratch)
