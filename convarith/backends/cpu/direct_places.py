"""Where the direct worker's tiles lie, and which segments of the source their sums run over.

A tile is a run of results along the last axis. It reads its windows where they lie; only where a
window leaves the source along the last axis it is copied with zeros around it, and along the other
axes what lies outside is skipped. Most tiles of one row are never copied: they skip along the last
axis, too. The tiles of a row of results that read inside of the source share a table of segments.
"""

from __future__ import annotations

from .intrinsics import clear, copy, entries, inlined
from .tile import SEGMENT


@inlined
def inside(first, space, taps, size):
    """Return the range of taps whose source ``first + t*space`` lies in ``[0, size)``."""
    if first >= 0 and first + (taps - 1) * space < size:
        return 0, taps  # without dividing
    start = min(max(-(first // space), 0), taps)
    stop = min((size - 1 - first) // space + 1, taps) if size > first else 0
    return start, max(start, stop)


@inlined
def enter(call, job, n, z, y, row):
    """Fill in what the tiles of a row share."""
    row.exists = z < job.length[0] and y < job.length[1]
    row.source = call.source + n * call.source_strides[0]
    row.z_first = job.first[0] + z * call.source_step[0]
    row.y_first = job.first[1] + y * call.source_step[1]
    row.z_start, row.z_stop = inside(row.z_first, job.space[0], job.taps[0], call.source_size[0])
    row.y_start, row.y_stop = inside(row.y_first, job.space[1], job.taps[1], call.source_size[1])
    row.y = job.start[1] + y * call.result_step[1]
    z_result = job.start[0] + z * call.result_step[0]
    result = call.result_strides
    row.c = n * result[0] + z_result * result[1] + row.y * result[2]
    row.cut = row.y < 0 or row.y + call.halves > call.result_size[1]
    row.segments = 0


@inlined
def locate(call, job, row, x_tile, place, table, slot):
    """Fill in where a tile of a row lies; `table` and `slot` are its own to fill."""
    # The last tile of a row overlaps the one before.
    u = min(x_tile * call.rows, job.length[2] - call.rows)
    taps, space, pixel = job.taps[2], job.space[2], call.source_strides[3]
    x_first = job.first[2] + u * call.source_step[2]
    x_stop = x_first + (call.rows - 1) * call.source_step[2] + (taps - 1) * space + 1
    # Without taps there is nothing to read, nor to copy.
    leaves = taps > 0 and (x_first < 0 or x_stop > call.source_size[2])
    joined = call.joined and not call.together
    place.a = row.source + x_first * pixel
    place.b = 0
    place.length = taps * call.depth if joined else call.depth
    if leaves and (not call.skips or not call.joined):
        start, stop = 0, taps
        if call.skips:
            start, stop = inside(x_first, space, taps, call.source_size[2])
            slot = 0
        place.segments = table
        place.count = _fill(call, job, row, start, stop, x_first, x_stop, slot, table)
        if slot:
            place.a = slot
    else:
        if not row.segments:
            row.segments = table
            row.count = _fill(call, job, row, 0, taps, x_first, x_stop, 0, table)
        place.segments = row.segments
        place.count = row.count
        if leaves:
            start, stop = inside(x_first, space, taps, call.source_size[2])
            place.a += start * space * pixel
            place.b = start * call.depth * call.b_step
            place.length = (stop - start) * call.depth
            if start == stop:
                place.count = 0
    nbytes = call.result_strides[3]
    place.position = (job.start[2] + u * call.result_step[2]) * nbytes
    place.c = row.c + place.position
    place.row = row.y
    last = place.position + (call.rows - 1) * call.result_step[2] * nbytes + job.columns
    place.cut = row.cut or place.position < 0 or last > call.result_size[2] * nbytes


@inlined
def _fill(call, job, row, start, stop, x_first, x_stop, slot, table):
    """Write the segments of the taps `start` to `stop` along x; return how many.

    With a slot, the sources `x_first` to `x_stop` are copied there, and read from there.
    """
    segments = entries(table, SEGMENT)
    pixel, size = call.source_strides[3], call.source_size[2]
    tap_nbytes = call.depth * call.b_step
    count = copied = 0
    for t_z in range(row.z_start, row.z_stop):
        for t_y in range(row.y_start, row.y_stop):
            at = (row.z_first + t_z * job.space[0]) * call.source_strides[1]
            at += (row.y_first + t_y * job.space[1]) * call.source_strides[2]
            if slot:
                low, high = min(max(x_first, 0), x_stop), max(x_first, min(x_stop, size))
                high = max(low, high)
                here, there = slot + copied, row.source + at
                clear(here, (low - x_first) * pixel)
                copy(here + (low - x_first) * pixel, there + low * pixel, (high - low) * pixel)
                clear(here + (high - x_first) * pixel, (x_stop - high) * pixel)
                at = copied
                copied += (x_stop - x_first) * pixel
            row_of_taps = (t_z * job.taps[1] + t_y) * job.taps[2]
            for t_x in range(start, min(stop, start + 1) if call.joined else stop):
                segments[count].a_offset = at + t_x * job.space[2] * pixel
                segments[count].b_offset = (row_of_taps + t_x) * tap_nbytes
                count += 1
    return count
