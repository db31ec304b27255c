"""Which tiles the tiled kernels are compiled for, and what of them is shipped and so tested."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

#: Stages of the kernel gradients.
STAGES = 4
#: Results of a group up to which a thread makes all of a pixel's.
FEW = 32


class Cut(NamedTuple):
    """How a map's long sums are cut: into segments of so many stages, but for those up to `uncut`.

    A stage costs a multiprocessor `cycles` for each result, about, and no less than `latency`
    divided among the stages that are under way.
    """

    segment: int
    uncut: int
    cycles: float
    latency: float


class MapTile(NamedTuple):
    """A block of a map: rows (results) by columns (channels), and who computes what of it.

    `rows` and `columns` are a thread's sums for map_ffma, and for map_mma a warp's 16 x 8 blocks;
    `blocks` share a multiprocessor, and as many fewer where sums are of segments in one block.
    `efficiency` is that of a multiprocessor full of them, about.
    """

    m: int
    n: int
    threads: int
    rows: int
    columns: int
    blocks: int
    stages: int
    efficiency: float

    def constants(self, segment: int, segments: int) -> dict[str, str | int]:
        """Return what the kernel is compiled with: 0, 1 and 2 as map_tile.cuh has SEGMENTS."""
        return {
            "TILE_M": self.m,
            "TILE_N": self.n,
            "THREADS": self.threads,
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "BLOCKS": self.resident(segments),
            "STAGES": self.stages,
            "SEGMENT": segment,
            "SEGMENTS": segments,
        }

    def resident(self, segments: int) -> int:
        """Return the blocks that share a multiprocessor: fewer where sums take registers twice."""
        twice = segments == 1 and self.m * self.n >= 64 * 64
        return max(1, self.blocks - twice)

    @property
    def shared(self) -> int:
        """Bytes of dynamic shared memory: the stages, or the finished tile."""
        return max(self.stages * (self.m + self.n) * STAGE_BYTES, self.m * (self.n + 8) * 4)


#: Bytes of a row a stage, as ROW_BYTES in map_tile.cuh.
STAGE_BYTES = 128
#: The numbers of these two tables come from timing every tile with every layer of benchmarks/ on
#: an H200; a choice by them is within 1 % of the best one in geometric mean.
MAP_CUTS = {"map_ffma": Cut(16, 24, 0.24, 1000), "map_mma": Cut(16, 40, 0.05, 1450)}
MAP_TILES = {
    "map_ffma": (
        MapTile(128, 64, 128, 8, 8, 3, 3, 0.85),  # 128 x 128 would spill, at 128 registers
        MapTile(64, 128, 128, 8, 8, 3, 2, 1.0),
        MapTile(64, 64, 128, 8, 4, 4, 2, 0.9),
        MapTile(64, 32, 64, 8, 4, 6, 3, 0.77),
        MapTile(32, 32, 64, 4, 4, 8, 3, 0.76),
    ),
    "map_mma": (
        MapTile(128, 128, 256, 4, 4, 2, 3, 0.78),
        MapTile(256, 64, 256, 4, 4, 2, 2, 0.85),
        MapTile(128, 64, 128, 4, 4, 3, 2, 0.88),
        MapTile(64, 64, 128, 2, 4, 3, 4, 0.63),
        MapTile(32, 32, 64, 1, 4, 8, 6, 0.35),
    ),
}
#: Rows of a tile that is for narrow results only, and with a third axis would spill registers.
TALL = 256


def map_tiles(name: str, rank: int, filters: int) -> list[MapTile]:
    """Return a kernel's tiles for so many axes and result channels of a group."""
    return [t for t in MAP_TILES[name] if t.m < TALL or (rank < 3 and filters <= t.n)]


class GradientTile(NamedTuple):
    """A square block of a kernel gradient; `rows` and `columns` as of a `MapTile`."""

    size: int
    threads: int
    rows: int
    columns: int
    blocks: int

    def constants(self, itemsize: int) -> dict[str, str | int]:
        """Return what the kernel is compiled with."""
        return {
            "TILE": self.size,
            "PIXELS": 64 // itemsize,
            "THREADS": self.threads,
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "BLOCKS": self.blocks,
            "STAGES": STAGES,
        }

    @property
    def shared(self) -> int:
        """Bytes of dynamic shared memory: the stages, 64 bytes an entry of either side."""
        return STAGES * 2 * self.size * 64


GRADIENT_TILES = {
    "gradient_ffma": (GradientTile(128, 256, 8, 8, 2), GradientTile(64, 128, 8, 4, 4)),
    "gradient_mma": (GradientTile(128, 256, 4, 4, 2), GradientTile(64, 128, 2, 4, 4)),
}


#: Threads of a block of `depthwise_strip`, and blocks that share a multiprocessor's registers, by
#: the bytes of an entry; by timing them on an H200.
STRIP_BLOCKS = {4: (128, 3), 2: (64, 6)}


def separable_blocks(piece: int, pieces: int, taps: int, *, simple: bool) -> int:
    """Return how many blocks of `separable` share a multiprocessor's registers.

    Parameters
    ----------
    piece, pieces : int
        Results that a thread writes at once, and how often it does.
    taps : int
        Of a phase, at most.
    simple : bool
        Whether there is no epilogue, and the channels have their weights along y in common.
    """
    if not simple:
        return 3
    if taps > 2 or pieces > 4:
        return 4
    return 5 if piece * pieces > 4 else 6


@dataclasses.dataclass(frozen=True)
class Specialisation:
    """One kernel as it is compiled, and the instructions that it claims to use.

    `spills` names the reason where registers may be spilled.
    """

    name: str
    constants: dict[str, str | int]
    sass: dict[str, int] = dataclasses.field(default_factory=dict)
    spills: str = ""


_DIVISION = "64-bit division is a subroutine, and registers are saved around its calls"
_A_ROW = "a few registers once a row of results, outside the inner loops: more blocks fit so"


def _shipped() -> list[Specialisation]:
    found = []
    for element in ("f32", "f64", "f16", "bf16", "i8", "i32", "i64", "u8", "u32", "u64"):
        parts = {"ELEMENT": element, "PART": element, "RESIDUAL": element}
        found.append(Specialisation("map_plain", parts, spills=_DIVISION))
        found.append(Specialisation("gradient_plain", {"ELEMENT": element}))
    wide = {"ELEMENT": "u8", "PART": "u8", "RESIDUAL": "u8", "WIDE": 1}
    found.append(Specialisation("map_plain", wide, spills=_DIVISION))
    for rank in (2, 3):
        for name, element in (
            ("map_ffma", "f32"),
            ("map_mma", "f32"),
            ("map_mma", "f16"),
            ("map_mma", "bf16"),
        ):
            product = {"FFMA": 64} if name == "map_ffma" else {"HMMA": 8, "LDSM": 4}
            for tile in map_tiles(name, rank, filters=1):
                for segments in (0, 1, 2) if rank == 2 and element != "f16" else (0,):
                    constants = {
                        **tile.constants(MAP_CUTS[name].segment, segments),
                        "ELEMENT": element,
                        "PART": element,
                        "RESIDUAL": element,
                        "RANK": rank,
                    }
                    found.append(Specialisation(name, constants, {**product, "LDGSTS": 4}))
        for name, element in (
            ("gradient_ffma", "f32"),
            ("gradient_mma", "f32"),
            ("gradient_mma", "f16"),
            ("gradient_mma", "bf16"),
        ):
            product = {"FFMA": 64} if name == "gradient_ffma" else {"HMMA": 8}
            roomy = rank == 2 and (name, element) != ("gradient_mma", "f32")
            for tile in GRADIENT_TILES[name] if roomy else GRADIENT_TILES[name][1:]:
                size = 4 if element == "f32" else 2
                constants = {**tile.constants(size), "ELEMENT": element, "RANK": rank}
                found.append(Specialisation(name, constants, {**product, "LDGSTS": 4}))
    for element, vector in (("f32", 4), ("f16", 8), ("bf16", 8)):
        parts = {"ELEMENT": element, "PART": element, "RESIDUAL": element}
        constants = {"ELEMENT": element, "VECTOR": vector, "TAPS": 9 if vector == 4 else 3}
        found.append(Specialisation("gradient_depthwise", constants, {"LDG.E.128": 2}))
        found.append(Specialisation("lay_out", {"ELEMENT": element, "ROUND": 0}))
        found.append(Specialisation("sum_parts", parts))
        wide = {"LDG.E.128": 2, "STG.E.128": 1}
        columns = 4 if vector == 4 else 2
        for window in (0, 5):
            constants = {"VECTOR": vector, "COLUMNS": columns, "WINDOW": window, "ADVANCE": 1}
            found.append(Specialisation("depthwise", {**parts, **constants}, wide))
        for advance, plain in ((1, 0), (1, 1), (2, 1)):
            constants = {"VECTOR": 4, "COLUMNS": 4}
            constants |= dict(zip(("THREADS", "BLOCKS"), STRIP_BLOCKS[16 // vector], strict=True))
            constants |= {"COPIES": 5, "STAGES": 4, "PLAIN": plain}
            constants |= {"TAPS_Y": 3, "TAPS_X": 3, "ADVANCE_Y": advance, "ADVANCE_X": advance}
            found.append(Specialisation("depthwise_strip", {**parts, **constants}, {"LDGSTS": 5}))
        for piece in (1, vector):
            claimed = {"LDGSTS": 1, "STG.E.EF.128": int(piece > 1)}
            for transposed, common, taps, plain in ((1, 1, 2, 1), (1, 0, 2, 0), (0, 1, 3, 1)):
                simple = bool(plain and common)
                blocks = separable_blocks(piece, vector // piece, taps, simple=simple)
                constants = {
                    **parts,
                    "PLAIN": plain,
                    "TRANSPOSED": transposed,
                    "COMMON": common,
                    "FULL": int(piece > 1),
                    "FRESH": 1,
                    "PIECE": piece,
                    "PIECES": vector // piece,
                    "BLOCKS": blocks,
                    "TAPS_X": taps,
                    "TAPS_Y": taps,
                }
                found.append(Specialisation("separable", constants, claimed))
        for filters in (1, 3, 21, FEW):
            claimed = {"LDS.128": int(filters > 1)}
            constants = {**parts, "FILTERS": filters}
            found.append(Specialisation("map_few", constants, claimed, spills=_A_ROW))
        found.append(
            Specialisation("argmax", {"ELEMENT": element, "PIXELS": 128}, {"LDG.E.128": 1})
        )
    found.append(Specialisation("lay_out", {"ELEMENT": "f32", "ROUND": 1}))
    return found


#: What the compile tests look at. Any other dtype, or an epilogue in another, is compiled on use.
SPECIALISATIONS = tuple(_shipped())
