"""The transforms of Winograd's algorithm, one kernel each, a vector of channels at a time.

Each is a matrix from the left and its transpose from the right (see `cook_toom`). A product
transforms r x r taps, n x n sources, and n x n products; a kernel gradient n x n sources, the
gradients of m x m results, and n x n sums of products. What is made into operands goes to places
far apart, one for each product. What is made of products, m x m results or r x r taps, is finished
and written where it belongs. All run over the channels in whole vectors; the last one overlaps the
one before where it has to, so that none is ever cut.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np
from llvmlite import ir

from . import compiled, cook_toom
from .distance import Distance, hidden
from .emitter import Emitter
from .native import BYTES, I64, offset
from .vector import ELEMENTS, Path

#: What a transform is called with, by address; steps and offsets are in bytes.
TRANSFORM = np.dtype(
    [
        (name, np.int64)
        for name in (
            "window",  # address of the taps, sources, results or their gradients
            "row",  # from one row of the window to the next
            "pixel",
            "products",  # address of the first of n*n
            "product",  # from one to the next
            "last",  # offset of the last vector of channels
            "scale",  # addresses of vectors, or 0
            "bias",
            "residual",  # address of an array laid out as the results, or 0
            "activation",  # its place in ACTIVATIONS
        )
    ]
)
TRANSFORM_NBYTES = TRANSFORM.itemsize

#: What is transformed: the first three by a product, sources and the last two by its adjoint.
TAPS, SOURCES, PRODUCTS, RESULTS, SUMS = range(5)


@functools.cache
def kernel(path: Path, element: int, m: int, r: int, kind: int) -> int:
    """Return the address of a transform of F(m, r)."""
    return compiled.kernel(_Transform, path, element, m, r, kind)


class _Transform(Emitter):
    """The generator of one transform; what is finished at a time are the pixels of a row."""

    def __init__(
        self,
        path: Path,
        element: int,
        m: int,
        r: int,
        kind: int,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        super().__init__(path, element, builder, TRANSFORM, arguments)
        self.algorithm = cook_toom.algorithm(m, r)
        matrix = (
            self.algorithm.kernel,
            self.algorithm.source,
            self.algorithm.output,
            cook_toom.transposed(self.algorithm.output),
            cook_toom.transposed(self.algorithm.kernel),
        )[kind]
        self.rows, self.vectors = len(matrix), 1
        self.in_memory, self.alignment = self.vector, self.itemsize
        if kind == TAPS:  # in float64, so that they are rounded once
            self.element = next(e for e in ELEMENTS if e.dtype == np.float64)
            self.itemsize = self.element.dtype.itemsize
            self.vector = ir.VectorType(self.element.type, self.lanes)
        row, pixel, product = (self.arguments[name] for name in ("row", "pixel", "product"))
        self.of_row, self.of_pixel, self.of_product, self.of_products = (
            Distance(builder, step)
            for step in (row, pixel, product, builder.mul(product, I64(self.algorithm.n)))
        )
        body = self._from_products if kind in (PRODUCTS, SUMS) else self._to_operands
        self._over_channels(lambda: body(matrix))

    def _over_channels(self, body) -> None:
        """Run `body` with ``self.channel`` at the offset of each vector."""
        b, last = self.builder, self.arguments["last"]
        before = b.block
        loop, after = (b.function.append_basic_block(name) for name in ("channels", "after"))
        b.branch(loop)
        b.position_at_end(loop)
        self.channel = b.phi(I64)
        self.channel.add_incoming(I64(0), before)
        body()
        following = b.add(self.channel, I64(self.path.nbytes))
        following = b.select(b.icmp_signed("<", following, last), following, last)
        self.channel.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", self.channel, last), loop, after)
        b.position_at_end(after)

    def _to_operands(self, matrix: cook_toom.Matrix) -> None:
        for y, row in self._on_both_axes(matrix, self._in_window):
            for x, value in enumerate(row):
                self._store(value, self._product(y, x))

    def _from_products(self, matrix: cook_toom.Matrix) -> None:
        for y, row in self._on_both_axes(matrix, self._product):
            self.row = y
            for x, (value,) in enumerate(self._epilogue([[value] for value in row])):
                self._store(value, self._in_window(y, x))

    def _on_both_axes(
        self, matrix: cook_toom.Matrix, place: Callable[[int, int], ir.Value]
    ) -> Iterator[tuple[int, list[ir.Value]]]:
        """Yield the rows of a matrix times what lies in ``place(y, x)`` times its transpose.

        The columns between are more than the registers hold: they go to the stack, and back row
        by row. LLVM is not told that it is the stack, or it would hold them all the same.
        """
        b, rows, columns = self.builder, len(matrix), len(matrix[0])
        held: dict[tuple[int, int], ir.Value] = {}
        stack = None
        if rows * columns > self.path.registers:
            nbytes = self.lanes * self.itemsize
            with b.goto_entry_block():
                room = b.alloca(ir.ArrayType(self.vector, rows * columns))
            room.align = nbytes
            stack = hidden(b, b.bitcast(room, BYTES))

        def aside(y: int, x: int) -> ir.Value:
            at = offset(b, stack, (y * columns + x) * nbytes)
            return b.bitcast(at, self.vector.as_pointer())

        for x in range(columns):
            column = self._times(matrix, [self._load(place(y, x)) for y in range(columns)])
            for y, value in enumerate(column):
                if stack:
                    b.store(value, aside(y, x)).align = nbytes
                else:
                    held[y, x] = value
        for y in range(rows):
            row = []
            for x in range(columns):
                if stack:
                    held[y, x] = b.load(aside(y, x), typ=self.vector)
                    held[y, x].align = nbytes
                row.append(held[y, x])
            yield y, self._times(matrix, row)

    # Where vectors lie.

    def _pointer(self, name: str) -> ir.Value:
        return offset(self.builder, super()._pointer(name), self.channel)

    def _in_window(self, y: int, x: int, name: str = "window") -> ir.Value:
        return self.of_pixel.at(self.of_row.at(self._pointer(name), y), x)

    def _product(self, y: int, x: int) -> ir.Value:
        return self.of_product.at(self.of_products.at(self._pointer("products"), y), x)

    def _load(self, at: ir.Value, *, last: bool = False) -> ir.Value:
        at = self.builder.bitcast(at, self.in_memory.as_pointer())
        loaded = self.builder.load(at, typ=self.in_memory)
        loaded.align = self.alignment
        wider = self.vector != self.in_memory
        return self.builder.fpext(loaded, self.vector) if wider else loaded

    def _load_at(self, name: str, i: int, j: int) -> ir.Value:
        return self._load(self._in_window(self.row, i, name))

    def _store(self, value: ir.Value, at: ir.Value) -> None:
        if value.type != self.in_memory:
            value = self.builder.fptrunc(value, self.in_memory)
        at = self.builder.bitcast(at, self.in_memory.as_pointer())
        self.builder.store(value, at).align = self.alignment

    # What is computed of them.

    def _times(self, matrix: cook_toom.Matrix, values: list[ir.Value]) -> list[ir.Value]:
        return cook_toom.program(matrix).run(values, self._sum)

    def _sum(self, terms: cook_toom.Terms) -> ir.Value:
        """Return the sum of the terms, one with the coefficient 1 first if there is one."""
        b = self.builder
        (first, result), *rest = sorted(terms, key=lambda term: term[0] != 1)
        if first != 1:
            result = b.fmul(self._constant(float(first)), result)
        for coefficient, value in rest:
            if abs(coefficient) == 1:
                result = (b.fadd if coefficient == 1 else b.fsub)(result, value)
            else:
                result = self._times_plus(self._constant(float(coefficient)), value, result)
        return result
