"""The worker of the direct algorithm: tiles of results, straight from the source's memory.

A piece of work is some tiles of one job (a phase of each axis) times some panels of its packed
kernel. A tile is a run of results along the last axis. It reads its windows where they lie; only
where a window leaves the source along the last axis it is copied with zeros around it, and along
the other axes what lies outside is skipped. A tile of one row is never copied: it skips along the
last axis, too.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import carray, njit

from . import compiled
from .native import clear, copy, pointer, run_tile, take_next
from .tile import SEGMENT, TILE

_int = np.int64

#: One phase of each axis (z, y, x); see phases.Phase.
JOB = np.dtype(
    [
        *((name, _int, 3) for name in ("start", "length", "first", "space", "taps")),
        ("packed", _int),  # bytes from the packed kernel's start
        ("columns", _int),  # bytes that a row of a tile writes, all panels together
        ("panel", _int),
        ("panel_stop", _int),
    ]
)
#: As many columns as a tile has lanes.
PANEL = np.dtype(
    [
        (name, _int)
        for name in (
            *("a_offset", "b_offset", "c_offset"),  # bytes from the source, the job's kernel, out
            "kernel",  # address of the tile kernel
            "lanes",
            "nbytes",  # of the lanes that are stored
        )
    ]
)
#: What a worker is called with. Strides are in bytes, over (n, z, y, x).
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "source", "packed", "out")),
        *((name, _int) for name in ("scale", "bias", "residual", "activation")),
        ("source_size", _int, 3),
        ("source_strides", _int, 4),
        ("source_step", _int, 3),
        ("result_size", _int, 3),
        ("result_strides", _int, 4),
        ("result_step", _int, 3),
        ("grid", _int, 4),  # (n, z, y, strips of tiles along x), enough for every job
        ("strip", _int),
        *((name, _int) for name in ("jobs", "job_count", "panels", "panel_count")),
        *(
            (name, _int)
            for name in ("rows", "itemsize", "depth", "b_step", "joined", "channelwise")
        ),
        *((name, _int) for name in ("halves", "half_nbytes")),  # rows of results a tile has
        *((name, _int) for name in ("chunk", "chunks", "group", "units")),
        *((name, _int) for name in ("scratch", "scratch_nbytes", "most_segments", "slot_nbytes")),
    ]
)
#: Where one tile lies.
PLACE = np.dtype(
    [
        (name, _int)
        for name in (
            *("a", "a_row", "segments", "count", "length"),
            "c",
            "row",  # along y in out
            "position",  # of its first result, in bytes from the start of that row
            "cut",  # whether some of its results lie outside of out
        )
    ]
)

_TILE, _PLACE, _SEGMENT = TILE.itemsize, PLACE.itemsize, SEGMENT.itemsize


def scratch_nbytes(rows: int, panel_nbytes: int, chunk: int, segments: int, slot: int) -> int:
    """Return the scratch of one thread: tile, places, segments, two staged tiles, slots."""
    each = _PLACE + segments * _SEGMENT + slot
    return -(-(_TILE + chunk * each + 2 * rows * panel_nbytes) // 64) * 64


@functools.cache
def worker() -> int:
    """Return the address of the worker, compiled on first use."""
    return compiled.address(compiled.WORKER, direct)


@njit
def inside(first, space, taps, size):
    """Return the range of taps whose source ``first + t*space`` lies in ``[0, size)``."""
    if first >= 0 and first + (taps - 1) * space < size:
        return 0, taps  # without dividing
    start = min(max(-(first // space), 0), taps)
    stop = min((size - 1 - first) // space + 1, taps) if size > first else 0
    return start, max(start, stop)


@njit
def _locate(call, job, n, z, y, x_tile, place, segments, slot):
    """Fill in where a tile of a job lies; return whether there is one."""
    rows = call.rows
    u = x_tile * rows
    if z >= job.length[0] or y >= job.length[1] or u >= job.length[2]:
        return False
    u = min(u, job.length[2] - rows)  # the last tile of a row overlaps the one before
    source, result = call.source_strides, call.result_strides
    z_first = job.first[0] + z * call.source_step[0]
    y_first = job.first[1] + y * call.source_step[1]
    x_first = job.first[2] + u * call.source_step[2]
    z_start, z_stop = inside(z_first, job.space[0], job.taps[0], call.source_size[0])
    y_start, y_stop = inside(y_first, job.space[1], job.taps[1], call.source_size[1])
    x_start, x_stop = 0, job.taps[2]
    width = (rows - 1) * call.source_step[2] + (job.taps[2] - 1) * job.space[2] + 1
    copied = False
    if job.taps[2] == 0:
        z_stop = z_start  # nothing reaches these results
    elif x_first < 0 or x_first + width > call.source_size[2]:
        if rows == 1:
            x_start, x_stop = inside(x_first, job.space[2], job.taps[2], call.source_size[2])
        else:
            copied = True
    pixel = source[3]
    origin = call.source + n * source[0] + x_first * pixel
    tap_nbytes = call.depth * call.b_step
    count = 0
    for t_z in range(z_start, z_stop):
        for t_y in range(y_start, y_stop):
            at = (z_first + t_z * job.space[0]) * source[1]
            at += (y_first + t_y * job.space[1]) * source[2]
            if copied:
                before = min(max(-x_first, 0), width)
                behind = min(max(x_first + width - call.source_size[2], 0), width - before)
                clear(slot, before * pixel)
                copy(
                    slot + before * pixel,
                    origin + at + before * pixel,
                    (width - before - behind) * pixel,
                )
                clear(slot + (width - behind) * pixel, behind * pixel)
                at = slot - origin
                slot += width * pixel
            row_of_taps = (t_z * job.taps[1] + t_y) * job.taps[2]
            if call.joined:
                if x_stop > x_start:
                    segments[count].a_offset = at + x_start * job.space[2] * pixel
                    segments[count].b_offset = (row_of_taps + x_start) * tap_nbytes
                    count += 1
            else:
                for t_x in range(x_start, x_stop):
                    segments[count].a_offset = at + t_x * job.space[2] * pixel
                    segments[count].b_offset = (row_of_taps + t_x) * tap_nbytes
                    count += 1
    place.a = origin
    place.a_row = call.source_step[2] * pixel
    place.count = count
    place.length = (x_stop - x_start) * call.depth if call.joined else call.depth
    position = (job.start[2] + u * call.result_step[2]) * result[3]
    row = n * result[0] + (job.start[0] + z * call.result_step[0]) * result[1]
    place.row = job.start[1] + y * call.result_step[1]
    row += place.row * result[2]
    place.c = row + position
    place.position = position
    last = position + (rows - 1) * call.result_step[2] * result[3] + job.columns
    place.cut = position < 0 or last > call.result_size[2] * result[3]
    place.cut |= place.row < 0 or place.row + call.halves > call.result_size[1]
    return True


@njit
def _copy_inside(call, panel, place, staged, array, into_array):
    """Copy the part of a staged tile that lies inside of an array, to it or from it."""
    end = call.result_size[2] * call.result_strides[3]
    step = call.result_step[2] * call.result_strides[3]
    for half in range(call.halves):
        if place.row + half < 0 or place.row + half >= call.result_size[1]:
            continue
        for row in range(call.rows):
            at = place.position + row * step + panel.c_offset
            start, stop = max(0, -at), min(panel.nbytes, end - at)
            if stop > start:
                here = staged + row * call.b_step + half * call.half_nbytes + start
                there = array + place.c + half * call.result_strides[2]
                there += row * step + panel.c_offset + start
                if into_array:
                    copy(there, here, stop - start)
                else:
                    copy(here, there, stop - start)


@njit
def _run_cut(call, panel, place, tile, tile_address, staged):
    """Run a tile of which some results lie outside: into scratch, and copy what lies inside."""
    if call.residual:
        residuals = staged + call.rows * call.b_step
        _copy_inside(call, panel, place, residuals, call.residual, False)
        tile.residual = residuals
    tile.c = staged
    tile.c_row = call.b_step
    tile.c_half = call.half_nbytes
    run_tile(panel.kernel, tile_address)
    _copy_inside(call, panel, place, staged, call.out, True)


def direct(call_address, thread):
    """Take pieces of work until there are none left."""
    call = carray(pointer(call_address), 1, CALL)[0]
    jobs = carray(pointer(call.jobs), call.job_count, JOB)
    panels = carray(pointer(call.panels), call.panel_count, PANEL)
    scratch = call.scratch + thread * call.scratch_nbytes
    tile_address = scratch
    tile = carray(pointer(tile_address), 1, TILE)[0]
    scratch += _TILE
    places = carray(pointer(scratch), call.chunk, PLACE)
    scratch += call.chunk * _PLACE
    tables = scratch
    table_nbytes = call.most_segments * _SEGMENT
    scratch += call.chunk * table_nbytes
    staged = scratch
    slots = scratch + 2 * call.rows * call.b_step
    tile.b_step = call.b_step
    tile.accumulate = 0
    tile.residual = 0
    tile.activation = call.activation
    c_row = call.result_step[2] * call.result_strides[3]
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
        for _ in range(index, min(index + call.chunk, tiles)):
            table = tables + found * table_nbytes
            segments = carray(pointer(table), call.most_segments, SEGMENT)
            slot = slots + found * call.slot_nbytes
            x_tile = strip * call.strip + x
            if _locate(call, job, n, z, y, x_tile, places[found], segments, slot):
                places[found].segments = table
                found += 1
            x += 1
            if x == call.strip:
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
        for p in range(first, min(first + call.group, job.panel_stop)):
            panel = panels[p]
            tile.b = call.packed + job.packed + panel.b_offset
            tile.lanes = panel.lanes
            tile.scale = call.scale + panel.c_offset if call.scale else 0
            tile.bias = call.bias + panel.c_offset if call.bias else 0
            for i in range(found):
                place = places[i]
                tile.a = place.a + panel.a_offset
                tile.a_row = place.a_row
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
