"""What the kernels of windows share: where lines lie, the loops over steps and panels."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from llvmlite import ir

from .distance import Distance, hidden
from .emitter import Emitter
from .native import I64, offset
from .vector import Path
from .window import Window, lines_of

Rows: TypeAlias = list[list[ir.Value]]


class WindowEmitter(Emitter):
    """Generates loops over steps, as many at a time as a window has, and over panels of channels.

    Where some taps have nothing to meet, or fewer steps are left, they go one by one.

    Attributes
    ----------
    channels, line_moved, taps_there : ir.Value
        While a panel is generated: its bytes from the first one, those of its pixels at this step
        from the first one's at step 0, and the first tap along x that has something to meet at
        this step, with one past the last.
    """

    vectors = 1

    def __init__(
        self,
        path: Path,
        element: int,
        window: Window,
        classes: tuple[int, int],
        record: np.dtype,
        partial: bool,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        super().__init__(path, element, builder, record, arguments)
        self.height, self.width, self.window_rows, self.steps = window
        self.partial = partial
        self.x_classes = classes[1]
        self.lines = lines_of(self.height, classes[0], self.window_rows)
        self._mask(self.arguments["lanes"], self.lanes)
        self.x_step = Distance(builder, self.arguments["x_step"])
        table = self._pointer("range")
        self.bounds = [
            self._load_int(offset(builder, table, 8 * place)) for place in range(4 + 2 * self.width)
        ]

    def _all_steps(self, all_taps: Callable, some_taps: Callable) -> None:
        """Generate the loop over all steps.

        Parameters
        ----------
        all_taps, some_taps : callable
            ``all_taps(step, number)`` generates a panel's window from a step on, and
            ``some_taps(step, number)`` one step's, where some taps may have nothing to meet.
        """
        b = self.builder
        first, stop, all_first, all_stop = self.bounds[:4]

        def some(step):
            after = b.add(step, I64(self.steps))
            inside = b.and_(
                b.icmp_signed(">=", step, all_first), b.icmp_signed("<=", after, all_stop)
            )
            with b.if_else(inside) as (window, one_step):
                with window:
                    self._panels(step, all_taps)
                with one_step:
                    self.taps_there = self._taps_there(step)
                    self._panels(step, some_taps)
            return [b.select(inside, after, b.add(step, I64(1)))]

        self._while([first], lambda step: b.icmp_signed("<", step, stop), some)

    def _panels(self, step: ir.Value, generate: Callable) -> None:
        b = self.builder

        def panel(number, _):
            self.channels = b.mul(number, I64(self.path.nbytes))
            self.line_moved = b.add(self.channels, b.mul(step, self.arguments["x_step"]))
            generate(step, number)
            return []

        self._loop(I64(0), self.arguments["panels"], [], panel)

    def _loop(self, start: ir.Value, stop: ir.Value, sums: Rows, body: Callable) -> Rows:
        """Return the sums after ``sums = body(number, sums)`` for some numbers."""

        def next_(number, *flat):
            return [b.add(number, I64(1)), *itertools.chain(*body(number, [[s] for s in flat]))]

        b = self.builder
        state = [start, *itertools.chain(*sums)]
        after = self._while(state, lambda number, *_: b.icmp_signed("<", number, stop), next_)
        return [[value] for value in after[1:]]

    def _taps_there(self, step: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return the range of taps along x that have a step: they follow each other."""
        b = self.builder
        has = [
            b.and_(
                b.icmp_signed(">=", step, self.bounds[4 + kx]),
                b.icmp_signed("<", step, self.bounds[4 + self.width + kx]),
            )
            for kx in range(self.width)
        ]
        first = I64(0)
        for kx in reversed(range(self.width)):
            first = b.select(has[kx], I64(kx), first)
        count = functools.reduce(b.add, (b.zext(there, I64) for there in has))
        return first, b.add(first, count)

    def _some_taps(self, sums: Rows, meet: Callable) -> Rows:
        """Return the sums after all taps that are there, in order.

        Parameters
        ----------
        meet : callable
            ``meet(ky, kx, pixels, sums)`` returns the sums after a tap, which meets a pixel of each
            row. Two loops are enough, however many taps there are.
        """
        b, arguments = self.builder, self.arguments

        def tap(ky, kx, sums):
            moved = b.add(b.mul(ky, arguments["x_line_class"]), b.mul(kx, arguments["x_class"]))
            lines = [offset(b, self._line(j, 0), moved) for j in range(self.window_rows)]
            return meet(ky, kx, [self._vector(line) for line in lines], sums)

        def line(ky, sums):
            return self._loop(*self.taps_there, sums, functools.partial(tap, ky))

        return self._loop(I64(0), I64(self.height), sums, line)

    def _meetings(self) -> Iterator[tuple[ir.Value, int, int, int, int]]:
        """Yield (pixel, row, tap along y, step, tap along x) of all that meet in a window.

        Each pixel is loaded once. An output meets its taps, and a tap its outputs, in order.
        """
        classes = self.x_classes
        reach = -(-self.width // classes)
        for place, line_class, met in self.lines:
            line = hidden(self.builder, self._line(place, line_class))
            for q, c in np.ndindex(self.steps + reach - 1, classes):
                there = [(s, (q - s) * classes + c) for s in range(min(self.steps, q + 1))]
                there = [(s, kx) for s, kx in there if kx < self.width]
                if there:
                    pixel = self._vector(self._on(self.x_step.at(line, q), "x_class", c))
                    for (j, ky), (s, kx) in itertools.product(met, there):
                        yield pixel, j, ky, s, kx

    # Where things lie.

    def _on(self, at: ir.Value, argument: str, count: int) -> ir.Value:
        """Return an address moved by a constant number of an argument."""
        b = self.builder
        return offset(b, at, b.mul(self.arguments[argument], I64(count))) if count else at

    def _line(self, place: int, c: int) -> ir.Value:
        """Return a line's pixel of class 0 at this step."""
        line = self._on(self._on(self._pointer("x"), "x_line", place), "x_line_class", c)
        return offset(self.builder, line, self.line_moved)

    def _vector(self, at: ir.Value) -> ir.Value:
        return self._load(at, last=self.partial)

    def _store_whole(self, value: ir.Value, at: ir.Value) -> None:
        at = self.builder.bitcast(at, self.vector.as_pointer())
        self.builder.store(value, at).align = self.itemsize
