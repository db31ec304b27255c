"""What the separable worker reads: its call, and the residues of an axis."""

from __future__ import annotations

import numpy as np

from .separable_blend import BLEND_NBYTES
from .separable_spread import SPREAD_NBYTES
from .separable_weave import WEAVE_NBYTES

_int = np.int64

#: Results at the same place modulo the step read the source alike; see phases.Phase.
RESIDUE = np.dtype([("first", _int), ("taps", _int), ("weights", _int)])
_OF_AXIS = (
    *("source_size", "result_size", "source_step", "step", "space"),
    "residues",  # address of RESIDUEs, as many as the step
    *("low", "span"),  # where the first `step` results read, all together
)
#: What a packed kernel has for the worker, in this order.
PACKED = (
    *(f"{axis}_{name}" for axis in "yx" for name in ("kernels", "weights", "weights_step")),
    *("spreads", "weave"),  # addresses of kernels and of a kernel
)
#: What a worker is called with; all steps and sizes but those above are in bytes.
CALL = np.dtype(
    [
        *((name, _int) for name in ("counter", "source", "out")),
        *((name, _int) for name in ("scale", "bias", "residual", "activation", *PACKED)),
        *((f"{axis}_{name}", _int) for axis in "yx" for name in _OF_AXIS),
        *((name, _int) for name in ("pixel", "move", "moves")),  # see BLEND
        *((name, _int) for name in ("block", "blocks", "strip", "strips", "units")),  # results
        *((name, _int) for name in ("streams", "chunk", "spreading")),
        ("past", _int),  # bytes of a vector, where results go past the caches; or 0
        ("rows", _int),  # of results that are blended at once, at most
        *((name, _int) for name in ("order", "weave_step")),
        *((name, _int) for name in ("ring", "ring_step", "stream_step", "most_taps")),
        *((name, _int) for name in ("scratch", "scratch_nbytes", "staged_nbytes")),
    ]
)


def scratch_nbytes(most_taps: int, ring: int, ring_step: int, streams: int, staged: int) -> int:
    """Return the scratch of one thread: kernels' arguments, tags, ring, streams, a row."""
    words = 2 * BLEND_NBYTES + WEAVE_NBYTES + SPREAD_NBYTES + 8 * (2 * most_taps + ring)
    return -(-words // 64) * 64 + ring * ring_step + streams + staged
