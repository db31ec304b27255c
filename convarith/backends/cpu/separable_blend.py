"""The blend of separable products: rows of contiguous elements, weighted and summed.

    out[r][i] = sum over t of weight[r][t][i mod C] * source[t][i]

with the epilogue. Rows of results that read the same sources are blended together: an upsampling
by s has s of them, and loads each vector of the sources once for as many as the registers hold.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir

from . import compiled
from .native import I64, offset
from .separable_taps import MOST_TAPS, TapsEmitter
from .vector import Path

_int = np.int64

#: Rows that one kernel blends.
ROWS = (1, 2, 4)
MOST_ROWS = ROWS[-1]
#: What a blend is called with, by address.
BLEND = np.dtype(
    [
        *(
            (name, _int)
            for name in (
                "sources",  # address of the sources' addresses
                "count",  # of taps
                "weights_step",  # bytes from tap to tap
                "period",  # bytes of the channels
                "move",  # those of a vector, modulo the period
                "moves",  # those of UNROLLED vectors
                "out",
                "c_row",  # bytes from row to row of the results
                "nbytes",  # of a row
                "past",  # whether whole steps without an epilogue are stored past the caches
                "scale",  # as long as the weights of a tap; or 0
                "bias",
                "residual",  # laid out as the results; or 0
                "activation",  # its place in ACTIVATIONS
            )
        ),
        # Addresses: one weight a tap; or one of each channel, and then on from the first again.
        *((f"weights{row}", _int) for row in range(MOST_ROWS)),
    ]
)
BLEND_NBYTES = BLEND.itemsize
#: Vectors that a step of the loop blends, where registers are no matter.
UNROLLED = 4


@functools.cache
def kernels(
    path: Path, element: int, channelwise: bool, most_taps: int, most_rows: int = 1
) -> np.ndarray:
    """Return the addresses of the blends, ``[i, taps]`` for ROWS[i]; 0 where there is none.

    For a row there always is one; for several at most `most_rows`, and where registers hold all
    weights. `channelwise` ones have a weight for each channel, others one for all. Taps are 0 to
    `MOST_TAPS`; the ones for 0 take any number.
    """
    table = np.zeros((len(ROWS), MOST_TAPS + 1), np.int64)
    table[0] = _kernel(path, element, channelwise, 0, 1)
    for taps in range(1, most_taps + 1) if most_taps <= MOST_TAPS else ():
        for i, rows in enumerate(ROWS):
            if rows == 1 or (rows <= most_rows and _room(path, channelwise, taps, rows)):
                table[i, taps] = _kernel(path, element, channelwise, taps, rows)
    return table


def _room(path: Path, channelwise: bool, taps: int, rows: int) -> int:
    """Return how many vectors of each row fit beside all weights, a source, and a product; or 0."""
    if taps == 0 or channelwise:
        return UNROLLED if rows == 1 else 0
    return max(0, min(UNROLLED, (path.registers - 2 - rows * taps) // rows))


@functools.cache
def _kernel(path: Path, element: int, channelwise: bool, taps: int, rows: int) -> int:
    return compiled.kernel(_Blend, path, element, channelwise, taps, rows)


class _Blend(TapsEmitter):
    """The generator of one blend: loops along the rows, one after the other.

    The first two are for whole steps without an epilogue, whose branches would take as long as
    the sums do, past the caches or not; the others, of ever smaller steps, are for what is left.
    """

    def __init__(
        self,
        path: Path,
        element: int,
        channelwise: bool,
        taps: int,
        rows: int,
        builder: ir.IRBuilder,
        arguments: ir.Value,
    ) -> None:
        super().__init__(path, element, builder, BLEND, arguments)
        self.channelwise, self.taps = channelwise, taps
        self.rows = rows
        self.sources = [self._source(I64(t)) for t in range(taps)]
        self.splats = [
            [self._weight(I64(t), name=f"weights{i}") for t in range(taps) if not channelwise]
            for i in range(rows)
        ]
        parts = [self.arguments[name] for name in ("scale", "bias", "residual", "activation")]
        plain = builder.icmp_signed("==", functools.reduce(builder.or_, parts), I64(0))
        state = [I64(0), I64(0)]
        room = _room(path, self.channelwise, taps, rows)
        past = builder.icmp_signed("!=", self.arguments["past"], I64(0))
        state = self._loop(state, room, plain=builder.and_(plain, past), past=True)
        state = self._loop(state, room, plain=plain)
        if rows == 1:
            state = self._loop(state, UNROLLED)
        state = self._loop(state, 1)
        self._loop(state, 1, masked=True)

    def _loop(
        self,
        state: list[ir.Value],
        vectors: int,
        *,
        plain: ir.Value | None = None,
        past: bool = False,
        masked: bool = False,
    ) -> list[ir.Value]:
        """Blend while `vectors` whole ones are left, or if masked any part of one.

        With `plain`, only where that holds, and without the epilogue. The state is how far it is
        from the start, and from the first channel, in bytes.
        """
        b, wide, held = self.builder, self.path.nbytes, self.arguments
        self.vectors, self.masked, self.past = vectors, masked, past
        needed = I64(1 if masked else vectors * wide)

        def going(position, channel):
            left = b.sub(held["nbytes"], position)
            goes = b.icmp_signed(">=", left, needed)
            return goes if plain is None else b.and_(goes, plain)

        def body(position, channel):
            if masked:
                there = b.sdiv(b.sub(held["nbytes"], position), I64(self.itemsize))
            else:
                there = I64(self.lanes)
            self._mask(there, self.lanes)
            sums = self._blended(position, channel)
            self.arguments = held | {
                "c": b.add(held["out"], position),
                "scale": self._moved("scale", channel),
                "bias": self._moved("bias", channel),
                "residual": self._moved("residual", position),
            }
            if plain is None:
                sums = self._epilogue(sums)
            self._store(sums)
            self.arguments = held
            further = b.add(position, I64(vectors * wide))
            if plain is not None and not self.channelwise:
                return further, channel  # which nothing asks for then
            moved = b.add(channel, held["move" if vectors == 1 else "moves"])
            around = b.sub(moved, held["period"])
            return further, b.select(b.icmp_signed("<", around, I64(0)), moved, around)

        return self._while(state, going, body)

    def _moved(self, name: str, nbytes: ir.Value) -> ir.Value:
        """Return an address as far on as the loop has come, 0 where there is none."""
        b, at = self.builder, self.arguments[name]
        return b.select(b.icmp_signed("!=", at, I64(0)), b.add(at, nbytes), at)

    def _blended(self, position: ir.Value, channel: ir.Value) -> list[list[ir.Value]]:
        """Return the sums of a step's vectors, row by row."""
        b, wide = self.builder, self.path.nbytes

        def add(t, sums):
            source = self.sources[t] if isinstance(t, int) else self._source(t)
            sums = list(sums)
            for j in range(self.vectors):
                there = offset(b, source, b.add(position, I64(j * wide)))
                loaded = self._load(there, last=self.masked)
                for i in range(self.rows):
                    weight = self._weight_of(i, t, b.add(channel, I64(j * wide)))
                    at = i * self.vectors + j
                    sums[at] = self._times_plus(loaded, weight, sums[at])
            return sums

        sums = self._over_taps([self._constant(0)] * (self.rows * self.vectors), add)
        return [list(sums[i : i + self.vectors]) for i in range(0, len(sums), self.vectors)]

    def _weight_of(self, row: int, t: int | ir.Value, channel: ir.Value) -> ir.Value:
        """Return a row's weights of a tap, those from `channel` on if each has its own."""
        if isinstance(t, int) and not self.channelwise:
            return self.splats[row][t]
        t = I64(t) if isinstance(t, int) else t
        return self._weight(t, channel if self.channelwise else None, name=f"weights{row}")

    def _store(self, sums: list[list[ir.Value]]) -> None:
        b = self.builder
        stores = [(v, self._at("c", i, j)) for i, row in enumerate(sums) for j, v in enumerate(row)]
        if self.masked:
            self._store_first(stores)
            return
        for value, at in stores:
            stored = b.store(value, b.bitcast(at, self.vector.as_pointer()))
            stored.align = self.path.nbytes if self.past else self.itemsize
            if self.past:
                stored.set_metadata("nontemporal", b.module.add_metadata([ir.IntType(32)(1)]))
