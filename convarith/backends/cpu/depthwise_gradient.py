"""The plan of a depthwise kernel gradient: which windows, over what; see `window`."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from ...axis import Axis
from ...geometry import ConvGeometry
from . import launch
from .blocks import multiply_adds
from .depthwise_gradient_layout import Layout
from .phases import ONE
from .vector import Element, Path
from .window import MOST, Walk, Window, choose_rows_and_steps


def applies(geometry: ConvGeometry) -> bool:
    """Whether every channel of x meets one channel of g, and no other does."""
    return geometry.groups > 1 and geometry.groups == geometry.in_channels == geometry.out_channels


class DepthwiseGradientPlan:
    """The kernel gradient where every channel has taps of its own; see `window`."""

    def __init__(self, path: Path, element: Element, geometry: ConvGeometry) -> None:
        self.path, self.element, self.channels = path, element, geometry.out_channels
        self.axes = (ONE,) * (3 - geometry.rank) + geometry.axes
        self.y, self.x = (Walk.of(axis) for axis in self.axes[1:])
        #: How many vectors the channels are, the last of which may be of a few.
        self.panels = -(-self.channels // path.lanes(element))
        self.window, self.one_row = choose_windows(path, *self.axes[1:], self.panels)
        self.work = multiply_adds(geometry)  # for one of the batch
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(functools.partial(Layout, self))

    def __str__(self) -> str:
        layout = self.layout(1, launch.allowed(self.work))
        height, width, rows, steps = self.window
        return (
            f"direct, depthwise, kernel gradient: windows of {height} x {width} taps, "
            f"{rows} x {steps} outputs, vectors of {self.path.nbytes} bytes ({self.path.name}), "
            f"{layout.chunks} chunks, {layout.scratch_nbytes // 1024} KiB of scratch in all"
        )

    def scratch(self, batch: int, threads: int) -> int:
        """Return the bytes that a run allocates besides its result."""
        return self.layout(batch, threads).scratch_nbytes

    def run(self, x: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        layout = self.layout(len(x), launch.allowed(len(x) * self.work))
        layout.call.run(layout.threads, x, g, out)


def choose_windows(path: Path, y: Axis, x: Axis, panels: int) -> tuple[Window, Window]:
    """Return the windows that need the fewest cycles: of several rows of g, and of one.

    Of more taps than the registers hold the sums of, some go together.
    """
    y_walk, x_walk = Walk.of(y), Walk.of(x)

    def choice(height: int, width: int) -> tuple[float, Window, Window]:
        taps = height * width

        def fits(rows: int, steps: int) -> bool:
            return rows * steps + taps + 1 <= path.registers

        def cycles(rows: int, steps: int) -> float:
            """Estimate a window's: products, or half of a sum's latency, and what is moved."""
            outputs, window = rows * steps, Window(height, width, rows, steps)
            moved = window.pixels(y_walk, x_walk) + outputs + 2 * taps
            waiting = window.waiting(y_walk, x_walk, panels)
            return max(taps, 4) * outputs / 2 + moved / 3 + waiting

        total, several, one = choose_rows_and_steps(y, x, fits, cycles)
        total *= -(-y.kernel // height) * -(-x.kernel // width)
        return total, Window(height, width, *several), Window(height, width, *one)

    cuts = ({-(-axis.kernel // n) for n in range(1, axis.kernel + 1)} for axis in (y, x))
    pieces = itertools.product(*(sorted(n for n in cut if n <= MOST) for cut in cuts))
    choices = [choice(*piece) for piece in pieces if math.prod(piece) + 2 <= path.registers]
    return min(choices, key=lambda chosen: (chosen[0], -math.prod(chosen[1][:2])))[1:]
