"""The kernel of a depthwise convolution: blocks of outputs whose sums stay in registers.

A block is a few rows of outputs times a few steps. Each pixel that it reads is loaded once, and
meets every output and tap that it belongs to; so many sums are under way at a time. Each output is
summed in the order of the taps, so that it has the same bits as by tiles.

Panels of channels are the inner loop: pixels are read as they lie in memory, and stay in the
first-level cache for the next block, which shares some with this one. (Rows as the inner loop, with
taps that stay in registers, read every second cache line twice from the second-level cache: 1.5 to
3 times as long.)
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import compiled
from .distance import Distance, hidden
from .native import I64, offset
from .vector import PATHS, Path
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


class Block(NamedTuple):
    """The taps that outputs have, and how many outputs there are of a block."""

    height: int
    width: int
    rows: int
    steps: int


@functools.cache
def kernel(
    path: Path,
    element: int,
    block: Block,
    classes: tuple[int, int],
    *,
    partial: bool,
    finishes: bool,
) -> int:
    """Return the address of the kernel with these constants.

    Parameters
    ----------
    block : Block
        Its height may be 0.
    classes : (int, int)
        Along y and x.
    partial : bool
        Whether there are only some lanes of a panel.
    finishes : bool
        Whether there is an epilogue.
    """
    name, (height, width, rows, steps), (y, x) = path.name, block, classes

    def outputs(arguments):
        emit(name, element, height, width, rows, steps, y, x, partial, finishes, arguments)

    return compiled.address(compiled.TILE, outputs)


@intrinsic(prefer_literal=True)
def emit(typing, path, element, height, width, rows, steps, y, x, partial, finishes, arguments):
    """Generate the kernel; all but the last are constants."""
    constants = path, element, height, width, rows, steps, y, x, partial, finishes
    signature = types.void(*constants, arguments)
    path, element, height, width, rows, steps, y, x, partial, finishes = (
        constant.literal_value for constant in constants
    )
    block = Block(height, width, rows, steps)

    def generate(context, builder, signature, arguments):
        _Outputs(PATHS[path], element, block, (y, x), partial, finishes, builder, arguments[-1])
        return context.get_dummy_value()

    return signature, generate


class _Outputs(WindowEmitter):
    """The generator: at step ``t`` tap ``q*p + c`` meets the pixel of class ``c`` at ``t + q``."""

    #: How far on from what is addressed by an argument the panel and the step are.
    moved: Mapping[str, ir.Value] = MappingProxyType({})

    def __init__(
        self,
        path: Path,
        element: int,
        block: Block,
        classes: tuple[int, int],
        partial: bool,
        finishes: bool,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        window = Window(block.height, block.width, block.rows, 1)
        super().__init__(path, element, window, classes, OUTPUTS, partial, 0, builder, arguments)
        self.finishes = finishes
        self.x_step = Distance(builder, self.arguments["x_step"])
        self.c_step = Distance(builder, self.arguments["c_step"])
        first, all_first, all_stop, stop = self.bounds[:4]

        def some(step):
            after = builder.add(step, I64(block.steps))
            inside = builder.icmp_signed(">=", step, all_first)
            inside = builder.and_(inside, builder.icmp_signed("<=", after, all_stop))
            with builder.if_else(inside) as (all_taps, some_taps):
                with all_taps:
                    self._panels(step, block.steps, self._all_taps)
                with some_taps:
                    self._panels(step, 1, self._some_taps)
            return [builder.select(inside, after, builder.add(step, I64(1)))]

        self._while([first], lambda step: builder.icmp_signed("<", step, stop), some)

    def _panels(self, step: ir.Value, steps: int, sums_at: Callable) -> None:
        """Store the outputs of some steps, which are ``sums_at(step, steps)`` for each panel.

        Sums are rows of a vector, a row's steps one after the other.
        """
        b, arguments = self.builder, self.arguments
        self.rows = self.rows_of_g * steps

        def panel(number, *_):
            channels = b.mul(number, I64(self.path.nbytes))
            self.taps = offset(b, self._pointer("taps"), b.mul(number, arguments["taps_panel"]))
            self.line_moved = b.add(channels, self._x_at(step, 0))
            at = b.add(channels, b.mul(step, arguments["c_step"]))
            self.moved = {"scale": channels, "bias": channels, "c": at, "residual": at}
            sums = sums_at(step, steps)
            for place, row in enumerate(self._epilogue(sums) if self.finishes else sums):
                self._store_row(row, self._at("c", place, 0))
            return [], []

        self._loop(I64(0), arguments["panels"], [], panel)

    def _none(self) -> Rows:
        return [[self._constant(0)] for _ in range(self.rows)]

    def _some_taps(self, step: ir.Value, _: int) -> Rows:
        """Return the outputs of a step at which some taps may have nothing to meet.

        Those that have follow each other, so two loops are enough, however many taps there are.
        """
        b, arguments = self.builder, self.arguments
        has = [b.zext(self._has(kx, step), I64) for kx in range(self.width)]
        count = functools.reduce(b.add, has)
        first = I64(0)
        for kx in reversed(range(self.width)):
            first = b.select(self._has(kx, step), I64(kx), first)

        def line(ky, sums, _):
            return self._loop(first, b.add(first, count), sums, functools.partial(tap, ky)), []

        def tap(ky, kx, sums, _):
            place = b.add(b.mul(ky, I64(self.width)), kx)
            weight = [self._load(offset(b, self.taps, b.mul(place, I64(self.path.nbytes))))]
            moved = b.add(b.mul(ky, arguments["x_line_class"]), b.mul(kx, arguments["x_class"]))
            pixels = [self._row(offset(b, self._line(j, 0), moved)) for j in range(self.rows)]
            return [self._met(x, weight, row) for x, row in zip(pixels, sums, strict=True)], []

        return self._loop(I64(0), I64(self.height), self._none(), line)

    def _all_taps(self, _: ir.Value, steps: int) -> Rows:
        """Return the outputs of steps at which every tap has something to meet."""
        sums, classes = self._none(), self.x_classes
        taps = [
            [self._load(offset(self.builder, self.taps, place * self.path.nbytes))]
            for place in range(self.height * self.width)
        ]
        for place, line_class, met in sorted(self.lines):
            line = hidden(self.builder, self._line(place, line_class))
            for q, c in np.ndindex(steps + self.reach - 1, classes):
                there = [(s, (q - s) * classes + c) for s in range(min(steps, q + 1))]
                there = [(s, kx) for s, kx in there if kx < self.width]
                pixel = self._pixel(line, q, c) if there else []
                for (j, ky), (s, kx) in itertools.product(met, there):
                    output = j * steps + s
                    sums[output] = self._met(pixel, taps[ky * self.width + kx], sums[output])
        return sums

    def _line(self, place: int, c: int) -> ir.Value:
        """Return a line's pixel of class 0 at this step."""
        return offset(self.builder, self._x_line(place, c), self.line_moved)

    def _pixel(self, line: ir.Value, q: int, c: int) -> list[ir.Value]:
        """Load the pixel of a class some steps on."""
        at = self.x_step.at(line, q)
        if c:
            at = offset(self.builder, at, self.builder.mul(self.arguments["x_class"], I64(c)))
        return self._row(at)

    def _pointer(self, name: str) -> ir.Value:
        pointer = super()._pointer(name)
        return offset(self.builder, pointer, self.moved[name]) if name in self.moved else pointer

    def _at(self, name: str, i: int, j: int, half: int = 0) -> ir.Value:
        row, step = divmod(i, self.rows // self.rows_of_g)
        return self.c_step.at(self._start(name, ("c_row", row)), step)
