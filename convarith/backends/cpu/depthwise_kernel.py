"""The kernel of a depthwise convolution: a window whose sums are outputs; see `window`.

Each output is summed in the order of the taps, so that it has the same bits as by tiles.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from llvmlite import ir

from . import compiled
from .distance import Distance
from .native import I64, offset
from .vector import Path
from .window import LINES, Window
from .window_emitter import Rows, WindowEmitter

#: What a kernel is called with, by address. All are bytes but where said.
OUTPUTS = np.dtype(
    [
        *LINES,
        *(
            (name, np.int64)
            for name in (
                "panels",  # how many there are, of one vector each
                "taps",  # of the first panel
                "taps_panel",  # from panel to panel
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
        Whether there are only some lanes of a panel.
    finishes : bool
        Whether there is an epilogue.
    """
    return compiled.kernel(_Outputs, path, element, window, classes, partial, finishes)


class _Outputs(WindowEmitter):
    """The generator: its sums are rows of a vector, a row's steps one after the other."""

    #: How far on from what is addressed by an argument the panel and the step are.
    moved: Mapping[str, ir.Value] = MappingProxyType({})

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
        super().__init__(path, element, window, classes, OUTPUTS, partial, builder, arguments)
        self.finishes = finishes
        self.c_step = Distance(builder, self.arguments["c_step"])
        self._all_steps(self._window, self._one_step)

    def _window(self, step: ir.Value, panel: ir.Value) -> None:
        """Store the outputs of some steps at which every tap has something to meet."""
        self.rows = self.window_rows * self.steps
        sums, at = self._zeros(), self._taps_at(panel)
        taps = [
            self._load(offset(self.builder, at, place * self.path.nbytes))
            for place in range(self.height * self.width)
        ]
        for pixel, j, ky, s, kx in self._meetings():
            output = j * self.steps + s
            tap = taps[ky * self.width + kx]
            sums[output] = [self._times_plus(pixel, tap, *sums[output])]
        self._finish(step, sums)

    def _one_step(self, step: ir.Value, panel: ir.Value) -> None:
        """Store the outputs of a step at which some taps may have nothing to meet."""
        self.rows = self.window_rows
        b, at = self.builder, self._taps_at(panel)

        def meet(ky, kx, pixels, sums):
            place = b.add(b.mul(ky, I64(self.width)), kx)
            tap = self._load(offset(b, at, b.mul(place, I64(self.path.nbytes))))
            return [
                [self._times_plus(pixel, tap, *row)]
                for pixel, row in zip(pixels, sums, strict=True)
            ]

        self._finish(step, self._some_taps(self._zeros(), meet))

    def _zeros(self) -> Rows:
        return [[self._constant(0)] for _ in range(self.rows)]

    def _taps_at(self, panel: ir.Value) -> ir.Value:
        moved = self.builder.mul(panel, self.arguments["taps_panel"])
        return offset(self.builder, self._pointer("taps"), moved)

    def _finish(self, step: ir.Value, sums: Rows) -> None:
        """Store the outputs, with the epilogue."""
        at = self.builder.add(self.channels, self.builder.mul(step, self.arguments["c_step"]))
        channels = self.channels
        self.moved = {"scale": channels, "bias": channels, "c": at, "residual": at}
        results = self._epilogue(sums) if self.finishes else sums
        stores = [(row[0], self._at("c", i, 0)) for i, row in enumerate(results)]
        if self.partial:
            self._store_first(stores)
            return
        for value, place in stores:
            self._store_whole(value, place)

    def _pointer(self, name: str) -> ir.Value:
        pointer = super()._pointer(name)
        return offset(self.builder, pointer, self.moved[name]) if name in self.moved else pointer

    def _at(self, name: str, i: int, j: int, half: int = 0) -> ir.Value:
        row, step = divmod(i, self.rows // self.window_rows)
        return self.c_step.at(self._on(self._pointer(name), "c_row", row), step)
