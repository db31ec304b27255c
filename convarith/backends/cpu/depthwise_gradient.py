"""The plan of a depthwise kernel gradient: which window slides, and over what; see `window`.

The sums of its taps stay in registers, and of each row the last few vectors of g. A step along x
loads the next pixel of each line: for 3 x 3 taps and two rows it has 6 loads for 18 products, where
a tile has 24.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from ...axis import Axis
from ...geometry import ConvGeometry
from . import launch
from .blocks import multiply_adds
from .depthwise_gradient_layout import Layout
from .phases import ONE
from .vector import Element, Path
from .window import MOST, MOST_ROWS, STRIP, Walk, Window, lines_of


def applies(geometry: ConvGeometry) -> bool:
    """Whether every channel of x meets one channel of g, and no other does."""
    return geometry.groups > 1 and geometry.groups == geometry.in_channels == geometry.out_channels


class DepthwiseGradientPlan:
    """The kernel gradient where every channel has taps of its own; see `window`."""

    def __init__(self, path: Path, element: Element, geometry: ConvGeometry) -> None:
        self.path, self.element, self.channels = path, element, geometry.out_channels
        self.axes = (ONE,) * (3 - geometry.rank) + geometry.axes
        self.y, self.x = (Walk.of(axis) for axis in self.axes[1:])
        self.window = choose_window(path, element, self.axes, self.channels)
        self.work = multiply_adds(geometry)  # for one of the batch
        #: The tables for a batch and a number of threads, made once each.
        self.layout = functools.lru_cache(maxsize=64)(functools.partial(Layout, self))

    def __str__(self) -> str:
        layout = self.layout(1, launch.allowed(self.work))
        height, width, rows, vectors = self.window
        return (
            f"direct, depthwise, kernel gradient: windows of {height} x {width} taps, {rows} rows "
            f"of g and {vectors} vectors of {self.path.nbytes} bytes ({self.path.name}), "
            f"{layout.chunks} chunks, {layout.scratch_nbytes // 1024} KiB of scratch in all"
        )

    def scratch(self, batch: int, threads: int) -> int:
        """Return the bytes that a run allocates besides its result."""
        return self.layout(batch, threads).scratch_nbytes

    def run(self, x: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
        """Compute into `out`; all arrays are C-contiguous and of the element's dtype."""
        layout = self.layout(len(x), launch.allowed(len(x) * self.work))
        layout.call.run(layout.threads, x, g, out)


def choose_window(path: Path, element: Element, axes: tuple[Axis, ...], channels: int) -> Window:
    """Return the window that needs the fewest cycles of those whose sums the registers hold.

    Parameters
    ----------
    axes : tuple of Axis
        (z, y, x).
    """
    _, y, x = axes
    y_walk, x_walk = Walk.of(y), Walk.of(x)
    needed = -(-channels // path.lanes(element))
    steps = min(STRIP, -(-x.output // x_walk.apart))

    def strip(height: int, width: int, rows: int, vectors: int) -> float:
        """Estimate a strip's cycles: two products each, one for a cache line that is read.

        Loads may cross lines, but neighbouring vectors share the one between them.
        """
        products = height * width * rows * vectors
        classes = min(width, x_walk.classes)
        lines = len(lines_of(height, y_walk.classes, rows)) * classes
        each = max(products / 2, 4 * rows) + (lines + rows) * (vectors + 1)
        return each * steps + 100 + 4 * products / rows  # the call, what is stored

    def cycles(window: Window) -> tuple[float, int]:
        height, width, rows, vectors = window
        full, last = divmod(needed, vectors)
        parts = full * strip(*window) + (strip(height, width, rows, last) if last else 0)
        taps = -(-y.kernel // height) * -(-x.kernel // width)
        return taps * parts / rows, height * width * rows * vectors

    def registers(window: Window) -> int:
        """Count what stays there: the sums, some vectors of g, a pixel."""
        g = window.rows * -(-window.width // x_walk.classes)
        return (window.height * window.width + g) * window.vectors + 1

    most = y.kernel, x.kernel, -(-y.output // y_walk.apart), needed
    limits = zip(most, (MOST, MOST, MOST_ROWS, MOST), strict=True)
    windows = itertools.product(*(range(1, min(limit) + 1) for limit in limits))
    fitting = (w for w in itertools.starmap(Window, windows) if registers(w) <= path.registers)
    return min(fitting, key=cycles)
