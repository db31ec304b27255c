"""What the direct worker reads and keeps: its call, jobs, panels, rows and places."""

from __future__ import annotations

import numpy as np

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
#: A row of results of a job.
ROW = np.dtype(
    [
        (name, _int)
        for name in (
            "exists",  # whether the job has it
            "source",  # address of its image
            *("z_first", "y_first"),  # what its first taps read
            *("z_start", "z_stop", "y_start", "y_stop"),  # the taps that read inside
            "c",  # bytes from out
            "y",  # in out
            "cut",  # whether some of its results lie outside of out
            *("segments", "count"),  # what its tiles share; no address as long as none needed it
        )
    ]
)
#: A tile.
PLACE = np.dtype(
    [
        (name, _int)
        for name in (
            *("a", "segments", "count", "length"),
            "b",  # bytes from the panel's start
            "c",  # bytes from out
            "row",  # along y in out
            "position",  # of its first result, in bytes from the start of that row
            "cut",  # whether some of its results lie outside of out
        )
    ]
)
ROW_NBYTES, PLACE_NBYTES = ROW.itemsize, PLACE.itemsize
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
        *((name, _int) for name in ("jobs", "job_count", "panels")),
        *(
            (name, _int)
            for name in ("rows", "itemsize", "depth", "b_step", "joined", "channelwise")
        ),
        ("skips", _int),  # whether tiles leave out what lies outside along x
        ("together", _int),  # whether they meet all taps along x at a time; see tile.kernel
        *((name, _int) for name in ("halves", "half_nbytes")),  # rows of results a tile has
        ("abreast", _int),  # tiles that take a panel after each other; then these take the next
        *((name, _int) for name in ("chunk", "chunks", "group", "units")),
        *((name, _int) for name in ("scratch", "scratch_nbytes", "most_segments", "slot_nbytes")),
    ]
)


def scratch_nbytes(rows: int, panel_nbytes: int, chunk: int, segments: int, slot: int) -> int:
    """Return the scratch of one thread: tile, row, places, segments, two staged tiles, slots."""
    each = PLACE.itemsize + segments * SEGMENT.itemsize + slot
    return -(-(TILE.itemsize + ROW.itemsize + chunk * each + 2 * rows * panel_nbytes) // 64) * 64
