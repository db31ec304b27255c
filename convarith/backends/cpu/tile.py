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

All steps and offsets are in bytes. Where neighbours of A lie side by side, along steps or along
rows, the kernel knows so, and does TOGETHER steps without moving a pointer: where two threads
share a core, a tile takes as long as it has instructions, and a loop of one step spends a fifth of
them on itself. 6 rows of 2 vectors ran at 72 % of what the core's other thread left of
multiply-adds, and run at 84 %. Four or eight steps gain more in the first-level cache, but lose as
much where B is read with large strides or from farther away.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir

from . import compiled
from .distance import Distance, hidden
from .emitter import Emitter
from .native import BYTES, I1, I64, offset
from .vector import Path

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
            "ahead",  # from a step of B to what is asked for meanwhile, by a kernel that asks
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
#: Workers name these: Numba asks no dtype for its size.
TILE_NBYTES, SEGMENT_NBYTES = TILE.itemsize, SEGMENT.itemsize

B_OFFSET = SEGMENT.itemsize // 2

#: Steps that are done without moving a pointer, where neighbours of A lie side by side.
TOGETHER = 2

#: The kinds of tile.
DENSE, CHANNELWISE, HALVED = 0, 1, 2
#: Which last vectors are masked.
MASKED, B_MASKED = 1, 2
#: Along what neighbours of A lie side by side, if not as far apart as arguments say.
NEITHER, ALONG_STEPS, ALONG_ROWS = 0, 1, 2


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
    adjacent: int = NEITHER,
    asks: bool = False,
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
    adjacent : int
        Along what neighbours of A lie side by side, whatever `a_step` or `a_row` says.
    asks : bool
        Whether each step asks the second-level cache for what lies `ahead` of it in B: what the
        next tile of other lanes reads, while the last one that reads these is at work.
    """
    masks = (MASKED if partial else 0) | (B_MASKED if in_place else 0)
    return compiled.kernel(
        _Tile, path, element, rows, vectors, kind, taps, chains, masks, adjacent, asks
    )


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
        # LLVM spills more.
        and (not (taps and channelwise) or rows + taps - 1 <= 2 * Distance.GROUP)
    ]


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
        adjacent: int,
        asks: bool,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        super().__init__(path, element, builder, TILE, arguments)
        self.rows, self.vectors, self.taps, self.chains = rows, vectors, taps, chains
        self.channelwise, self.halved = kind == CHANNELWISE, kind == HALVED
        self.partial, self.b_partial = bool(masks & MASKED), masks == MASKED | B_MASKED
        self.together = chains
        if chains == 1 and adjacent != NEITHER and not taps and vectors > 1:
            self.together = TOGETHER  # of one vector LLVM sums into what it loads, and moves it
        a_row, a_step, b_step = (self.arguments[name] for name in ("a_row", "a_step", "b_step"))
        self.a_row = Distance(builder, self.itemsize if adjacent == ALONG_ROWS else a_row)
        self.a_step = Distance(builder, self.itemsize if adjacent == ALONG_STEPS else a_step)
        self.b_step = Distance(builder, b_step)
        self.asks = asks
        # What is stored of the last vector, or of each half; B is padded where tiles are halved.
        stored = self.lanes // 2 if self.halved else self.lanes
        self._mask(self.arguments["lanes"], stored)
        sums = self._sums()
        if self.element.floating:
            sums = self._epilogue(sums)
        self._store(sums)

    # The loops.

    def _sums(self) -> list[list[ir.Value]]:
        b, arguments = self.builder, self.arguments
        before = b.block
        segment, after = (b.function.append_basic_block(name) for name in ("segment", "sums"))
        b.cbranch(b.icmp_signed(">", arguments["count"], I64(0)), segment, after)

        b.position_at_end(segment)
        left = b.phi(I64)
        table = b.phi(BYTES)
        started = [b.phi(self.vector) for _ in range(self.chains * self.rows * self.vectors)]
        a_offset = self._load_int(table)
        b_offset = self._load_int(offset(b, table, B_OFFSET))
        first = offset(b, self._pointer("a"), a_offset), offset(b, self._pointer("b"), b_offset)
        state = [arguments["length"], *first, *started]
        if self.together > 1:
            state = self._steps(state, self.together)
        state = self._steps(state, 1)
        summed = state[3:]
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

        The state is the number of steps that are left, the pointers into A and B, and the sums,
        chain by chain. A segment has a step; but more at a time, or any beyond them, it may not.
        """
        b = self.builder
        before, body, after = (
            b.block,
            b.function.append_basic_block("step"),
            b.function.append_basic_block("stepped"),
        )
        checked = self.together > 1
        if checked:
            b.cbranch(b.icmp_signed(">=", state[0], I64(together)), body, after)
        else:
            b.branch(body)
        b.position_at_end(body)
        running = [b.phi(value.type) for value in state]
        left, *pointers = running[:3]
        a_pointer, b_pointer = (hidden(b, pointer) for pointer in pointers)
        sums = running[3:]
        each, b_rows = self.rows * self.vectors, max(1, self.taps)
        step = self._step_of_taps if self.taps else self._step
        for place in range(together):
            chain = place % self.chains
            own = slice(chain * each, (chain + 1) * each)

            def a_row(row: int, step: int = place) -> ir.Value:
                ways = [(self.a_step, step), (self.a_row, row)]
                at = a_pointer
                # What is known comes last: x86 adds it to whatever address it is.
                for distance, count in sorted(ways, key=lambda way: way[0].is_known):
                    at = distance.at(at, count)
                return at

            def b_row(row: int, step: int = place) -> list[ir.Value]:
                at = self.b_step.at(b_pointer, step * b_rows + row)
                if self.asks:
                    self._ask_for(offset(b, at, self.arguments["ahead"]), self.vectors)
                return self._row(at, masked=self.b_partial)

            if place:  # LLVM would load for all steps first, and spill
                b.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], True)
            summed = step(a_row, b_row, self._in_rows(sums[own]))
            sums[own] = [value for row in summed for value in row]
        fewer = b.sub(left, I64(together))
        following = [
            fewer,
            self.a_step.moved(a_pointer, together),
            self.b_step.moved(b_pointer, together * b_rows),
            *sums,
        ]
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

    def _step(self, a_row, b_row, running) -> list[list[ir.Value]]:
        """Return the sums after one step: rows of A times a row of B."""
        right = b_row(0)
        summed = []
        for i in range(self.rows):
            left = self._left(a_row(i))
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

    def _step_of_taps(self, a_row, b_row, running) -> list[list[ir.Value]]:
        """Return the sums after a step that has all taps; row i meets tap t in A's row i + t."""
        right = [b_row(t) for t in range(self.taps)]
        summed = [list(row) for row in running]
        for place in range(self.rows + self.taps - 1):
            left = self._left(a_row(place))
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
