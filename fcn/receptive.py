"""Where the outputs of a graph lie over its input, and what of it they see."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from convarith import Window

from .graph import INPUT, Graph
from .layers import Conv, ConvTranspose, Crop, Layer, MaxPool, ZeroPadding
from .layers.sizes import short

Pair = tuple[int, int]
#: Outputs after which everything must repeat, and steps that working fields out may take: a file
#: could ask for any number.
MOST_PERIOD, MOST_STEPS = 4096, 20_000_000
#: A step's inputs of its outputs from the first to the last, or the tile that it needs for them.
Interval = Callable[[Any, int, int], Pair]


@dataclasses.dataclass(frozen=True)
class Field:
    """What a node sees of the input, along the rows and along the columns.

    Attributes
    ----------
    jump : (Fraction, Fraction)
        How far the input moves when the node's result moves by one.
    size : (int, int)
        The receptive field: the inputs from the first to the last that one entry depends on;
        the most of them, where transposed convolutions make entries differ.
    """

    jump: tuple[Fraction, Fraction]
    size: Pair


def channels(graph: Graph) -> dict[str, int]:
    """Return how many channels the input and each node have."""
    found = {INPUT: graph.channels}
    for name, node in graph.nodes.items():
        found[name] = node.layer.output_channels(*(found[source] for source in node.inputs))
    return found


def stride(graph: Graph) -> int:
    """Return how far the input moves when the coarsest map of the graph moves by one.

    >>> from fcn.model import graph_of
    >>> stride(graph_of("vgg16", 2, "8s"))
    32
    """
    jumps = _jumps(graph, _windows(graph))
    return math.ceil(max(jump for pair in jumps.values() for jump in pair))


def halo(graph: Graph, until: str | None = None) -> Pair:
    """Return the pixels that a tile needs before and after, for its inside to be the whole's.

    A tile of the input that begins at a multiple of the graph's stride, and that has so many
    pixels more on either side of what is wanted of it, as far as there are any, gives there
    what the whole picture gives, when both have sizes that are multiples of the stride.

    Parameters
    ----------
    graph : Graph
        Whose result lies over its input, pixel by pixel.
    until : str, optional
        The node whose result it is; default: the last.

    Returns
    -------
    before, after : int
        For rows and columns alike.

    See Also
    --------
    convarith.CoordinateMap : the same of a chain of layers.
    """
    output = graph.output if until is None else until
    windows = _windows(graph)
    jumps = _jumps(graph, windows)
    before = after = 0
    for axis in range(2):
        jump = jumps[output][axis]
        path = _path(graph, output)
        for at in range(_period(path, windows, output, axis)):
            first, last = _seen(path, windows, output, axis, at, _tile)
            before = max(before, math.floor(at * jump) - first)
            after = max(after, last + 1 - math.ceil((at + 1) * jump))
    return before, after


def fields(graph: Graph) -> dict[str, Field]:
    """Return what the result of each node sees of the input.

    >>> from fcn.model import graph_of
    >>> seen = fields(graph_of("vgg16", 2, "32s"))
    >>> seen["pool5"].jump, seen["conv5_3"].size
    ((Fraction(32, 1), Fraction(32, 1)), (196, 196))
    """
    windows = _windows(graph)
    jumps = _jumps(graph, windows)
    found = {}
    entries = 0
    for name in graph.nodes:
        path = _path(graph, name)
        periods = [_period(path, windows, name, axis) for axis in range(2)]
        entries += sum(periods) * len(path)
        if entries > MOST_STEPS:
            raise ValueError(f"graph: the fields of its nodes take more than {MOST_STEPS} steps")
        rows, columns = (
            max(
                last + 1 - first
                for at in range(periods[axis])
                for first, last in [_seen(path, windows, name, axis, at, _inputs)]
            )
            for axis in range(2)
        )
        found[name] = Field(jumps[name], (rows, columns))
    return found


def _inputs(step: Any, first: int, last: int) -> Pair:
    return step.inputs(first, last)


def _tile(step: Any, first: int, last: int) -> Pair:
    return step.tile(first, last)


def _windows(graph: Graph) -> dict[str, Any]:
    """Return what each node does along the axes, for sizes that are multiples of the stride."""
    return {name: _window(node.layer).steps(2) for name, node in graph.nodes.items()}


def _window(layer: Layer) -> Window:
    match layer:
        case Conv():
            padding = _numbers(layer.padding, layer.kernel.shape, layer.strides, layer.dilations)
            return Window(layer.kernel.shape[:2], layer.strides, layer.dilations, padding)
        case MaxPool():
            padding = _numbers(layer.padding, layer.window, layer.strides, (1, 1))
            return Window(layer.window, layer.strides, padding=padding)
        case ZeroPadding():
            return Window((1, 1), padding=layer.padding)
        case ConvTranspose():
            size = layer.kernel.shape[:2]
            crops = layer.padding
            if isinstance(crops, str):
                crops = tuple(
                    _crop(layer.padding, k, s) for k, s in zip(size, layer.strides, strict=True)
                )
            return Window(size, layer.strides, padding=crops, transposed=True)
        case _:
            return Window((1, 1))


def _numbers(padding: Any, size: Any, strides: Pair, dilations: Pair) -> Any:
    """Return a padding in numbers."""
    if padding == "VALID":
        return ((0, 0), (0, 0))
    if padding != "SAME":
        return padding
    totals = (
        max(0, (k - 1) * d + 1 - s) for k, d, s in zip(size, dilations, strides, strict=False)
    )
    return tuple((total // 2, total - total // 2) for total in totals)


def _crop(padding: str, size: int, stride: int) -> Pair:
    """Return what a transposed convolution takes off at both ends; below zero, it adds."""
    if padding == "VALID":
        return 0, min(0, size - stride)
    low = max(0, size - stride) // 2
    return low, size - stride - low


def _jumps(graph: Graph, windows: dict[str, Any]) -> dict[str, tuple[Fraction, Fraction]]:
    jumps = {INPUT: (Fraction(1), Fraction(1))}
    for name, node in graph.nodes.items():
        rows, columns = jumps[node.inputs[0]]
        jumps[name] = rows * windows[name][0].jump, columns * windows[name][1].jump
    return jumps


def _path(graph: Graph, output: str) -> list[tuple[str, Any]]:
    """Return the nodes that a node's result depends on, that node first."""
    return list(reversed(graph.needed(output).items()))


def _period(path: list[tuple[str, Any]], windows: dict[str, Any], output: str, axis: int) -> int:
    """Return after how many outputs all repeats: only transposed steps tell outputs apart."""
    outputs = {output: Fraction(1)}  # how far a node's result moves when the output moves by one
    period = 1
    for name, node in path:
        if name not in outputs:  # only its size is read
            continue
        moved = outputs[name] * windows[name][axis].jump
        period = math.lcm(period, moved.denominator)
        if period > MOST_PERIOD:
            raise ValueError(
                f"node {short(name)}: expected a result that repeats within {MOST_PERIOD} "
                f"entries, got {period}"
            )
        for source in _read(node):
            outputs[source] = moved
    return period


def _seen(
    path: list[tuple[str, Any]],
    windows: dict[str, Any],
    output: str,
    axis: int,
    at: int,
    interval: Interval,
) -> Pair:
    """Return the first and the last input that entry `at` of a node's result depends on."""
    wanted: dict[str, Pair] = {output: (at, at)}
    for name, node in path:
        if name not in wanted:
            continue
        first, last = wanted.pop(name)
        if first <= last:
            first, last = interval(windows[name][axis], first, last)
        for source in _read(node):
            others = wanted.get(source, (first, last))
            wanted[source] = min(first, others[0]), max(last, others[1])
    return wanted[INPUT]


def _read(node: Any) -> tuple[str, ...]:
    """Return the inputs whose entries a node reads: a crop only asks its second for its size."""
    return node.inputs[:1] if isinstance(node.layer, Crop) else node.inputs
