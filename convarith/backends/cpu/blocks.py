"""Which tile, and how many of them make a piece of work. None of it changes a sum's order."""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

from ...geometry import ConvGeometry
from .tile import shapes
from .vector import Element, Path

#: Of the second-level cache, what the source and the results of one piece of work may take.
CHUNK_BYTES = 256 * 1024
#: A thread should find at least as many pieces, so that none waits long for the last.
PIECES_A_THREAD = 4
#: Of results so many bytes apart, a tile writes all panels before the next one begins: panel by
#: panel a piece writes hundreds of runs that grow by turns, and no machine has so many ready.
#: Beside a busy neighbour 20 tiles of 5 rows, 2.7 KB apart, took 1.7 times as long.
FAR_APART = 2048
#: The largest kernel that is read again for each tile then, from the last cache.
READ_AGAIN_BYTES = 2**22
#: From more rows on a tile's loads slow down.
MANY_ROWS = 10
#: Instructions that a core does a cycle for a tile, where another thread takes its part.
INSTRUCTIONS = 3.4
#: Multiply-adds below which one thread is done before a second one has started.
SMALL_WORK = 400_000


def multiply_adds(geometry: ConvGeometry) -> int:
    """Return how many one of a batch takes, those with zeros around included."""
    terms = math.prod(geometry.kernel_size) * geometry.in_channels // geometry.groups
    return math.prod(geometry.output_shape) * terms


class Tile(NamedTuple):
    """Rows, vectors of a full panel, and an estimate of the cycles that all results take."""

    rows: int
    vectors: int
    cycles: float


@functools.lru_cache(maxsize=4096)
def choose_tile(
    path: Path,
    element: Element,
    width: int,
    columns: int,
    steps: int,
    channelwise: bool,
    vectors: int | None = None,
    most_rows: int | None = None,
    taps: int = 0,
) -> Tile:
    """Return the tile that needs the fewest cycles for `width` results of `columns` columns.

    Parameters
    ----------
    steps : int
        Of a sum.
    vectors : int, optional
        Where the kernel is packed already.
    taps : int
        As `tile.kernel` takes them.
    """
    lanes = path.lanes(element)
    needed = -(-columns // lanes)

    def cycles(shape: tuple[int, int]) -> tuple[float, int]:
        rows, wide = shape
        full, last = divmod(needed, wide)
        parts = full * _cycles(path, rows, wide, steps, channelwise, taps)
        if last:
            parts += _cycles(path, rows, last, steps, channelwise, taps)
        return -(-width // rows) * parts, -rows * wide

    fitting = [
        shape
        for shape in shapes(path, channelwise, taps)
        if shape[0] <= max(1, min(width, most_rows or width))
        and shape[1] <= needed
        and vectors in (None, shape[1])
    ]
    best = min(fitting, key=cycles)
    return Tile(*best, cycles(best)[0])


def _cycles(path: Path, rows: int, vectors: int, steps: int, channelwise: bool, taps: int) -> float:
    """Estimate a tile's cycles: two multiply-adds each or some two loads, four until one is done.

    More rows than two pointers serve, as tile.kernel has them, take longer to load. With 16
    registers a tile is small, and its instructions count: see `tile`.
    """
    if path.registers == 16 and not channelwise and not taps:
        instructions = rows * vectors + rows + 2 * vectors + 2  # B comes from farther than A
        waits = instructions / INSTRUCTIONS
    else:
        loads: float = rows + taps - 1 if taps else rows  # of A
        if channelwise:
            loads *= vectors
        waits = 0.55 * (loads / max(1, taps) + vectors) + (rows > MANY_ROWS)
    each = max(rows * vectors / 2, waits, 4)
    return each * (steps + 1) + 40 + 2 * rows * vectors  # the call, the stores


class Blocks(NamedTuple):
    """How a product is cut: the rows of a tile, and the tiles and panels of one piece of work."""

    rows: int
    chunk: int
    group: int


def choose_pieces(
    tiles: int,
    panels: int,
    jobs: int,
    source_nbytes: int,
    result_nbytes: int,
    panel_nbytes: int,
    threads: int,
    most_chunk: int,
    apart: int,
) -> tuple[int, int, bool]:
    """Return the tiles and panels of a piece, and whether its tiles go one by one.

    The larger operand is read once, the smaller one as often as there are pieces of the larger.
    But a kernel that the second-level cache holds beside some tiles is read there for them, all
    panels in turn: what these write lies side by side. `source_nbytes` and `result_nbytes` are a
    tile's, `apart` the bytes between its rows in the result.
    """
    wanted = PIECES_A_THREAD * threads if threads > 1 else 1
    kernel, source = panels * panel_nbytes, tiles * source_nbytes
    room = CHUNK_BYTES
    one_by_one = apart >= FAR_APART and kernel <= READ_AGAIN_BYTES
    if kernel <= source or one_by_one:
        group = panels
    elif kernel <= CHUNK_BYTES:
        group = panels
        room = max(CHUNK_BYTES - kernel, CHUNK_BYTES // 4)
    else:  # a piece is a panel for as many tiles as there is room for
        group = 1
    touched = source_nbytes + result_nbytes * group // max(1, panels)
    chunk = max(1, min(tiles, room // touched, most_chunk))
    while jobs * -(-tiles // chunk) * -(-panels // group) < wanted:
        if chunk > 4 and (kernel <= max(source, CHUNK_BYTES) or group == 1 or one_by_one):
            chunk = -(-chunk // 2)
        elif group > 1:
            group = -(-group // 2)
        elif chunk > 1:
            chunk = -(-chunk // 2)
        else:
            break
    return chunk, group, one_by_one


def evenly(length: int, most: int) -> list[tuple[int, int]]:
    """Cut ``range(length)`` into as few parts as have at most `most` entries, evenly."""
    parts = -(-length // most)
    cuts = [length * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(cuts))
