"""What the worker of the kernel gradient reads: its call, and the tables of rows and panels."""

from __future__ import annotations

import numpy as np

from .tile import SEGMENT, TILE

_int = np.int64

#: The rows of one tile: under the tap `(z, y, x)`, or the taps from it on along the last axis.
ROWS = np.dtype(
    [
        ("tap", _int, 3),
        *((name, _int) for name in ("start", "stop")),  # outputs along the last axis
        *((name, _int) for name in ("x_offset", "c_offset")),  # in bytes; x's from a strip's start
        *((name, _int) for name in ("strip", "strip_nbytes")),  # copied together; or both are 0
        *((name, _int) for name in ("kernel", "kernel_last")),  # for a full panel, for the last
        ("asking", _int),  # for the last panel of a span, where they are swapped
        ("adds", _int),  # whether other rows before it have written the same results
        ("again", _int),  # whether the rows before it have the same taps and outputs
        ("edge", _int),  # whether they take the chunks of the edges
        ("lanes", _int),  # where they are swapped
    ]
)
#: Panels that are done together.
SPAN = np.dtype([("first", _int), ("stop", _int)])
#: Rows that one thread does, one after the other, all that add to the same results.
BLOCK = np.dtype([("first", _int), ("stop", _int), ("out", _int)])  # bytes, where they are swapped
#: As many of g's channels as a tile has lanes; or rows, where they are swapped.
PANEL = np.dtype(
    [(name, _int) for name in ("x_offset", "g_offset", "c_offset", "last", "lanes", "nbytes")]
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
        *((name, _int) for name in ("rows", "panels")),
        *((name, _int) for name in ("blocks", "block_count", "spans", "span_count", "units")),
        *((name, _int) for name in ("chunk", "output_rows")),  # rows (n, z, y) of outputs
        ("width", _int),  # columns of a chunk
        ("edge_chunk", _int),  # rows of a chunk of the edges, 0 without edges
        *((name, _int) for name in ("chunks", "parts")),  # how many there are
        ("nbytes", _int),  # of a part's result
        *((name, _int) for name in ("a_row", "c_row", "ahead")),
        *((name, _int) for name in ("swapped", "taps", "itemsize")),  # rows, lanes, bytes; or 0
        *((name, _int) for name in ("x_pitch", "g_pitch")),  # of strips' pixels; 0 without them
        *((name, _int) for name in ("scratch", "scratch_nbytes")),
    ]
)


def scratch_nbytes(chunk: int, g_strip: int, x_strip: int, result: int) -> int:
    """Return the scratch of one thread: tile, segments, a strip of either operand, a result."""
    parts = TILE.itemsize + chunk * SEGMENT.itemsize, g_strip, x_strip, result
    return sum(-(-part // 64) * 64 for part in parts) + 64
