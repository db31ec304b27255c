"""The kernel of a depthwise kernel gradient: a window whose sums are the taps; see `window`."""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import compiled
from .native import I64, offset
from .vector import PATHS, Path
from .window import LINES, Window
from .window_emitter import Rows, WindowEmitter

#: What a window is called with, by address. All are bytes but where said.
SUMS = np.dtype(
    [
        *LINES,
        *(
            (name, np.int64)
            for name in (
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
        Whether of the last vector there are only some lanes.
    """
    name, (height, width, rows, vectors), (y, x) = path.name, window, classes

    def sums(arguments):
        emit(name, element, height, width, rows, vectors, y, x, partial, arguments)

    return compiled.address(compiled.TILE, sums)


@intrinsic(prefer_literal=True)
def emit(typing, path, element, height, width, rows, vectors, y, x, partial, arguments):
    """Generate the kernel; all but the last are constants."""
    constants = path, element, height, width, rows, vectors, y, x, partial
    signature = types.void(*constants, arguments)
    path, element, height, width, rows, vectors, y, x, partial = (
        constant.literal_value for constant in constants
    )
    window = Window(height, width, rows, vectors)

    def generate(context, builder, signature, arguments):
        _Sums(PATHS[path], element, window, (y, x), partial, builder, arguments[-1])
        return context.get_dummy_value()

    return signature, generate


class _Sums(WindowEmitter):
    """The generator: the sums of all taps stay in registers, and the last vectors of g."""

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
        sums = window.height * window.width
        super().__init__(path, element, window, classes, SUMS, partial, sums, builder, arguments)
        self._add(self._slide(self._some_taps, self._earlier, self._all_taps))

    def _g(self, row: int, step: ir.Value, ago: int) -> list[ir.Value]:
        """Load a row's vectors some steps ago."""
        b, arguments = self.builder, self.arguments
        at = b.mul(b.sub(step, I64(ago)), arguments["g_step"])
        return self._row(offset(b, self._start("g", ("g_row", row)), at))

    def _some_taps(self, step: ir.Value, sums: Rows) -> Rows:
        """Return the sums after a step at which some taps have nothing to meet."""
        for kx in range(self.width):
            q, c = divmod(kx, self.x_classes)

            def tap(sums, q=q, c=c, kx=kx):
                g = [self._g(j, step, q) for j in range(self.rows_of_g)]
                at = self._x_at(step, c)
                for place, line_class, met in self.lines:
                    x = self._row(offset(self.builder, self._x_line(place, line_class), at))
                    for j, ky in met:
                        sum_ = ky * self.width + kx
                        sums[sum_] = self._met(x, g[j], sums[sum_])
                return sums

            sums = self._when(self._has(kx, step), sums, tap)
        return sums

    def _earlier(self, step: ir.Value) -> Rows:
        """Return the vectors of g of the steps before one, by steps ago, then by rows."""
        return [
            self._g(j, step, ago) for ago in range(1, self.reach) for j in range(self.rows_of_g)
        ]

    def _all_taps(self, step: ir.Value, sums: Rows, earlier: Rows) -> tuple[Rows, Rows]:
        """Return the sums after a step at which every tap has something to meet."""
        b, summed = self.builder, list(sums)
        g = [self._g(j, step, 0) for j in range(self.rows_of_g)] + earlier
        for c in range(min(self.x_classes, self.width)):
            at = self._x_at(step, c)
            for place, line_class, met in self.lines:
                x = self._row(offset(b, self._x_line(place, line_class), at))
                for j, ky in met:
                    for q, kx in enumerate(range(c, self.width, self.x_classes)):
                        sum_ = ky * self.width + kx
                        summed[sum_] = self._met(x, g[q * self.rows_of_g + j], summed[sum_])
        return summed, g[: len(earlier)]

    def _add(self, sums: Rows) -> None:
        """Add the sums to C."""
        b = self.builder
        add = b.fadd if self.element.floating else b.add
        for place, row in enumerate(sums):
            ky, kx = divmod(place, self.width)
            at = self._start("c", ("c_row", ky), ("c_tap", kx))
            self._store_row([add(*both) for both in zip(self._row(at), row, strict=True)], at)
