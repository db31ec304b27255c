"""The plan of a depthwise kernel gradient: which window slides, and over what; see `window`."""

from __future__ import annotations

import functools

import numpy as np

from ...geometry import ConvGeometry
from . import launch
from .blocks import multiply_adds
from .depthwise_gradient_layout import Layout
from .phases import ONE
from .vector import Element, Path
from .window import Walk, choose_window


def applies(geometry: ConvGeometry) -> bool:
    """Whether every channel of x meets one channel of g, and no other does."""
    return geometry.groups > 1 and geometry.groups == geometry.in_channels == geometry.out_channels


class DepthwiseGradientPlan:
    """The kernel gradient where every channel has taps of its own; see `window`."""

    def __init__(self, path: Path, element: Element, geometry: ConvGeometry) -> None:
        self.path, self.element, self.channels = path, element, geometry.out_channels
        self.axes = (ONE,) * (3 - geometry.rank) + geometry.axes
        self.y, self.x = (Walk.of(axis) for axis in self.axes[1:])
        self.window = choose_window(path, element, self.axes, self.channels, whole=False)
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
