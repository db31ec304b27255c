"""The tile: the one kernel under every product.

A tile is ``rows x vectors`` accumulators that stay in registers while

    C[i, j] = sum over segments g, steps k of A[i, g, k] * B[g, k, j]

runs over them: ``A`` at ``a + a_offset[g] + i*a_row + k*a_step`` is one element, broadcast to
all lanes ``j`` of ``B`` at ``b + b_offset[g] + k*b_step``. Where the tile is *channelwise*, ``A``
is a vector as well and meets ``B`` lane by lane, as a depthwise convolution has it. Where it is
*halved*, the two halves of its one vector go to two places: the few channels of two rows of
a transposed convolution fill a vector together. Rows are
pixels, lanes are channels, segments are the taps of a kernel that lie side by side in memory: so
it convolves straight from the array, without im2col. For a kernel gradient the rows are taps and
channels, the lanes channels of g, and the steps pixels.

Each sum runs in the order of segments and steps, in one accumulator or in so many *chains*, so the
bits depend on nothing else: not on rows, vectors, or where a tile lies.

All steps and offsets are in bytes. On AVX-512, 14 rows of 2 vectors run at the peak of the
machine; what it takes are one pointer a group of five rows and ``a_row`` in two registers, each
hidden from LLVM, which otherwise keeps a pointer a row and spills.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import compiled
from .emitter import Emitter
from .native import BYTES, I1, I64, offset
from .vector import PATHS, Path

#: What a tile is called with, by address.
TILE = np.dtype(
    [
        (name, np.int64)
        for name in (
            "a",
            "a_row",
            "a_step",
            "b",
            "b_step",
            "segments",  # address of SEGMENTs
            "count",  # of segments; 0 leaves the sums at zero
            "length",  # steps of each segment, at least 1
            "c",
            "c_row",
            "c_half",  # from the first half of a halved tile to the second
            "lanes",  # of the last vector that are read and stored; of a half
            "accumulate",  # whether to add to C rather than to write it
            "scale",  # addresses of whole vectors, or 0
            "bias",
            "residual",  # address of an array laid out as C, or 0
            "activation",  # its place in ACTIVATIONS
        )
    ]
)
SEGMENT = np.dtype([("a_offset", np.int64), ("b_offset", np.int64)])

B_OFFSET = SEGMENT.itemsize // 2

_GROUP = 5  # rows that one pointer serves: x86 addresses it + (0, 1, 2, 3, 4)*a_row


#: The kinds of tile.
DENSE, CHANNELWISE, HALVED = 0, 1, 2
#: Which last vectors are masked.
MASKED, B_MASKED = 1, 2


@functools.cache
def kernel(
    path: Path,
    element: int,
    rows: int,
    vectors: int,
    kind: int,
    taps: int = 0,
    *,
    chains: int = 1,
    partial: bool = False,
    in_place: bool = False,
) -> int:
    """Return the address of the tile kernel with these constants.

    Parameters
    ----------
    chains : int
        A power of two: so many steps in turn are summed apart, and the sums added at the end of
        all segments. Few sums would wait for each other, four cycles a step.
    partial : bool
        Whether of each row's last vector there are only some lanes: they alone are read of A
        where it is a vector, and written.
    in_place : bool
        Whether that holds for B as well; else it is padded. Masked loads are kept for where
        they must be: from memory or the last cache they are up to 1.8 times slower.
    taps : int
        Where rows are as far apart as the taps of the last axis: how many there are of these.
        What is loaded of A then meets all its taps at once: row i has tap t in A's row i + t. A
        step has as many rows of B; a channelwise tile has one step a segment.
    """
    name, masks = path.name, (MASKED if partial else 0) | (B_MASKED if in_place else 0)

    def tile(arguments):
        emit(name, element, rows, vectors, kind, taps, chains, masks, arguments)

    return compiled.address(compiled.TILE, tile)


def shapes(path: Path, channelwise: bool = False, taps: int = 0) -> list[tuple[int, int]]:
    """Return every (rows, vectors) that the registers hold beside the operands."""
    room = path.registers - 1  # an A where it cannot be a memory operand
    if taps or channelwise or not path.fused:
        room -= 1  # LLVM's, or what is added next
    most = path.registers * 3 // 4  # more sums gained nothing, and cost most where sums are short
    return [
        (rows, vectors)
        for vectors in range(1, 9)
        for rows in range(1, 29)
        if (rows + max(1, taps)) * vectors <= room
        and rows * vectors <= most
        and (not (taps and channelwise) or rows + taps - 1 <= 2 * _GROUP)  # else LLVM spills
    ]


@intrinsic(prefer_literal=True)
def emit(typing, path, element, rows, vectors, kind, taps, chains, masks, arguments):
    """Generate the kernel; all but the last are constants."""
    constants = element, rows, vectors, kind, taps, chains, masks
    signature = types.void(path, *constants, arguments)
    emitter = functools.partial(
        _Tile, PATHS[path.literal_value], *(constant.literal_value for constant in constants)
    )

    def generate(context, builder, signature, arguments):
        emitter(builder, arguments[-1])
        return context.get_dummy_value()

    return signature, generate


class _Tile(Emitter):
    """The generator of one tile kernel: loops, then epilogue, then stores."""

    def __init__(
        self,
        path: Path,
        element: int,
        rows: int,
        vectors: int,
        kind: int,
        taps: int,
        chains: int,
        masks: int,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        super().__init__(path, element, builder, TILE, arguments)
        self.rows, self.vectors, self.taps, self.chains = rows, vectors, taps, chains
        self.channelwise, self.halved = kind == CHANNELWISE, kind == HALVED
        self.partial, self.b_partial = bool(masks & MASKED), masks == MASKED | B_MASKED
        # What is stored of the last vector, or of each half; B is padded where tiles are halved.
        stored = self.lanes // 2 if self.halved else self.lanes
        self._mask(self.arguments["lanes"], stored)
        sums = self._sums()
        if self.element.floating:
            sums = self._epilogue(sums)
        self._store(sums)

    def _hidden(self, value: ir.Value) -> ir.Value:
        """Return the value such that LLVM does not know how it came about."""
        return self.builder.asm(
            ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], False
        )

    # The loops.

    def _sums(self) -> list[list[ir.Value]]:
        b, arguments = self.builder, self.arguments
        before = b.block
        segment, after = (b.function.append_basic_block(name) for name in ("segment", "sums"))
        a_row = self._hidden(arguments["a_row"])
        self.multiples = [None, a_row, b.shl(a_row, I64(1)), self._hidden(b.mul(a_row, I64(3)))]
        self.multiples.append(b.shl(a_row, I64(2)))
        b.cbranch(b.icmp_signed(">", arguments["count"], I64(0)), segment, after)

        b.position_at_end(segment)
        left = b.phi(I64)
        table = b.phi(BYTES)
        started = [b.phi(self.vector) for _ in range(self.chains * self.rows * self.vectors)]
        a_offset = self._load_int(table)
        b_offset = self._load_int(offset(b, table, B_OFFSET))
        first = offset(b, self._pointer("a"), a_offset)
        pointers = [offset(b, self._pointer("b"), b_offset)]
        for row in range(0, self.rows + max(0, self.taps - 1), _GROUP):
            at = self._hidden(offset(b, first, b.mul(a_row, I64(row)))) if row else first
            pointers.append(at)
        state = [arguments["length"], *pointers, *started]
        if self.chains > 1:
            state = self._steps(state, self.chains)
        summed = self._steps(state, 1)[1 + len(pointers) :]
        still = b.sub(left, I64(1))
        following = offset(b, table, SEGMENT.itemsize)
        between = b.block
        b.cbranch(b.icmp_signed(">", still, I64(0)), segment, after)

        b.position_at_end(after)
        result = [b.phi(self.vector) for _ in started]
        zero = self._constant(0)
        for phi, at_first, at_next in (
            (left, arguments["count"], still),
            (table, self._pointer_in(before, "segments"), following),
            *((phi, zero, value) for phi, value in zip(started, summed, strict=True)),
            *((phi, zero, value) for phi, value in zip(result, summed, strict=True)),
        ):
            phi.add_incoming(at_first, before)
            phi.add_incoming(at_next, between)
        while len(result) > self.rows * self.vectors:  # the chains, in pairs
            half = len(result) // 2
            result = [self._plus(*pair) for pair in zip(result[:half], result[half:], strict=True)]
        return self._in_rows(result)

    def _steps(self, state: list[ir.Value], together: int) -> list[ir.Value]:
        """Return the state after as many steps of a segment as there are, `together` at a time.

        The state is the number of steps that are left, the pointers into B and A, and the sums,
        chain by chain. A segment has a step; but more at a time, or any beyond them, it may not.
        """
        b, first = self.builder, 1 + -(-(self.rows + max(0, self.taps - 1)) // _GROUP) + 1
        before, body, after = (
            b.block,
            b.function.append_basic_block("step"),
            b.function.append_basic_block("stepped"),
        )
        checked = self.chains > 1
        if checked:
            b.cbranch(b.icmp_signed(">=", state[0], I64(together)), body, after)
        else:
            b.branch(body)
        b.position_at_end(body)
        running = [b.phi(value.type) for value in state]
        left, b_pointer, a_pointers = running[0], running[1], running[2:first]
        a_step, b_step = (self.arguments[name] for name in ("a_step", "b_step"))
        if self.taps:
            b_step = b.mul(b_step, I64(self.taps))
        each = self.rows * self.vectors
        sums = running[first:]
        for chain in range(together):

            def a_row_of(row: int, pointers: list[ir.Value] = a_pointers) -> ir.Value:
                at = pointers[row // _GROUP]
                return offset(b, at, self.multiples[row % _GROUP]) if row % _GROUP else at

            own = slice(chain * each, (chain + 1) * each)
            step = self._step_of_taps if self.taps else self._step
            summed = step(a_row_of, b_pointer, self._in_rows(sums[own]))
            sums[own] = [value for row in summed for value in row]
            b_pointer = offset(b, b_pointer, b_step)
            a_pointers = [offset(b, pointer, a_step) for pointer in a_pointers]
        fewer = b.sub(left, I64(together))
        following = [fewer, b_pointer, *a_pointers, *sums]
        once = self.taps and self.channelwise
        again = I1(0) if once else b.icmp_signed(">=", fewer, I64(together))
        b.cbranch(again, body, after)
        for phi, at_first, at_next in zip(running, state, following, strict=True):
            phi.add_incoming(at_first, before)
            phi.add_incoming(at_next, body)
        b.position_at_end(after)
        if not checked:
            return following
        result = [b.phi(value.type) for value in state]
        for phi, none, some in zip(result, state, following, strict=True):
            phi.add_incoming(none, before)
            phi.add_incoming(some, body)
        return result

    def _in_rows(self, sums: list[ir.Value]) -> list[list[ir.Value]]:
        return [sums[i : i + self.vectors] for i in range(0, len(sums), self.vectors)]

    def _step(self, a_row_of, b_pointer, running) -> list[list[ir.Value]]:
        """Return the sums after one step: rows of A times a row of B."""
        right = self._row(b_pointer, masked=self.b_partial)
        summed = []
        for i in range(self.rows):
            left = self._left(a_row_of(i))
            summed.append(
                [self._times_plus(*abc) for abc in zip(left, right, running[i], strict=True)]
            )
        return summed

    def _left(self, at: ir.Value) -> list[ir.Value]:
        """Load what meets the vectors of B: an element for all lanes, or vectors."""
        if self.channelwise:
            return self._row(at, masked=self.partial)
        at = self.builder.bitcast(at, self.element.type.as_pointer())
        scalar = self.builder.load(at, typ=self.element.type)
        scalar.align = self.itemsize
        return [self._splat(scalar)] * self.vectors

    def _step_of_taps(self, a_row_of, b_pointer, running) -> list[list[ir.Value]]:
        """Return the sums after a step that has all taps; row i meets tap t in A's row i + t."""
        step = self.arguments["b_step"]
        right = []
        for _ in range(self.taps):
            right.append(self._row(b_pointer, masked=self.b_partial))
            b_pointer = offset(self.builder, b_pointer, step)
        summed = [list(row) for row in running]
        for place in range(self.rows + self.taps - 1):
            left = self._left(a_row_of(place))
            for t in range(self.taps):
                if 0 <= place - t < self.rows:
                    sums = summed[place - t]
                    sums[:] = [
                        self._times_plus(*abc) for abc in zip(left, right[t], sums, strict=True)
                    ]
        return summed

    def _plus(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return (self.builder.fadd if self.element.floating else self.builder.add)(a, b)

    def _row(self, at: ir.Value, *, masked: bool) -> list[ir.Value]:
        """Load the vectors of a row; if masked, of the last one the lanes that there are."""
        return [
            self._load(
                offset(self.builder, at, j * self.path.nbytes),
                last=masked and j == self.vectors - 1,
            )
            for j in range(self.vectors)
        ]

    def _pointer_in(self, block: ir.Block, name: str) -> ir.Value:
        with self.builder.goto_block(block):
            return self._pointer(name)

    def _store(self, sums: list[list[ir.Value]]) -> None:
        b, last = self.builder, self.vectors - 1

        def accumulated():
            return lambda i, j, value: self._plus(self._load_at("c", i, j), value)

        sums = self._where(
            b.icmp_signed("!=", self.arguments["accumulate"], I64(0)), sums, accumulated
        )
        first = []
        for i in range(self.rows):
            for j in range(self.vectors):
                if self.halved:
                    for half in (0, 1):
                        own = list(range(half * self.stored, (half + 1) * self.stored))
                        part = self._lanes_of(sums[i][j], own)
                        first.append((part, self._at("c", i, j, half)))
                elif j == last and self.partial:
                    first.append((sums[i][j], self._at("c", i, j)))
                else:
                    at = b.bitcast(self._at("c", i, j), self.vector.as_pointer())
                    b.store(sums[i][j], at).align = self.itemsize
        if first:
            self._store_first(first)
