"""The transforms of Winograd's algorithm, one kernel each, a vector of channels at a time.

Each is a matrix from the left and its transpose from the right (see `cook_toom`): of r x r taps,
of n x n sources, and of n x n products. What comes of the first two goes to places far apart, to
an operand of each product. The last one's m x m results are finished and written where they
belong. All run over the channels in whole vectors; the last one overlaps the one before where it
has to, so that none is ever cut.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import compiled, cook_toom
from .native import BYTES, I64, offset
from .vector import ELEMENTS, PATHS, Path

#: What a transform is called with, by address; steps and offsets are in bytes.
TRANSFORM = np.dtype(
    [
        (name, np.int64)
        for name in (
            "window",  # address of the taps, sources or results
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


#: What is transformed.
TAPS, SOURCES, PRODUCTS = 0, 1, 2


@functools.cache
def kernel(path: Path, element: int, m: int, r: int, kind: int) -> int:
    """Return the address of a transform of F(m, r)."""
    name = path.name

    def transform(arguments):
        emit(name, element, m, r, kind, arguments)

    return compiled.address(compiled.TILE, transform)


@intrinsic(prefer_literal=True)
def emit(typing, path, element, m, r, kind, arguments):
    """Generate the kernel; all but the last are constants."""
    signature = types.void(path, element, m, r, kind, arguments)
    constants = [constant.literal_value for constant in (element, m, r, kind)]

    def generate(context, builder, signature, arguments):
        _Transform(PATHS[path.literal_value], *constants, builder, arguments[-1])
        return context.get_dummy_value()

    return signature, generate


class _Transform:
    """The generator of one transform."""

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
        self.path, self.element, self.builder = path, ELEMENTS[element], builder
        self.lanes = path.lanes(self.element)
        self.vector = ir.VectorType(self.element.type, self.lanes)
        # Taps are transformed in float64, so that they are rounded once.
        self.computed = ir.DoubleType() if kind == TAPS else self.element.type
        self.algorithm = cook_toom.algorithm(m, r)
        base = builder.inttoptr(arguments, BYTES)
        self.arguments = {
            name: builder.load(
                builder.bitcast(offset(builder, base, field[1]), I64.as_pointer()), typ=I64
            )
            for name, field in (TRANSFORM.fields or {}).items()
        }
        self._over_channels((self._taps, self._sources, self._results)[kind])

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

    def _taps(self) -> None:
        self._to_operands(self.algorithm.kernel)

    def _sources(self) -> None:
        self._to_operands(self.algorithm.source)

    def _to_operands(self, matrix: cook_toom.Matrix) -> None:
        places = range(len(matrix[0]))
        columns = [
            self._times(matrix, [self._load(self._in_window("window", y, x)) for y in places])
            for x in places
        ]
        for y in range(self.algorithm.n):
            for x, value in enumerate(self._times(matrix, [column[y] for column in columns])):
                self._store(value, self._product(y, x))

    def _results(self) -> None:
        n, matrix = self.algorithm.n, self.algorithm.output
        columns = [
            self._times(matrix, [self._load(self._product(y, x)) for y in range(n)])
            for x in range(n)
        ]
        for y in range(self.algorithm.m):
            row = self._times(matrix, [column[y] for column in columns])
            for x, value in enumerate(self._finished(y, row)):
                self._store(value, self._in_window("window", y, x))

    # Where vectors lie.

    def _at(self, name: str) -> ir.Value:
        pointer = self.builder.inttoptr(self.arguments[name], BYTES)
        return offset(self.builder, pointer, self.channel)

    def _in_window(self, name: str, y: int, x: int) -> ir.Value:
        b, arguments = self.builder, self.arguments
        row = offset(b, self._at(name), b.mul(arguments["row"], I64(y)))
        return offset(b, row, b.mul(arguments["pixel"], I64(x)))

    def _product(self, y: int, x: int) -> ir.Value:
        place = self.builder.mul(self.arguments["product"], I64(y * self.algorithm.n + x))
        return offset(self.builder, self._at("products"), place)

    def _load(self, at: ir.Value) -> ir.Value:
        at = self.builder.bitcast(at, self.vector.as_pointer())
        loaded = self.builder.load(at, typ=self.vector)
        loaded.align = self.element.dtype.itemsize
        if self.computed != self.element.type:
            return self.builder.fpext(loaded, ir.VectorType(self.computed, self.lanes))
        return loaded

    def _store(self, value: ir.Value, at: ir.Value) -> None:
        if self.computed != self.element.type:
            value = self.builder.fptrunc(value, self.vector)
        at = self.builder.bitcast(at, self.vector.as_pointer())
        self.builder.store(value, at).align = self.element.dtype.itemsize

    # What is computed of them.

    def _constant(self, value: float) -> ir.Constant:
        kind = ir.VectorType(self.computed, self.lanes)
        return ir.Constant(kind, [self.computed(value)] * self.lanes)

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
                result = self._plus(result, self._constant(float(coefficient)), value)
        return result

    def _plus(self, total: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return ``a*b + total``, rounded once where the path fuses them."""
        if not self.path.fused:
            return self.builder.fadd(self.builder.fmul(a, b), total)
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(total.type, [total.type] * 3),
            f"llvm.fma.v{self.lanes}f{64 if self.computed == ir.DoubleType() else 32}",
        )
        return self.builder.call(function, [a, b, total])

    def _finished(self, y: int, row: list[ir.Value]) -> list[ir.Value]:
        """Return ``activation(scale*row + bias + residual)``, each part where it is given."""
        b, arguments = self.builder, self.arguments

        def of_channels(name, combine):
            part = self._load(self._at(name))
            return lambda x, value: combine(value, part)

        def clamped(order, limit):
            # An ordered comparison is false for NaN, which so passes.
            return lambda x, value: b.select(b.fcmp_ordered(order, value, limit), limit, value)

        parts = [
            (arguments["scale"], lambda: of_channels("scale", b.fmul)),
            (arguments["bias"], lambda: of_channels("bias", b.fadd)),
            (
                arguments["residual"],
                lambda: (
                    lambda x, value: b.fadd(value, self._load(self._in_window("residual", y, x)))
                ),
            ),
            (arguments["activation"], lambda: clamped("<", self._constant(0))),
            (b.and_(arguments["activation"], I64(2)), lambda: clamped(">", self._constant(6))),
        ]
        for condition, part in parts:
            row = self._where(b.icmp_signed("!=", condition, I64(0)), row, part)
        return row

    def _where(self, condition: ir.Value, values: list[ir.Value], part) -> list[ir.Value]:
        """Return the values, changed by ``part()(place, value)`` where the condition holds."""
        b = self.builder
        before, inside, after = b.block, *(b.function.append_basic_block(n) for n in ("then", "on"))
        b.cbranch(condition, inside, after)
        b.position_at_end(inside)
        change = part()
        changed = [change(place, value) for place, value in enumerate(values)]
        b.branch(after)
        b.position_at_end(after)
        result = []
        for value, other in zip(values, changed, strict=True):
            phi = b.phi(self.vector)
            phi.add_incoming(value, before)
            phi.add_incoming(other, inside)
            result.append(phi)
        return result
