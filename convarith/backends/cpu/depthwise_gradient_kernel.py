"""The kernel of a depthwise kernel gradient: a window whose sums are the taps'; see `window`."""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir

from . import compiled
from .distance import Distance, hidden
from .native import offset
from .vector import Path
from .window import LINES, Window
from .window_emitter import WindowEmitter

#: What a window is called with, by address. All are bytes but where said.
SUMS = np.dtype(
    [
        *LINES,
        *(
            (name, np.int64)
            for name in (
                "panels",  # how many there are, of one vector each
                "g",  # the first row's output at step 0
                "g_row",
                "g_step",
                "c",
                "c_row",
                "c_tap",
            )
        ),
    ]
)
SUMS_NBYTES = SUMS.itemsize


@functools.cache
def kernel(
    path: Path, element: int, window: Window, classes: tuple[int, int], *, partial: bool
) -> int:
    """Return the address of the kernel with these constants.

    Parameters
    ----------
    classes : (int, int)
        Along y and x.
    partial : bool
        Whether there are only some lanes of a panel.
    """
    return compiled.kernel(_Sums, path, element, window, classes, partial)


class _Sums(WindowEmitter):
    """The generator: the sums of a window are added to, and so are those of a step."""

    def __init__(
        self,
        path: Path,
        element: int,
        window: Window,
        classes: tuple[int, int],
        partial: bool,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        super().__init__(path, element, window, classes, SUMS, partial, builder, arguments)
        self.g_step = Distance(builder, self.arguments["g_step"])
        self.c_tap = Distance(builder, self.arguments["c_tap"])
        self._all_steps(self._window, self._one_step)

    def _window(self, step: ir.Value, _: ir.Value) -> None:
        """Add some steps to all sums: load those, and store them."""
        g = [
            [self._vector(self.g_step.at(self._g_at(j, step), s)) for s in range(self.steps)]
            for j in range(self.window_rows)
        ]
        c = offset(self.builder, self._pointer("c"), self.channels)
        rows = [hidden(self.builder, self._on(c, "c_row", ky)) for ky in range(self.height)]
        at = {
            (ky, kx): self.c_tap.at(rows[ky], kx) for ky, kx in np.ndindex(self.height, self.width)
        }
        sums = {tap: self._load(address) for tap, address in at.items()}
        for pixel, j, ky, s, kx in self._meetings():
            sums[ky, kx] = self._times_plus(pixel, g[j][s], sums[ky, kx])
        for tap, address in at.items():
            self._store_whole(sums[tap], address)

    def _one_step(self, step: ir.Value, _: ir.Value) -> None:
        """Add a step to the sums of the taps that have something to meet."""
        b, arguments = self.builder, self.arguments
        g = [self._vector(self._g_at(j, step)) for j in range(self.window_rows)]
        c = offset(b, self._pointer("c"), self.channels)

        def meet(ky, kx, pixels, _):
            moved = b.add(b.mul(ky, arguments["c_row"]), b.mul(kx, arguments["c_tap"]))
            at = offset(b, c, moved)
            sum_ = self._load(at)
            for pixel, of_row in zip(pixels, g, strict=True):
                sum_ = self._times_plus(pixel, of_row, sum_)
            self._store_whole(sum_, at)
            return []

        self._some_taps([], meet)

    def _g_at(self, row: int, step: ir.Value) -> ir.Value:
        moved = self.builder.mul(step, self.arguments["g_step"])
        moved = self.builder.add(self.channels, moved)
        return offset(self.builder, self._on(self._pointer("g"), "g_row", row), moved)
