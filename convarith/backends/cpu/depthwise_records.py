"""What the depthwise worker reads: its call, and the parts of a row."""

from __future__ import annotations

import numpy as np

from .depthwise_kernel import OUTPUTS

_int = np.int64

#: A part of a row.
PART = np.dtype([(name, _int) for name in ("range", "x_offset", "c_offset")])
#: What a worker is called with. Strides are in bytes, over (n, z, y, x).
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "source", "packed", "out")),
        *((name, _int) for name in ("scale", "bias", "residual", "activation")),
        *((name, _int, 3) for name in ("kernel", "size", "output", "step", "dilation", "low")),
        ("source_strides", _int, 4),
        ("result_strides", _int, 4),
        *((name, _int) for name in ("rows", "apart", "row_groups", "line_step")),
        *((name, _int) for name in ("x_step", "x_class", "c_step", "tap")),
        *((name, _int) for name in ("parts", "part_count", "groups", "group_count")),
        *((name, _int) for name in ("kernels", "strips", "chunk", "runs", "units")),
        *((name, _int) for name in ("scratch", "scratch_nbytes")),
    ]
)
#: What one thread needs.
SCRATCH = -(-OUTPUTS.itemsize // 64) * 64
