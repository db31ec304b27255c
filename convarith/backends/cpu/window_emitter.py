"""What the kernels of windows share: where lines lie, and the loops over steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from llvmlite import ir

from .emitter import Emitter
from .native import I64, offset
from .vector import Path
from .window import Window, lines_of

Rows: TypeAlias = list[list[ir.Value]]


class WindowEmitter(Emitter):
    """Generates a loop over a window's steps: some taps, all of them, some.

    Its sums are rows of vectors, as the emitter knows them.
    """

    def __init__(
        self,
        path: Path,
        element: int,
        window: Window,
        classes: tuple[int, int],
        record: np.dtype,
        partial: bool,
        sums: int,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        super().__init__(path, element, builder, record, arguments)
        self.height, self.width, self.rows_of_g, self.vectors = window
        self.rows, self.partial = sums, partial
        self.x_classes = classes[1]
        #: How many outputs a pixel meets at most.
        self.reach = -(-self.width // self.x_classes)
        self.lines = lines_of(self.height, classes[0], self.rows_of_g)
        self._mask(self.arguments["lanes"], self.lanes)
        table = self._pointer("range")
        self.bounds = [
            self._load_int(offset(builder, table, 8 * place)) for place in range(4 + 2 * self.width)
        ]

    def _slide(self, some: Callable, before_all: Callable, every: Callable) -> Rows:
        """Return the sums of all steps.

        Parameters
        ----------
        some, every : callable
            ``some(step, sums)`` and ``every(step, sums, more)`` return the sums after a step.
        before_all : callable
            ``before_all(step)`` returns `more` values before the first step that all taps have;
            `every` returns those of the next one as well.
        """
        sums = [[self._constant(0)] * self.vectors for _ in range(self.rows)]
        first, all_first, all_stop, stop = self.bounds[:4]
        sums = self._loop(first, all_first, sums, lambda step, sums, _: (some(step, sums), []))
        sums = self._loop(all_first, all_stop, sums, every, before_all)
        return self._loop(all_stop, stop, sums, lambda step, sums, _: (some(step, sums), []))

    def _loop(
        self,
        start: ir.Value,
        stop: ir.Value,
        sums: Rows,
        body: Callable,
        before: Callable = lambda step: [],
    ) -> Rows:
        """Return the sums after ``sums, more = body(step, sums, more)`` for some steps."""
        b = self.builder
        ahead = b.block
        entry, inside, after = (
            b.function.append_basic_block(name) for name in ("entry", "steps", "after")
        )
        b.cbranch(b.icmp_signed("<", start, stop), entry, after)
        b.position_at_end(entry)
        more = before(start)
        b.branch(inside)
        b.position_at_end(inside)
        step = b.phi(I64)
        running = [[b.phi(self.vector) for _ in row] for row in sums]
        kept = [[b.phi(self.vector) for _ in row] for row in more]
        summed, following = body(step, running, kept)
        next_step, last = b.add(step, I64(1)), b.block
        b.cbranch(b.icmp_signed("<", next_step, stop), inside, after)
        b.position_at_end(after)
        result = [[b.phi(self.vector) for _ in row] for row in sums]
        step.add_incoming(start, entry)
        step.add_incoming(next_step, last)
        _connect(running, (sums, entry), (summed, last))
        _connect(kept, (more, entry), (following, last))
        _connect(result, (sums, ahead), (summed, last))
        return result

    def _when(self, condition: ir.Value, sums: Rows, part: Callable[[Rows], Rows]) -> Rows:
        """Return ``part(sums)`` where the condition holds, or else the sums."""
        b = self.builder
        before = b.block
        inside, after = (b.function.append_basic_block(name) for name in ("when", "next"))
        b.cbranch(condition, inside, after)
        b.position_at_end(inside)
        changed, last = part(list(sums)), b.block
        b.branch(after)
        b.position_at_end(after)
        result = self._phis()
        _connect(result, (sums, before), (changed, last))
        return result

    def _has(self, kx: int, step: ir.Value) -> ir.Value:
        """Whether a tap along x has a step."""
        b = self.builder
        return b.and_(
            b.icmp_signed(">=", step, self.bounds[4 + kx]),
            b.icmp_signed("<", step, self.bounds[4 + self.width + kx]),
        )

    # Where things lie.

    def _start(self, name: str, *steps: tuple[str, int]) -> ir.Value:
        """Return an argument's address, moved by constant numbers of other arguments."""
        b = self.builder
        at = self._pointer(name)
        for step, count in steps:
            at = offset(b, at, b.mul(self.arguments[step], I64(count))) if count else at
        return at

    def _x_line(self, place: int, c: int) -> ir.Value:
        """Return a line's pixel of class 0 at step 0."""
        return self._start("x", ("x_line", place), ("x_line_class", c))

    def _x_at(self, step: ir.Value, c: int) -> ir.Value:
        """Return the bytes from a line's start to the pixel of a class at a step."""
        b, arguments = self.builder, self.arguments
        at = b.mul(step, arguments["x_step"])
        return b.add(at, b.mul(arguments["x_class"], I64(c))) if c else at

    def _row(self, at: ir.Value) -> list[ir.Value]:
        last = self.vectors - 1
        return [
            self._load(
                offset(self.builder, at, v * self.path.nbytes), last=self.partial and v == last
            )
            for v in range(self.vectors)
        ]

    def _store_row(self, row: list[ir.Value], at: ir.Value) -> None:
        for v, value in enumerate(row):
            here = offset(self.builder, at, v * self.path.nbytes)
            if self.partial and v == self.vectors - 1:
                self._store_first([(value, here)])
            else:
                here = self.builder.bitcast(here, self.vector.as_pointer())
                self.builder.store(value, here).align = self.itemsize

    def _met(self, x: list[ir.Value], y: list[ir.Value], sums: list[ir.Value]) -> list[ir.Value]:
        return [self._times_plus(*abc) for abc in zip(x, y, sums, strict=True)]


def _connect(phis: Rows, *incoming: tuple[Rows, ir.Block]) -> None:
    for values, block in incoming:
        for phi_row, row in zip(phis, values, strict=True):
            for phi, value in zip(phi_row, row, strict=True):
                phi.add_incoming(value, block)
