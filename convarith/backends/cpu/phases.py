"""The two maps as one: along an axis, results in steps read windows of the source in steps.

A forward axis is one *phase*: result ``o`` reads ``o*s - low + k*d`` for all taps k. A transposed
axis falls into ``s`` of them: the results ``j`` with the same ``r = (j + low) mod s`` are reached
by the taps with ``k*d = r (mod s)``, and ``j = q*s + r - low`` reads source ``q + (r - k*d)/s``.
So every phase is a dense convolution, none multiplies by the zeros that a stride inserts, and
nothing is scattered. Neighbouring residues that read the same sources make one phase together.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from ...axis import Axis

#: The axis that a plan of fewer than three has in front.
ONE = Axis(1, 1, 1, 1, 0, 0)


def flattened(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Return three axes for the kernels: one row of pixels where every axis is pointwise."""
    if is_pointwise(axes):
        axes = (ONE._replace(size=math.prod(axis.size for axis in axes)),)
    return (ONE,) * (3 - len(axes)) + axes


def is_pointwise(axes: tuple[Axis, ...]) -> bool:
    """Whether output o reads input o alone along every axis."""
    return all((a.kernel, a.stride, a.low, a.output) == (1, 1, 0, a.size) for a in axes)


class Phase(NamedTuple):
    """Results that read the source alike: ``start + m + u*step``, for ``u < length``.

    Each is the sum over taps ``t`` of kernel entry ``taps[m][t]`` times source ``first +
    u*source_step + t*space``; `step` and `source_step` are the axis's. Results and sources outside
    of the arrays are left out.
    """

    start: int
    length: int
    first: int
    space: int
    taps: tuple[tuple[int, ...], ...]  # for each m as many


def forward(axis: Axis) -> list[Phase]:
    """Return the one phase of a convolution's axis; the results are its outputs.

    Taps that reach the input for no output are left out.
    """
    reached = [tap.k for tap in axis.taps()]
    taps = tuple(range(reached[0], reached[-1] + 1)) if reached else ()
    first = (taps[0] if taps else 0) * axis.dilation - axis.low
    return [Phase(0, axis.output, first, axis.dilation, (taps,))]


def transposed(axis: Axis, *, merge: bool) -> list[Phase]:
    """Return the phases of a transposed axis; the results are the convolution's inputs.

    Parameters
    ----------
    merge : bool
        Whether neighbouring residues may share a phase; some of its results may then lie
        outside of the array.
    """
    step = axis.stride
    q = axis.low // step
    residues = [(r, *_taps(axis, r)) for r in range(step)]
    groups = itertools.groupby(residues, key=lambda e: (e[1], len(e[2])) if merge else e[0])
    phases = []
    for _, group in groups:
        members = list(group)
        r, first, taps = members[0]
        start = q * step + r - axis.low
        skipped = -((start + len(members) - 1) // step)  # until one lies in the array
        start, first = start + skipped * step, first + q + skipped
        count = -((start - axis.size) // step)
        if count > 0:
            phases.append(
                Phase(start, count, first, _space(axis), tuple(taps for _, _, taps in members))
            )
    return phases


def within(phase: Phase, axis: Axis) -> list[Phase]:
    """Return the parts of a transposed axis's phase, none of whose results lie outside."""
    step, members = axis.stride, len(phase.taps)
    last = phase.start + (phase.length - 1) * step
    cuts = {0, members, *(m for m in (-phase.start, axis.size - last) if 0 < m < members)}
    parts = []
    for low, high in itertools.pairwise(sorted(cuts)):
        skipped = 1 if phase.start + low < 0 else 0
        missing = 1 if last + low >= axis.size else 0
        length = phase.length - skipped - missing
        if length > 0:
            start, first = phase.start + low + skipped * step, phase.first + skipped
            parts.append(Phase(start, length, first, phase.space, phase.taps[low:high]))
    return parts


def _space(axis: Axis) -> int:
    return axis.dilation // math.gcd(axis.stride, axis.dilation)


def _taps(axis: Axis, r: int) -> tuple[int, tuple[int, ...]]:
    """Return the taps with ``k*d = r (mod s)``, last first, and ``(r - k*d)/s`` of the first.

    Those that reach the array for no result are left out.
    """
    s, d = axis.stride, axis.dilation
    g = math.gcd(s, d)
    if r % g:
        return 0, ()
    period = s // g
    least = r // g * pow(d // g, -1, period) % period
    low, high = _reach(axis)
    least += max(0, -(-(low - least) // period)) * period
    taps = tuple(range(least, min(axis.kernel, high), period))[::-1]
    return ((r - taps[0] * d) // s if taps else 0), taps


def _reach(axis: Axis) -> tuple[int, int]:
    """Return the range that holds the taps with an input for some output."""
    first = last = None
    for tap in axis.taps():
        first = tap.k if first is None else first
        last = tap.k
    return (0, 0) if first is None or last is None else (first, last + 1)
