"""What the worker of a depthwise kernel gradient reads: its call, parts of rows, and taps."""

from __future__ import annotations

import numpy as np

from .depthwise_gradient_kernel import SUMS
from .tile import SEGMENT, TILE

_int = np.int64

#: A part of a row, under some columns of taps.
COLUMNS = np.dtype(
    [(name, _int) for name in ("range", "x_offset", "g_offset", "c_offset", "kernels")]
)
#: Some rows of taps.
TAPS = np.dtype([("first", _int), ("height", _int)])
#: What a worker is called with. Strides are in bytes, over (n, z, y, x).
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "x", "g", "out")),
        *((name, _int, 3) for name in ("kernel", "size", "output", "step", "dilation", "low")),
        ("x_strides", _int, 4),
        ("g_strides", _int, 4),
        *((name, _int) for name in ("columns", "column_count", "parts")),
        *((name, _int) for name in ("taps", "tap_count")),
        *((name, _int) for name in ("groups", "group_count", "panel")),
        ("kernels", _int),
        *((name, _int) for name in ("rows", "apart", "row_groups")),  # of g
        ("line_step", _int),  # from line to line of one class
        *((name, _int) for name in ("x_step", "x_class", "g_step", "pixel")),
        *((name, _int) for name in ("strips", "chunk", "chunks", "runs", "units")),
        *((name, _int) for name in ("sums_tap", "one", "adds", "adds_last", "added", "lanes")),
        *((name, _int) for name in ("scratch", "scratch_nbytes")),
    ]
)
#: What one thread needs.
SCRATCH = -(-(SUMS.itemsize + TILE.itemsize + SEGMENT.itemsize) // 64) * 64
