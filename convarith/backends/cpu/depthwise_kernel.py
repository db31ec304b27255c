"""The kernel of a depthwise convolution: a window whose sums are outputs; see `window`.

All taps stay in registers, and the pixels of the lines that the next step reads again: at every
step an output of each row is computed and stored. It is summed in the order of the taps, so that
it has the same bits as by tiles.
"""

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
OUTPUTS = np.dtype(
    [
        *LINES,
        *(
            (name, np.int64)
            for name in (
                "taps",  # of whole vectors
                "tap_row",
                "tap",
                "c",  # the first row's output at step 0
                "c_row",
                "c_step",
                "scale",  # addresses of whole vectors, or 0
                "bias",
                "residual",  # address of what is laid out as C, or 0
                "activation",  # its place in ACTIVATIONS
            )
        ),
    ]
)


@functools.cache
def kernel(
    path: Path,
    element: int,
    window: Window,
    classes: tuple[int, int],
    *,
    partial: bool,
    finishes: bool,
) -> int:
    """Return the address of the kernel with these constants.

    Parameters
    ----------
    window : Window
        Its height may be 0.
    classes : (int, int)
        Along y and x.
    partial : bool
        Whether of the last vector there are only some lanes.
    finishes : bool
        Whether there is an epilogue.
    """
    name, (height, width, rows, vectors), (y, x) = path.name, window, classes

    def outputs(arguments):
        emit(name, element, height, width, rows, vectors, y, x, partial, finishes, arguments)

    return compiled.address(compiled.TILE, outputs)


@intrinsic(prefer_literal=True)
def emit(typing, path, element, height, width, rows, vectors, y, x, partial, finishes, arguments):
    """Generate the kernel; all but the last are constants."""
    constants = path, element, height, width, rows, vectors, y, x, partial, finishes
    signature = types.void(*constants, arguments)
    path, element, height, width, rows, vectors, y, x, partial, finishes = (
        constant.literal_value for constant in constants
    )
    window = Window(height, width, rows, vectors)

    def generate(context, builder, signature, arguments):
        _Outputs(PATHS[path], element, window, (y, x), partial, finishes, builder, arguments[-1])
        return context.get_dummy_value()

    return signature, generate


class _Outputs(WindowEmitter):
    """The generator: its sums are those of the outputs of one step, a row of vectors each.

    At step ``t`` tap ``q*p + c`` meets the pixel of class ``c`` at step ``t + q``.
    """

    def __init__(
        self,
        path: Path,
        element: int,
        window: Window,
        classes: tuple[int, int],
        partial: bool,
        finishes: bool,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        rows = window.rows
        super().__init__(path, element, window, classes, OUTPUTS, partial, rows, builder, arguments)
        self.finishes = finishes
        self.line = {place: n for n, met in enumerate(self.lines) for place in met[2]}
        first, all_first, all_stop, stop = self.bounds[:4]
        for start, end, body, before in (
            (first, all_first, self._some_taps, lambda step: []),
            (all_first, all_stop, self._all_taps, self._ahead),
            (all_stop, stop, self._some_taps, lambda step: []),
        ):
            self._loop(start, end, [], body, before)

    def _none(self) -> Rows:
        return [[self._constant(0)] * self.vectors for _ in range(self.rows)]

    def _tap(self, ky: int, kx: int) -> list[ir.Value]:
        at = self._start("taps", ("tap_row", ky), ("tap", kx))
        return [
            self._load(offset(self.builder, at, v * self.path.nbytes)) for v in range(self.vectors)
        ]

    def _pixels(self, step: ir.Value, kx: int) -> Rows:
        """Load what a tap along x meets at a step: a pixel of every line."""
        q, c = divmod(kx, self.x_classes)
        at = self._x_at(self.builder.add(step, I64(q)), c)
        return [
            self._row(offset(self.builder, self._x_line(place, line_class), at))
            for place, line_class, _ in self.lines
        ]

    def _some_taps(self, step: ir.Value, _: Rows, __: Rows) -> tuple[Rows, Rows]:
        """Store the outputs of a step at which some taps have nothing to meet."""
        sums = self._none()
        for ky, kx in np.ndindex(self.height, self.width):

            def tap(sums, ky=ky, kx=kx):
                pixels, weight = self._pixels(step, kx), self._tap(ky, kx)
                return [
                    self._met(pixels[self.line[j, ky]], weight, row) for j, row in enumerate(sums)
                ]

            sums = self._when(self._has(kx, step), sums, tap)
        self._finish(step, sums)
        return [], []

    def _ahead(self, step: ir.Value) -> Rows:
        """Return the taps, and the pixels that a step has of those before it."""
        taps = [self._tap(ky, kx) for ky, kx in np.ndindex(self.height, self.width)]
        return taps + [
            row for kx in range(self.width - self.x_classes) for row in self._pixels(step, kx)
        ]

    def _all_taps(self, step: ir.Value, _: Rows, ahead: Rows) -> tuple[Rows, Rows]:
        """Store the outputs of a step at which every tap has something to meet."""
        taps, pixels = ahead[: self.height * self.width], ahead[self.height * self.width :]
        for kx in range(max(0, self.width - self.x_classes), self.width):
            pixels = pixels + self._pixels(step, kx)
        sums = self._none()
        for ky, kx in np.ndindex(self.height, self.width):
            for j in range(self.rows):
                pixel = pixels[kx * len(self.lines) + self.line[j, ky]]
                sums[j] = self._met(pixel, taps[ky * self.width + kx], sums[j])
        self._finish(step, sums)
        kept = self.x_classes * len(self.lines)
        return [], taps + pixels[kept:]

    def _finish(self, step: ir.Value, sums: Rows) -> None:
        """Store the outputs of a step, with the epilogue."""
        self._moved_by = self.builder.mul(step, self.arguments["c_step"])
        for j, row in enumerate(self._epilogue(sums) if self.finishes else sums):
            self._store_row(row, self._at("c", j, 0))

    def _at(self, name: str, i: int, j: int, half: int = 0) -> ir.Value:
        row = offset(self.builder, self._start(name, ("c_row", i)), self._moved_by)
        return offset(self.builder, row, j * self.path.nbytes)
