"""The arithmetic of one spatial axis: the whole theory is ``i = o*s + k*d - low``.

Symbols as in Dumoulin & Visin, "A guide to convolution arithmetic for deep learning"
(arXiv:1603.07285): input ``i``, output ``o``, kernel ``k``, stride ``s``, dilation ``d``;
padding ``p`` is split into ``low`` and ``high``. Python integers throughout, without bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple


class Tap(NamedTuple):
    """One kernel entry along one axis and the outputs and inputs that it joins, as slices."""

    k: int
    outputs: slice
    inputs: slice


class Run(NamedTuple):
    """Outputs ``start..stop`` that all read the same kernel entries ``first..last``."""

    start: int
    stop: int
    first: int
    last: int


class _AxisFields(NamedTuple):
    size: int
    kernel: int
    stride: int
    dilation: int
    low: int
    high: int


class Axis(_AxisFields):
    """One axis of a convolution; the fields are validated by `ConvGeometry`."""

    @cached_property
    def effective_kernel(self) -> int:
        """The span of the dilated kernel, ``ke = (k - 1)d + 1``."""
        return (self.kernel - 1) * self.dilation + 1

    @cached_property
    def slack(self) -> int:
        """How far the kernel can slide in the padded input, ``i + low + high - ke``."""
        return self.size + self.low + self.high - self.effective_kernel

    @cached_property
    def output(self) -> int:
        """``o = floor((i + low + high - ke)/s) + 1``, or 0 where the kernel does not fit."""
        return self.slack // self.stride + 1 if self.slack >= 0 else 0

    @cached_property
    def unread(self) -> int:
        """How many inputs at the end no window reaches: ``clip(slack mod s - high, 0, i)``."""
        if self.output == 0:
            return self.size
        return min(max(self.slack % self.stride - self.high, 0), self.size)

    @cached_property
    def highs(self) -> range:
        """The high paddings with this output and so, for the same `low`, this matrix."""
        if self.output == 0:  # all that leave no room for the kernel; the least of them is endless
            return range(min(self.high, -self.low - self.size), self.high - self.slack)
        first = self.high - self.slack % self.stride
        return range(first, first + self.stride)

    @cached_property
    def full(self) -> int:
        """The transpose before cropping: what the windows cover, ``max(0, s(o - 1) + ke)``."""
        return max(0, self.span)

    @cached_property
    def cropped(self) -> int:
        """The transpose by itself, ``max(0, s(o - 1) + ke - low - high)``."""
        return max(0, self.span - self.low - self.high)

    @property
    def span(self) -> int:
        """``s(o - 1) + ke``, which may be negative where there is no output."""
        return self.stride * (self.output - 1) + self.effective_kernel

    def outputs_of(self, k: int) -> tuple[int, int]:
        """Return ``(start, stop)`` of the outputs whose tap `k` lies inside the input."""
        offset = k * self.dilation - self.low
        start = max(0, -(offset // self.stride))
        stop = min(self.output, (self.size - 1 - offset) // self.stride + 1)
        return start, max(start, stop)

    def taps(self) -> Iterator[Tap]:
        """Yield the taps that reach the input, in order, with the slices they join."""
        # Beyond these, tap k lies before or behind the input for every output.
        reach = self.stride * (self.output - 1)
        first_tap = max(0, -((reach - self.low) // self.dilation))
        last_tap = min(self.kernel - 1, (self.size - 1 + self.low) // self.dilation)
        for k in range(first_tap, last_tap + 1) if self.output else ():
            start, stop = self.outputs_of(k)
            if start < stop:
                first = start * self.stride + k * self.dilation - self.low
                last = first + (stop - start - 1) * self.stride
                yield Tap(k, slice(start, stop), slice(first, last + 1, self.stride))

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        """Split outputs ``start..stop`` where the set of taps inside the input changes."""
        cuts = {start, stop}
        s, d = self.stride, self.dilation
        # A cut is an output whose window's tap k lies on, or just behind, an end of the input.
        for end in (self.low, self.size + self.low):
            first_tap = max(0, (end - stop * s) // d)
            last_tap = min(self.kernel - 1, (end - (start - 1) * s) // d)
            for k in range(first_tap, last_tap + 1):
                cuts.update(cut for cut in self.outputs_of(k) if start < cut < stop)
        edges = sorted(cuts)
        for a, b in zip(edges, edges[1:], strict=False):
            origin = self.low - a * self.stride  # tap k is inside when 0 <= k*d - origin < size
            first = min(max(-(-origin // self.dilation), 0), self.kernel)
            last = min((self.size - 1 + origin) // self.dilation + 1, self.kernel)
            yield Run(a, b, first, max(first, last))

    @cached_property
    def nnz(self) -> int:
        """How many pairs ``(o, k)`` read inside the input, in O(log) steps for any sizes."""
        return self._pairs_below(self.size) - self._pairs_below(0)

    def _pairs_below(self, bound: int) -> int:
        """Count the pairs with ``o*s + k*d - low < bound`` and ``0 <= o < output``."""
        s, d, output = self.stride, self.dilation, self.output
        top = bound - 1 + self.low  # the largest admitted o*s + k*d
        if top < 0 or output == 0:
            return 0
        some = min(self.kernel, top // d + 1)  # taps with at least one such o
        beyond = top - s * (output - 1)
        every = min(some, beyond // d + 1) if beyond >= 0 else 0  # taps with all of them
        # The others, counted from the last one up: sum of floor((top - k*d)/s) + 1.
        count = some - every
        return every * output + count + floor_sum(count, s, d, top - (some - 1) * d)


def floor_sum(n: int, m: int, a: int, b: int) -> int:
    """Return the sum of ``floor((a*i + b)/m)`` over ``0 <= i < n``, for ``a, b >= 0``.

    Euclid's algorithm on (a, m), so O(log m) steps (Graham, Knuth & Patashnik, *Concrete
    Mathematics*, section 3.5).

    >>> floor_sum(5, 3, 2, 1) == sum((2*i + 1)//3 for i in range(5))
    True
    """
    total = 0
    while n > 0:
        total += n * (n - 1) // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        last = a * n + b
        n, b = divmod(last, m)
        m, a = a, m
    return total


def input_range(output: int, effective_kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Return the smallest and largest input size that `padding` (low + high) maps to `output`.

    The smallest is negative where more is padded than the windows cover. No output at all
    comes from every input that the kernel does not fit in, from 0 on; the largest is negative
    where there is none.
    """
    if output == 0:
        return 0, effective_kernel - padding - 1
    smallest = stride * (output - 1) + effective_kernel - padding
    return smallest, smallest + stride - 1
