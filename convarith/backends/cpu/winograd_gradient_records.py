"""What the worker of the kernel gradient by Winograd's algorithm reads: its call and tables."""

from __future__ import annotations

import numpy as np

_int = np.int64

#: What is transformed in the first part.
OPERAND = np.dtype(
    [
        *((name, _int) for name in ("of_g", "transform", "length")),  # of g or of x; n or m pixels
        *((name, _int, 2) for name in ("first", "step", "advance", "size")),  # of windows (y, x)
        ("strides", _int, 3),  # in bytes, over (n, y, x)
        *((name, _int) for name in ("parts", "part_count")),  # blocks or panels
        *((name, _int) for name in ("offset", "product")),  # bytes in V and U
    ]
)
#: Taps of one residue of each axis: a product with V and U of its own.
JOB = np.dtype([("v_offset", _int), ("c_offset", _int)])  # in bytes; of the first tap
#: Channels of x (a block) or of g (a panel) in whole vectors, the first ones perhaps another's.
PART = np.dtype(
    [
        (name, _int)
        for name in (
            *("first", "another", "count"),  # channels
            *("start", "nbytes"),  # bytes of a pixel
            "before",  # bytes that a square's parts before this one take in V or U
            "kernel",  # address of the tile kernel of a panel
        )
    ]
)
#: Panels side by side, whose sums are transformed together; as PART has the names.
SPAN = np.dtype([(name, _int) for name in ("first", "stop", "another", "start", "nbytes")])
#: What the worker is called with.
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "x", "g", "out", "shared")),
        *((name, _int) for name in ("part", "first", "count", "chunk", "runs")),  # squares
        ("squares", _int, 2),
        *((name, _int) for name in ("n", "r", "itemsize", "vector", "rows")),
        *((name, _int) for name in ("operands", "operand_count", "pieces")),
        *((name, _int) for name in ("jobs", "job_count", "blocks", "block_count")),
        *((name, _int) for name in ("panels", "spans", "span_count", "of_sums")),
        *((name, _int) for name in ("u_offset", "v_product", "u_product", "m_product")),
        *((name, _int) for name in ("tap_row", "tap_pixel", "c_row")),  # bytes of the result
        *((name, _int) for name in ("staged", "products")),  # where they lie in scratch
        *((name, _int) for name in ("scratch", "scratch_nbytes")),
    ]
)
#: The parts.
TRANSFORMS, SUMS = 0, 1
