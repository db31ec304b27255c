"""The worker of the direct algorithm: tiles of results, straight from the source's memory.

A piece of work is some tiles of one job (a phase of each axis) times some panels of its packed
kernel; see `direct_places` for what a tile reads. Where some of its results lie outside of the
array, as the results of several phases together may, they are staged.
"""

from __future__ import annotations

from .direct_places import enter, locate
from .direct_records import CALL, JOB, PANEL, PLACE, PLACE_NBYTES, ROW, ROW_NBYTES
from .intrinsics import copy, entries, inlined, run_tile, take_next
from .tile import SEGMENT_NBYTES, TILE, TILE_NBYTES


@inlined
def _staged(call, panel):
    """Return the bytes between the rows, and the halves, of a staged tile."""
    step = call.result_step[2] * call.result_strides[3]
    if panel.nbytes == step:
        return step, call.rows * step
    return call.b_step, call.half_nbytes


@inlined
def _copy_inside(call, panel, place, staged, array, into_array):
    """Copy the part of a staged tile that lies inside of an array, to it or from it."""
    end = call.result_size[2] * call.result_strides[3]
    step = call.result_step[2] * call.result_strides[3]
    staged_step, half_nbytes = _staged(call, panel)
    rows, nbytes = call.rows, panel.nbytes
    if nbytes == step:  # without gaps between them
        rows, nbytes = 1, rows * step
    for half in range(call.halves):
        if place.row + half < 0 or place.row + half >= call.result_size[1]:
            continue
        for row in range(rows):
            at = place.position + row * step + panel.c_offset
            start, stop = max(0, -at), min(nbytes, end - at)
            if stop > start:
                here = staged + row * staged_step + half * half_nbytes + start
                there = array + place.c + half * call.result_strides[2]
                there += row * step + panel.c_offset + start
                if into_array:
                    copy(there, here, stop - start)
                else:
                    copy(here, there, stop - start)


@inlined
def _run_cut(call, panel, place, tile, tile_address, staged):
    """Run a tile of which some results lie outside: into scratch, and copy what lies inside."""
    if call.residual:
        residuals = staged + call.rows * call.b_step
        _copy_inside(call, panel, place, residuals, call.residual, False)
        tile.residual = residuals
    tile.c = staged
    tile.c_row, tile.c_half = _staged(call, panel)
    run_tile(panel.kernel, tile_address)
    _copy_inside(call, panel, place, staged, call.out, True)


@inlined
def _run_panel(call, job, panel, places, low, high, tile, tile_address, staged):
    """Run the tiles of some places by a panel."""
    b = call.packed + job.packed + panel.b_offset
    c_row = call.result_step[2] * call.result_strides[3]
    tile.lanes = panel.lanes
    tile.scale = call.scale + panel.c_offset if call.scale else 0
    tile.bias = call.bias + panel.c_offset if call.bias else 0
    for i in range(low, high):
        place = places[i]
        tile.a = place.a + panel.a_offset
        tile.b = b + place.b
        tile.segments = place.segments
        tile.count = place.count
        tile.length = place.length
        if place.cut:
            _run_cut(call, panel, place, tile, tile_address, staged)
        else:
            at = place.c + panel.c_offset
            tile.c = call.out + at
            tile.c_row = c_row
            tile.c_half = call.result_strides[2]
            tile.residual = call.residual + at if call.residual else 0
            run_tile(panel.kernel, tile_address)


def direct(call_address, thread):
    """Take pieces of work until there are none left."""
    call = entries(call_address, CALL)[0]
    jobs = entries(call.jobs, JOB)
    panels = entries(call.panels, PANEL)
    scratch = call.scratch + thread * call.scratch_nbytes
    tile_address = scratch
    tile = entries(tile_address, TILE)[0]
    scratch += TILE_NBYTES
    row = entries(scratch, ROW)[0]
    scratch += ROW_NBYTES
    places = entries(scratch, PLACE)
    scratch += call.chunk * PLACE_NBYTES
    tables = scratch
    table_nbytes = call.most_segments * SEGMENT_NBYTES
    scratch += call.chunk * table_nbytes
    staged = scratch
    slots = scratch + 2 * call.rows * call.b_step
    tile.b_step = call.b_step
    tile.accumulate = 0
    tile.residual = 0
    tile.activation = call.activation
    tile.a_row = call.source_step[2] * call.source_strides[3]
    tiles = call.grid[0] * call.grid[1] * call.grid[2] * call.grid[3] * call.strip
    while True:
        unit = take_next(call.counter)
        if unit >= call.units:
            return
        unit, job_index = divmod(unit, call.job_count)
        group, chunk = divmod(unit, call.chunks)
        job = jobs[job_index]
        tile.a_step = job.space[2] * call.source_strides[3] if call.channelwise else call.itemsize
        first = job.panel + group * call.group
        found = 0
        index = chunk * call.chunk
        rest, x = divmod(index, call.strip)
        rest, y = divmod(rest, call.grid[2])
        rest, strip = divmod(rest, call.grid[3])
        n, z = divmod(rest, call.grid[1])
        enter(call, job, n, z, y, row)
        for _ in range(index, min(index + call.chunk, tiles)):
            x_tile = strip * call.strip + x
            if row.exists and x_tile * call.rows < job.length[2]:
                table, slot = tables + found * table_nbytes, slots + found * call.slot_nbytes
                locate(call, job, row, x_tile, places[found], table, slot)
                found += 1
            x += 1
            if x < call.strip:
                continue
            x = 0
            y += 1
            if y == call.grid[2]:
                y = 0
                strip += 1
            if strip == call.grid[3]:
                strip = 0
                z += 1
            if z == call.grid[1]:
                z = 0
                n += 1
            enter(call, job, n, z, y, row)
        for low in range(0, found, call.abreast):
            high = min(low + call.abreast, found)
            for p in range(first, min(first + call.group, job.panel_stop)):
                _run_panel(call, job, panels[p], places, low, high, tile, tile_address, staged)
