"""What the rowwise worker reads: its call."""

from __future__ import annotations

import numpy as np

from .tile import SEGMENT, TILE

_int = np.int64

#: What a worker is called with. Strides are in bytes, over (n, z, y, x).
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "source", "packed", "out")),
        *((name, _int) for name in ("scale", "bias", "residual", "activation")),
        *((name, _int, 3) for name in ("size", "output", "kernel", "step", "dilation", "low")),
        *((name, _int, 4) for name in ("source_strides", "result_strides")),
        *((name, _int) for name in ("block", "large", "small", "single")),  # bytes; tile kernels
        *((name, _int) for name in ("large_nbytes", "small_nbytes", "itemsize")),
        *((name, _int) for name in ("parts", "part")),  # of a row; bytes of a part
        *((name, _int) for name in ("lines", "chunk", "units", "scratch", "scratch_nbytes")),
    ]
)


def scratch_nbytes(segments: int, small: int, reach: int) -> int:
    """Return the scratch of one thread: the tile, two tables, a copied source, results, residuals.

    Parameters
    ----------
    segments : int
        Rows of taps.
    small, reach : int
        Bytes of a small tile's results, and how far its taps reach beyond them.
    """
    tables = TILE.itemsize + 2 * segments * SEGMENT.itemsize
    return -(-(tables + segments * (small + reach) + 2 * small) // 64) * 64
