"""What the generators of kernels share: vectors in LLVM's words, and the epilogue.

A kernel is a C function of one address, that of a record of int64 arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir

from .native import BYTES, I64, LINE, offset
from .vector import ELEMENTS, Path

#: LLVM's number for the second-level cache.
SECOND_LEVEL = 2


class Emitter:
    """Generates ``rows x vectors`` of vectors from a record's arguments.

    Attributes
    ----------
    arguments : dict
        The record's fields, loaded.
    rows, vectors : int
        Of the sums that the epilogue is applied to.
    stored : int
        The lanes of what is masked: a vector, or half of one where `halved`.
    there, mask : ir.Value
        How many of them there are of a row's last vector, where it is `partial`, and which.
    """

    rows: int
    vectors: int
    stored: int
    there: ir.Value
    mask: ir.Value
    halved = False
    partial = True

    def __init__(
        self,
        path: Path,
        element: int,
        builder: ir.IRBuilder,
        record: np.dtype,
        address: ir.Value,
    ) -> None:
        self.path, self.element, self.builder = path, ELEMENTS[element], builder
        self.lanes = path.lanes(self.element)
        self.vector = ir.VectorType(self.element.type, self.lanes)
        self.itemsize = self.element.dtype.itemsize
        base = builder.inttoptr(address, BYTES)
        self.arguments = {
            name: self._load_int(offset(builder, base, field[1]))
            for name, field in (record.fields or {}).items()
        }

    def _load_int(self, at: ir.Value) -> ir.Value:
        return self.builder.load(self.builder.bitcast(at, I64.as_pointer()), typ=I64)

    def _pointer(self, name: str) -> ir.Value:
        return self.builder.inttoptr(self.arguments[name], BYTES)

    def _constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.vector, [self.element.type(value)] * self.lanes)

    def _splat(self, scalar: ir.Value) -> ir.Value:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def _mask(self, count: ir.Value, stored: int) -> None:
        """Let there be the first `count` of the `stored` lanes, of what is masked."""
        self.stored, self.there = stored, count
        self.mask = self._first_lanes(count, stored)

    def _first_lanes(self, count: ir.Value, lanes: int) -> ir.Value:
        """Return the mask of the first `count` of a vector's lanes."""
        kind = ir.VectorType(I64, lanes)
        places = ir.Constant(kind, list(range(lanes)))
        undefined = ir.Constant(kind, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        first = self.builder.insert_element(undefined, count, ir.IntType(32)(0))
        counts = self.builder.shuffle_vector(first, undefined, zeros)
        return self.builder.icmp_signed("<", places, counts)

    def _load(self, at: ir.Value, *, last: bool = False) -> ir.Value:
        """Load a vector; of the last one only the lanes that there are."""
        if last:
            return self._masked_load(at)
        at = self.builder.bitcast(at, self.vector.as_pointer())
        loaded = self.builder.load(at, typ=self.vector)
        loaded.align = self.itemsize
        return loaded

    def _masked_load(self, at: ir.Value) -> ir.Value:
        kind = ir.VectorType(self.element.type, self.stored)
        at = self.builder.bitcast(at, kind.as_pointer())
        function = self.builder.module.declare_intrinsic(
            f"llvm.masked.load.{self._suffix(self.stored)}.p0",
            (),
            ir.FunctionType(kind, [at.type, ir.IntType(32), self.mask.type, kind]),
        )
        zeros = ir.Constant(kind, [self.element.type(0)] * self.stored)
        return self.builder.call(function, [at, ir.IntType(32)(self.itemsize), self.mask, zeros])

    def _ask_for(self, at: ir.Value, vectors: int) -> None:
        """Have the lines of so many vectors brought to the second-level cache, if they exist."""
        number = ir.IntType(32)
        function = self.builder.module.declare_intrinsic(
            "llvm.prefetch.p0", (), ir.FunctionType(ir.VoidType(), [BYTES, number, number, number])
        )
        kind = number(0), number(SECOND_LEVEL), number(1)  # to be read, of data
        for line in range(0, vectors * self.path.nbytes, LINE):
            self.builder.call(function, [offset(self.builder, at, line), *kind])

    def _store_first(self, stores: Sequence[tuple[ir.Value, ir.Value]]) -> None:
        """Store of each value, at its address, the first lanes that there are.

        Without AVX-512 a masked store takes a dozen cycles on some machines, so the lanes go in
        pieces of a power of two.
        """
        if self.path.name == "avx512":
            for value, at in stores:
                self._masked_store(value, at)
            return
        b, width = self.builder, self.stored
        done: ir.Value = I64(0)  # bytes
        values = [value for value, _ in stores]
        while width:
            # Fewer than `width` lanes are left behind this.
            kept = [self._lanes_of(value, list(range(width))) for value in values]
            before = b.block
            inside, after = (b.function.append_basic_block(name) for name in ("piece", "on"))
            b.cbranch(b.icmp_signed("!=", b.and_(self.there, I64(width)), I64(0)), inside, after)
            b.position_at_end(inside)
            for piece, (_, at) in zip(kept, stores, strict=True):
                at = b.bitcast(offset(b, at, done), piece.type.as_pointer())
                b.store(piece, at).align = self.itemsize
            moved = kept
            if width < self.stored:
                following = list(range(width, 2 * width))
                moved = [self._lanes_of(value, following) for value in values]
            further = b.add(done, I64(width * self.itemsize))
            b.branch(after)
            b.position_at_end(after)
            values = []
            for here, there in ((done, further), *zip(kept, moved, strict=True)):
                phi = b.phi(here.type)
                phi.add_incoming(here, before)
                phi.add_incoming(there, inside)
                values.append(phi)
            done, width = values.pop(0), width // 2

    def _masked_store(self, value: ir.Value, at: ir.Value) -> None:
        at = self.builder.bitcast(at, value.type.as_pointer())
        function = self.builder.module.declare_intrinsic(
            f"llvm.masked.store.{self._suffix(self.stored)}.p0",
            (),
            ir.FunctionType(ir.VoidType(), [value.type, at.type, ir.IntType(32), self.mask.type]),
        )
        self.builder.call(function, [value, at, ir.IntType(32)(self.itemsize), self.mask])

    def _lanes_of(self, value: ir.Value, places: list[int]) -> ir.Value:
        """Return a vector of some lanes of another."""
        chosen = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), chosen)

    def _suffix(self, lanes: int) -> str:
        kind = "f" if self.element.floating else "i"
        return f"v{lanes}{kind}{8 * self.itemsize}"

    def _times_plus(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return ``a*b + c``, rounded once where the path fuses them."""
        if not self.element.floating:
            return self.builder.add(self.builder.mul(a, b), c)
        if not self.path.fused:
            return self.builder.fadd(self.builder.fmul(a, b), c)
        function = self.builder.module.declare_intrinsic(
            f"llvm.fma.{self._suffix(self.lanes)}",
            (),
            ir.FunctionType(self.vector, [self.vector] * 3),
        )
        return self.builder.call(function, [a, b, c])

    def _phis(self) -> list[list[ir.Value]]:
        return [
            [self.builder.phi(self.vector) for _ in range(self.vectors)] for _ in range(self.rows)
        ]

    def _while(
        self,
        state: Sequence[ir.Value],
        going: Callable[..., ir.Value],
        body: Callable[..., Sequence[ir.Value]],
    ) -> list[ir.Value]:
        """Repeat ``state = body(*state)`` while ``going(*state)``; return the last state."""
        b = self.builder
        before = b.block
        head, inside, after = (
            b.function.append_basic_block(name) for name in ("head", "body", "after")
        )
        b.branch(head)
        b.position_at_end(head)
        running = [b.phi(value.type) for value in state]
        b.cbranch(going(*running), inside, after)
        b.position_at_end(inside)
        following = body(*running)
        for phi, first, next_ in zip(running, state, following, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, b.block)
        b.branch(head)
        b.position_at_end(after)
        return running

    # What follows the sums.

    def _epilogue(self, sums: list[list[ir.Value]]) -> list[list[ir.Value]]:
        """Return ``activation(scale*sums + bias + residual)``, each part where it is given."""
        b = self.builder
        zero, six = self._constant(0), self._constant(6)

        def of_channels(name, combine):
            pointer = self._pointer(name)
            parts = [
                self._load(offset(b, pointer, j * self.path.nbytes)) for j in range(self.vectors)
            ]
            return lambda i, j, value: combine(value, parts[j])

        def residual():
            return lambda i, j, value: b.fadd(value, self._load_at("residual", i, j))

        def clamped(order, limit):
            # An ordered comparison is false for NaN, which so passes.
            return lambda: (
                lambda i, j, value: b.select(b.fcmp_ordered(order, value, limit), limit, value)
            )

        arguments, none = self.arguments, I64(0)
        for condition, part in (
            (arguments["scale"], lambda: of_channels("scale", b.fmul)),
            (arguments["bias"], lambda: of_channels("bias", b.fadd)),
            (arguments["residual"], residual),
            (arguments["activation"], clamped("<", zero)),
            (b.and_(arguments["activation"], I64(2)), clamped(">", six)),
        ):
            sums = self._where(b.icmp_signed("!=", condition, none), sums, part)
        return sums

    def _where(self, condition, values, part) -> list[list[ir.Value]]:
        """Return the values, changed by ``part()(i, j, value)`` where the condition holds."""
        b = self.builder
        before, inside, after = b.block, *(b.function.append_basic_block(n) for n in ("then", "on"))
        b.cbranch(condition, inside, after)
        b.position_at_end(inside)
        change = part()
        changed = [[change(i, j, v) for j, v in enumerate(row)] for i, row in enumerate(values)]
        b.branch(after)
        b.position_at_end(after)
        result = self._phis()
        for phis, old, new in zip(result, values, changed, strict=True):
            for phi, value, other in zip(phis, old, new, strict=True):
                phi.add_incoming(value, before)
                phi.add_incoming(other, inside)
        return result

    def _at(self, name: str, i: int, j: int, half: int = 0) -> ir.Value:
        """Return where a vector of a row lies in `c` or what is laid out as it."""
        b = self.builder
        row = offset(b, self._pointer(name), b.mul(self.arguments["c_row"], I64(i)))
        if half:
            return offset(b, row, self.arguments["c_half"])
        return offset(b, row, j * self.path.nbytes)

    def _load_at(self, name: str, i: int, j: int) -> ir.Value:
        if not self.halved:
            last = self.partial and j == self.vectors - 1
            return self._load(self._at(name, i, j), last=last)
        both = [self._masked_load(self._at(name, i, j, half)) for half in (0, 1)]
        places = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), list(range(self.lanes)))
        return self.builder.shuffle_vector(*both, places)
