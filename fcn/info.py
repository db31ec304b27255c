"""``python -m fcn info``: a network's layers, shapes, parameters, operations, view and memory."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import height_and_width, positive

if TYPE_CHECKING:
    from .graph import Graph

EXPLANATION = """\
A multiply-add is 2 FLOP. Those of the convolutions count, dense and with their padding; layers
without a kernel do not. The field is what one entry depends on of the input, the jump how far the
input moves from one entry to the next. Activations at inference are the input, the buffers and the
result. A training step is one of every parameter by Adam: weights, what Adam keeps, what is saved
for the gradients, and these, at their most, and what layers need to work."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="weights that hold a whole network"
    )
    parser.add_argument("--backbone", metavar="B", help="instead of a file: vgg16, ...")
    parser.add_argument("--head", metavar="H", help="32s, 16s or 8s")
    parser.add_argument("--classes", type=positive, metavar="N", help="of the network")
    parser.add_argument("--fc", action="store_true", help="with vgg16's fc6 and fc7")
    parser.add_argument(
        "--size",
        type=height_and_width,
        default=(320, 480),
        metavar="HxW",
        help="of the input (default: 320x480)",
    )
    parser.add_argument(
        "--batch", type=positive, default=1, metavar="N", help="pictures at a time (default: 1)"
    )


def run(options: argparse.Namespace) -> int:
    """Print the table; return the exit code."""
    from .model import graph_of
    from .saved import load_graph

    described = (options.backbone, options.head, options.classes)
    if options.file is not None:
        if any(described) or options.fc:
            raise ValueError("info: expected FILE, or --backbone, --head and --classes, got both")
        graph = load_graph(options.file)
        title = str(options.file)
    elif all(described):
        graph = graph_of(options.backbone, options.classes, options.head, fc=options.fc)
        title = f"{options.backbone}{' with fc6 and fc7' * options.fc}, head {options.head}"
    else:
        raise ValueError("info: expected FILE, or --backbone, --head and --classes")
    shape = (options.batch, *options.size, graph.channels)
    print(f"{title}, {options.batch} x {options.size[0]} x {options.size[1]} pixels")
    print("\n".join(report(graph, shape)))
    return 0


def report(graph: Graph, shape: tuple[int, ...]) -> list[str]:
    """Return the lines of the table, the totals and their explanation.

    Parameters
    ----------
    graph : Graph
    shape : tuple of int
        ``(n, h, w, channels)`` of the input.
    """
    from .costs import FLOAT, flops, inference_bytes
    from .graph import INPUT
    from .inference import Program
    from .receptive import fields

    shapes = {INPUT: shape} | graph.shapes(shape)
    seen = fields(graph)
    heading = ("node", "layer", "result", "parameters", "MFLOP", "field", "jump")
    rows = [heading]
    total = 0
    for name, node in graph.nodes.items():
        layer = node.layer
        operations = flops(layer, shapes[node.inputs[0]], shapes[name])
        total += operations
        rows.append(
            (
                name,
                type(layer).__name__,
                "x".join(map(str, shapes[name][1:])),
                _blank(sum(array.size for array in layer.trained().values())),
                f"{operations / 1e6:,.1f}" if operations else "",
                _both(seen[name].size),
                _both(seen[name].jump),
            )
        )
    lines = table(rows)
    trained = sum(array.size for array in graph.parameters().values())
    every = sum(array.size for array in graph.arrays().values())
    last = seen[graph.output]
    lines += [
        "",
        f"parameters       {trained:,} trained, {every - trained:,} more of batch statistics",
        f"operations       {total / 1e9:,.2f} GFLOP",
        f"receptive field  {_both(last.size)} pixels",
        f"weights          {_mebibytes(FLOAT * every)}",
        f"inference        {_mebibytes(inference_bytes(Program(graph), shape))} of activations",
        f"training step    {_training(graph, shape)}",
        "",
        EXPLANATION,
    ]
    return lines


def _training(graph: Graph, shape: tuple[int, ...]) -> str:
    """Return what a step of training needs where there is something to train."""
    from .costs import training_bytes
    from .graph import INPUT
    from .layers import Softmax
    from .optimizers import Adam

    last = graph.nodes[graph.output]
    scores = last.inputs[0] if isinstance(last.layer, Softmax) else graph.output
    if scores not in graph.active({INPUT}):
        return "nothing to train"
    slots = len(Adam.slots)
    return _mebibytes(training_bytes(graph, shape, until=scores, frozen={INPUT}, slots=slots))


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines of columns, words to the left and numbers to the right.

    >>> table([("node", "size"), ("a", "1,000")])
    ['node   size', 'a     1,000']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.rjust(width) if _is_number_column(rows, at) else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return lines


def _is_number_column(rows: list[tuple[str, ...]], at: int) -> bool:
    return not any(cell[at][:1].isalpha() for cell in rows[1:])


def _blank(number: int) -> str:
    return f"{number:,}" if number else ""


def _both(pair: tuple[int | Fraction, int | Fraction]) -> str:
    """Return what rows and columns have, once where it is the same."""
    rows, columns = map(str, pair)
    return rows if rows == columns else f"{rows}x{columns}"


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
