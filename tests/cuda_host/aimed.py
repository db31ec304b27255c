"""Problems aimed at every kernel of the package, and at every way that each is compiled."""

from __future__ import annotations

from typing import Any, NamedTuple

from convarith import ConvGeometry
from convarith.backends.cuda.specialisations import MAP_CUTS, STAGE_BYTES

from .problems import Problem


class Aimed(NamedTuple):
    """A problem and what must run for it, by name, with some of the constants."""

    name: str
    problem: Problem
    kernels: dict[str, dict[str, str | int]]
    #: What planning is told; few where a sum's segments are to share a block.
    multiprocessors: int = 8

    def __str__(self) -> str:
        return self.name


def geometry(size: Any, kernel: Any, channels: tuple[int, int, int], **window: Any) -> ConvGeometry:
    """Return a geometry by its groups, and the channels in and out of each."""
    groups, c_in, c_out = channels
    return ConvGeometry(
        size,
        kernel,
        groups=groups,
        in_channels=groups * c_in,
        out_channels=groups * c_out,
        **window,
    )


#: Rank 2: strides, dilations and padding of both signs. Rank 3: an axis more.
PLANE: dict[str, Any] = {"strides": (2, 3), "dilations": (1, 2), "padding": [(1, 2), (-1, 3)]}
SPACE: dict[str, Any] = {"strides": (2, 1, 2), "dilations": (1, 2, 1), "padding": "SAME"}
DTYPES = ("float64", "int8", "uint8", "int32", "uint32", "int64", "uint64")
#: A tensor-core element: dtype, precision, its name in C++, and channels of a 16-byte chunk.
ELEMENTS = (
    ("float32", "tf32", "f32", 4),
    ("float16", "float32", "f16", 8),
    ("bfloat16", "float32", "bf16", 8),
)
#: Windows of `depthwise` as last axis: taps, stride, dilation; WINDOW 0 for the last three.
WINDOWS = (
    *((taps, 1, 1) for taps in range(2, 7)),
    *((taps, 2, 1) for taps in (2, 3)),
    *((1, 1, 1), (3, 1, 2), (5, 3, 1)),
)


def _plain() -> list[Aimed]:
    found = []
    for dtype in (*DTYPES, "float32", "float16", "bfloat16"):
        for product in ("forward", "transpose", "kernel_gradient"):
            name = "gradient_plain" if product == "kernel_gradient" else "map_plain"
            kernel = None if dtype in DTYPES else name
            problem = Problem(product, geometry((5, 9), (3, 2), (2, 3, 2), **PLANE), dtype=dtype)
            found.append(Aimed(f"{product} {dtype}", problem.changed(kernel=kernel), {name: {}}))
    return found


def deep_channels(name: str, chunk: int) -> int:
    """Return channels, whole chunks of them, whose nine taps a kernel sums in segments."""
    return (MAP_CUTS[name].uncut * STAGE_BYTES // (9 * 16) + 1) * chunk


def _tiled_maps() -> list[Aimed]:
    found = []
    for name, (dtype, precision, element, chunk) in (
        ("map_ffma", ("float32", "float32", "f32", 4)),
        *(("map_mma", each) for each in ELEMENTS),
    ):
        numbers = {"dtype": dtype, "precision": precision}
        deep = deep_channels(name, chunk)
        for product in ("forward", "transpose"):
            one = geometry((5, 8), (3, 2), (2, 35, 37), **PLANE)
            ends = (deep, 37) if product == "forward" else (37, deep)
            # Two groups, so that one multiprocessor has a block each, and they are not cut apart.
            two = geometry((3, 4), (3, 3), (2, *ends), padding="SAME")
            for segments, of, most in ((0, one, 8), (1, two, 1), (2, two, 64)):
                kernels = {name: {"ELEMENT": element, "SEGMENTS": segments, "RANK": 2}}
                kernels |= {"lay_out": {"ROUND": int(precision == "tf32")}}
                if segments == 2:
                    kernels["sum_parts"] = {"ELEMENT": element}
                label = f"{name} {product} {element} segments {segments}"
                found.append(Aimed(label, Problem(product, of, **numbers), kernels, most))
        space = geometry((3, 4, 5), (2, 2, 3), (1, 3, 33), **SPACE)
        kernels = {name: {"ELEMENT": element, "RANK": 3}}
        problem = Problem("forward", space, kernel=name, **numbers)
        found.append(Aimed(f"{name} forward {element} rank 3", problem, kernels))
    return found


def _few() -> list[Aimed]:
    return [
        Aimed(
            f"map_few {product} {dtype} {filters}",
            Problem(
                product,
                geometry((6, 150), (2, 3), (2, 3, 3) if filters == 3 else (1, 21, 21), **PLANE),
                dtype=dtype,
                batch=1,
            ),
            {"map_few": {"FILTERS": filters}},
        )
        for product in ("forward", "transpose")
        for dtype, filters in (("float32", 3), ("float32", 21), ("float16", 3), ("bfloat16", 3))
    ]


def _depthwise() -> list[Aimed]:
    found = []
    for taps, stride, dilation in WINDOWS:
        window = taps if (taps, stride, dilation) in WINDOWS[:-3] else 0
        strides, dilations = (2, stride), (1, dilation)
        of = geometry(
            (5, 11), (3, taps), (8, 1, 1), strides=strides, dilations=dilations, padding="SAME"
        )
        constants = {"WINDOW": window, "ADVANCE": stride if window else 1, "VECTOR": 4}
        label = f"depthwise {taps} taps by {stride} and {dilation}"
        problem = Problem("forward", of, kernel="depthwise")  # where strips would be taken too
        found.append(Aimed(label, problem, {"depthwise": constants}))
    for dtype, channels, vector in (
        *(("float32", 5, 1), ("float32", 8, 4), ("float16", 8, 8), ("float64", 4, 2)),
        *(("int8", 16, 16), ("int32", 3, 1)),
    ):
        of = geometry((4, 7), (3, 4), (channels, 1, 1), **PLANE)
        label = f"depthwise transpose {dtype} by {vector}"
        problem = Problem("transpose", of, dtype=dtype)
        found.append(Aimed(label, problem, {"depthwise": {"WINDOW": 0, "VECTOR": vector}}))
    of = geometry((5, 8), (3, 4), (1, 8, 8), padding=1)
    dense = Problem("forward", of, structure="diagonal")
    found.append(Aimed("depthwise of a dense kernel", dense, {"depthwise": {"WINDOW": 4}}))
    return found


def _strips() -> list[Aimed]:
    found = []
    for taps, strides, dtype, channels in (
        *(((3, 3), (1, 1), "float32", 8), ((3, 3), (2, 2), "float32", 36)),
        *(((2, 4), (2, 1), "float32", 4), ((4, 2), (3, 2), "float32", 4)),
        *(((1, 3), (1, 1), "float16", 16), ((3, 1), (2, 1), "bfloat16", 8)),
        *(((3, 3), (1, 2), "float16", 8), ((3, 3), (1, 1), "bfloat16", 40)),
    ):
        of = geometry((21, 13), taps, (channels, 1, 1), strides=strides, padding=[(1, 2), (2, -1)])
        y, x = taps
        constants = {"TAPS_Y": y, "TAPS_X": x, "PLAIN": 1}
        constants |= {"ADVANCE_Y": strides[0], "ADVANCE_X": strides[1]}
        label = f"strips {dtype} {taps} by {strides} of {channels}"
        problem = Problem("forward", of, dtype=dtype)
        found.append(Aimed(label, problem, {"depthwise_strip": constants}))
    wide = Problem("forward", geometry((9, 150), 3, (40, 1, 1), padding=1))
    found.append(Aimed("strips of slices and columns", wide, {"depthwise_strip": {"COLUMNS": 4}}))
    dense = Problem("forward", geometry((5, 8), 3, (1, 8, 8), padding=1), structure="diagonal")
    kernels = {"depthwise_strip": {"TAPS_Y": 3}}
    found.append(Aimed("strips of a dense kernel", dense, kernels))
    return found


def _depthwise_gradients() -> list[Aimed]:
    return [
        Aimed(
            f"gradient_depthwise {dtype} {size} of {channels}",
            Problem("kernel_gradient", geometry(size, 3, (channels, 1, 1), padding=1), dtype=dtype),
            {"gradient_depthwise": {"ELEMENT": element}, "sum_parts": {}},
        )
        for dtype, element in (("float32", "f32"), ("float16", "f16"), ("bfloat16", "bf16"))
        for size, channels in (((5, 9), 8), ((5, 9), 5), ((3, 4, 5), 8))
    ]


def _separable() -> list[Aimed]:
    found = []
    for label, product, dtype, structure, of, constants in (
        (
            *("up by 2", "transpose", "float32", "bilinear"),
            geometry((12, 18), 4, (1, 6, 6), strides=2, padding=1),
            {"PIECE": 4, "COMMON": 1, "TRANSPOSED": 1, "PLAIN": 1, "FULL": 1},
        ),
        (
            *("of halves", "transpose", "float16", "bilinear"),
            geometry((12, 16), 4, (3, 1, 1), strides=2, padding=1),
            {"PIECE": 8},
        ),
        (
            *("up by 3 and 5", "transpose", "float32", "diagonal separable"),
            geometry((10, 23), (5, 10), (1, 3, 3), strides=(3, 5), padding=[(1, 2), (-2, 3)]),
            {"PIECE": 1, "COMMON": 0, "FULL": 0},
        ),
        (
            *("forward", "forward", "float32", "separable"),
            geometry((9, 20), (3, 4), (5, 1, 1), strides=(2, 1), dilations=(1, 2), padding="SAME"),
            {"PIECE": 4, "COMMON": 0, "TRANSPOSED": 0},
        ),
        (
            *("of several pieces", "forward", "float32", "separable"),
            geometry((7, 64), 2, (24, 1, 1), strides=2),
            {"PIECE": 4, "FRESH": 2},
        ),
        (
            *("blurred", "forward", "float32", "separable"),
            geometry((29, 40), (3, 4), (28, 1, 1), dilations=(1, 2), padding="SAME"),
            {"PIECE": 4, "FRESH": 1},
        ),
        (
            *("of far rows", "forward", "float32", "separable"),
            geometry((29, 41), 2, (3, 1, 1), strides=(3, 2), dilations=(2, 1), padding=(4, 2)),
            {"PIECE": 2, "FRESH": 2},
        ),
        (
            *("spread back", "transpose", "float32", "separable"),
            geometry((29, 33), 3, (7, 1, 1), dilations=(2, 3), padding=(2, -1)),
            {"TRANSPOSED": 1, "FRESH": 3},
        ),
        (
            *("of half vectors", "transpose", "bfloat16", "bilinear"),
            geometry((12, 20), 4, (1, 21, 21), strides=2, padding=1),
            {"PIECE": 4, "PIECES": 2},
        ),
        (
            *("of many channels", "transpose", "float32", "bilinear"),
            geometry((12, 10), 4, (1, 600, 600), strides=2, padding=1),
            {"PIECE": 4},
        ),
        (
            *("up by 8", "transpose", "bfloat16", "bilinear"),
            geometry((88, 120), 16, (1, 21, 21), strides=8, padding=4),
            {"PIECE": 8, "COMMON": 1, "FULL": 1},
        ),
        (
            *("with gaps", "transpose", "float32", "bilinear"),
            geometry((9, 13), 3, (2, 1, 1), strides=2, dilations=2),
            {"FULL": 0, "COMMON": 1},
        ),
        (
            *("of four taps and three", "transpose", "float32", "separable"),
            geometry((8, 8), (7, 4), (5, 1, 1), strides=2),
            {"FULL": 0, "COMMON": 0, "TAPS_Y": 4},
        ),
        (
            *("of odd rows", "transpose", "float32", "bilinear"),
            geometry((33, 17), 3, (1, 3, 3), strides=2, padding=1),
            {"PIECE": 1, "COMMON": 1, "FULL": 0},
        ),
    ):
        problem = Problem(product, of, dtype=dtype, structure=structure)
        found.append(Aimed(f"separable {label}", problem, {"separable": constants}))
    return found


def _tiled_gradients() -> list[Aimed]:
    found = []
    for name, (dtype, precision, element, chunk) in (
        ("gradient_ffma", ("float32", "float32", "f32", 4)),
        *(("gradient_mma", each) for each in ELEMENTS),
    ):
        numbers = {"dtype": dtype, "precision": precision}
        few = geometry((5, 8), (3, 2), (2, 5, 7), **PLANE)
        many = geometry((17, 8 * chunk), 2, (1, 6, 9), strides=(1, 2), padding="SAME")
        space = geometry((3, 4, 5), (2, 2, 3), (1, 3, 5), **SPACE)
        for label, of, rank, parts in (
            *(("one part", few, 2, False), ("parts", many, 2, True)),
            ("rank 3", space, 3, False),
        ):
            kernels: dict[str, Any] = {name: {"ELEMENT": element, "RANK": rank}, "lay_out": {}}
            if parts:
                kernels["sum_parts"] = {"ELEMENT": element}
            problem = Problem("kernel_gradient", of, **numbers)
            found.append(Aimed(f"{name} {element} {label}", problem, kernels))
    return found


AIMED = [
    *(*_plain(), *_tiled_maps(), *_few(), *_depthwise(), *_strips(), *_separable()),
    *(*_tiled_gradients(), *_depthwise_gradients()),
]


def of_kernel(name: str, **constants: str | int) -> list[Aimed]:
    """Return the problems for which a kernel must run with some constants."""
    return [
        aimed
        for aimed in AIMED
        if name in aimed.kernels and constants.items() <= aimed.kernels[name].items()
    ]
