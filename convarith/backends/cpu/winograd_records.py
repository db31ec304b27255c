"""What the workers of Winograd's algorithm read: their calls, jobs and panels."""

from __future__ import annotations

import numpy as np

from .tile import SEGMENT, TILE
from .winograd_transforms import TRANSFORM

_int = np.int64

#: What a call does.
ALL, FIRST_HALF, SECOND_HALF = 0, 1, 2

#: One phase of each axis (y, x); see phases.Phase.
JOB = np.dtype(
    [
        *((name, _int, 2) for name in ("start", "count", "first", "squares")),
        ("packed", _int),  # bytes from the packed kernel's start
    ]
)
#: Columns of results, in whole vectors; the last panel may overlap the one before.
PANEL = np.dtype(
    [
        (name, _int)
        for name in (
            *("b_offset", "c_offset"),  # bytes from the job's kernel, and from a result's pixel
            *("kernel", "kernel_last"),  # addresses of the tile kernels, and of a block's last tile
            "nbytes",
        )
    ]
)
#: What a worker is called with. Strides are in bytes, over (n, y, x).
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "source", "packed", "out")),
        *((name, _int) for name in ("scale", "bias", "residual", "activation")),
        ("shared", _int),  # the V that threads share, of some blocks
        *((name, _int) for name in ("part", "first_block", "block_count", "pieces")),
        ("source_size", _int, 2),
        ("source_strides", _int, 3),
        ("result_strides", _int, 3),
        ("result_step", _int, 2),
        # Where the kernel is its r x r taps, else 0: the address of their transform, the bytes of
        # a tap, and from one product of a panel to the next.
        *((name, _int) for name in ("of_taps", "r", "tap", "b_product")),
        *((name, _int) for name in ("batch", "m", "n", "itemsize", "vector", "depth", "rows")),
        *((name, _int) for name in ("of_sources", "of_products")),  # addresses of the transforms
        *((name, _int) for name in ("jobs", "panels", "panel_count")),
        *((name, _int) for name in ("blocks", "shared_nbytes")),  # of V of a block
        *((name, _int) for name in ("v_product", "m_product", "panel_nbytes")),
        *((name, _int) for name in ("scratch", "scratch_nbytes")),
    ]
)
#: What the packing worker is called with.
PACK = np.dtype(
    [
        *((name, _int) for name in ("counter", "taps", "packed", "r", "depth", "tap", "vector")),
        *((name, _int) for name in ("of_taps", "panels", "panel_count", "job_nbytes", "units")),
        *((name, _int) for name in ("scratch", "scratch_nbytes")),
    ]
)

#: Scratch that the records take; a window follows.
HEAD = -(-(TILE.itemsize + SEGMENT.itemsize + TRANSFORM.itemsize) // 64) * 64


def scratch_nbytes(products: int, pixel: int, panel: int, *more: int) -> int:
    """Return the scratch of one thread: records, a window, two squares of results, and more.

    More are M, and V or what a panel of taps is transformed to.
    """
    window = -(-products * pixel // 64) * 64
    return HEAD + window + products * 2 * panel + sum(more)
