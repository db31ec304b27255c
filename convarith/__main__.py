"""Shapes, explanations, translations and receptive fields: ``python -m convarith``."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import os
import re
import sys
import textwrap
import warnings
from fractions import Fraction
from typing import Any, NoReturn

from .coordinates import CoordinateMap, Window
from .geometry import ConvGeometry


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code, 2 for what the caller can mend."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes NAME=VALUE before an option only: those behind it are left over.
    behind = [word for word in rest if options.command == "translate" and word[:1] != "-"]
    if len(behind) < len(rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.arguments = [*getattr(options, "arguments", ()), *behind]
    try:
        answer, text = options.run(options)
        print(json.dumps(answer) if options.json else text, flush=True)
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"convarith {options.command}: {error}", file=sys.stderr)
        return 2
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"convarith {options.command}: {message}", file=sys.stderr)
        return 2
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m convarith", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Any, text: str, **more: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter, **more
        )
        added.add_argument("--json", action="store_true", help="print JSON")
        added.set_defaults(run=run)
        return added

    _add_geometry(command("shape", shape, "the sizes of a convolution"))
    _add_geometry(command("explain", explain, "the arithmetic behind them, line by line"))
    translating = command(
        "translate",
        translate,
        "a layer of one framework in the words of another",
        epilog="example: python -m convarith translate keras torch --transposed"
        " kernel_size=3,3 strides=2 padding=same",
    )
    translating.add_argument("source", help="tensorflow, keras, torch, jax or onnx")
    translating.add_argument("target", help="likewise")
    translating.add_argument(
        "arguments",
        nargs="*",
        metavar="NAME=VALUE",
        help="the layer's arguments as the source names them, and kernel_size; and where they"
        " matter input_size, in_channels, out_channels",
    )
    translating.add_argument("--transposed", action="store_true", help="a transposed convolution")
    fields = command(
        "receptive-field",
        receptive_field,
        "what one output of a chain of layers reads",
        epilog="example, VGG16 up to conv5_3: python -m convarith receptive-field"
        " 3p1x2 2s2 3p1x2 2s2 3p1x3 2s2 3p1x3 2s2 3p1x3",
    )
    fields.add_argument(
        "layers",
        nargs="+",
        metavar="LAYER",
        help="KERNEL[sSTRIDE][pPADDING][dDILATION][t][c][xTIMES], from the input on: 3p1, 7s2p3,"
        " 64s32t (transposed), 2s2c (a pooling that rounds sizes up), 3p1x4 (four of them)",
    )
    fields.add_argument("--input-size", type=_integer, metavar="N", help="print sizes as well")
    return parser


def _add_geometry(parser: argparse.ArgumentParser) -> None:
    def per_axis(flag: str, text: str, **more: Any) -> None:
        parser.add_argument(flag, nargs="+", type=_integer, metavar="N", help=text, **more)

    per_axis("input_size", "spatial size, one number, or one an axis")
    per_axis("--kernel-size", "one number, or one an axis", required=True)
    per_axis("--strides", "default: 1", default=[1])
    per_axis("--dilations", "default: 1", default=[1])
    parser.add_argument(
        "--padding",
        nargs="+",
        default=["VALID"],
        metavar="P",
        help="VALID, SAME, SAME_LOWER, one number, or a number or LOW,HIGH an axis; where the"
        ' first is negative, as --padding="-1,0 0,0"',
    )
    for flag in ("--groups", "--in-channels", "--out-channels"):
        parser.add_argument(flag, type=_integer, default=1, metavar="N", help="default: 1")
    parser.add_argument("--transposed", action="store_true", help="of the transposed convolution")
    per_axis("--output-size", "which size the transposed convolution gives")


def _geometry(options: argparse.Namespace) -> ConvGeometry:
    def single(values: list[Any]) -> Any:
        return values[0] if len(values) == 1 else values

    padding = single([_padding(word) for word in " ".join(options.padding).split()])
    arguments = {
        "strides": single(options.strides),
        "dilations": single(options.dilations),
        "padding": [padding] if isinstance(padding, tuple) else padding,
        "groups": options.groups,
        "in_channels": options.in_channels,
        "out_channels": options.out_channels,
    }
    size, kernel = single(options.input_size), single(options.kernel_size)
    if options.transposed:
        wanted = options.output_size and single(options.output_size)
        return ConvGeometry.of_transpose(size, kernel, output_size=wanted, **arguments).adjoint
    if options.output_size is not None:
        raise ValueError("--output-size: expected with --transposed only")
    return ConvGeometry(size, kernel, **arguments)


def shape(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Answer with the sizes that follow from the arguments."""
    geometry = _geometry(options)
    answer = {
        **dataclasses.asdict(geometry),
        "effective_kernel_size": geometry.effective_kernel_size,
        "crops": geometry.crops,
        "unread": geometry.unread,
        "matrix_shape": geometry.matrix_shape,
        "nnz": geometry.nnz,
        "matrix_nbytes": geometry.matrix_nbytes(),
    }
    kind = "transposed convolution" if geometry.transposed else "convolution"
    rows, columns = geometry.matrix_shape
    text = (
        f"{kind} {_times(geometry.input_shape)} -> {_times(geometry.output_shape)} "
        f"(channels last), padding {geometry.padding}\n"
        f"W{'^T' if geometry.transposed else ''}: {rows} x {columns}, {geometry.nnz} entries"
    )
    return answer, text


def explain(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Answer with `ConvGeometry.explain`."""
    text = str(_geometry(options).explain())
    return {"lines": text.splitlines()}, text


def translate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Answer with `convarith.conventions.translate`."""
    from . import conventions

    arguments = {}
    for given in options.arguments:
        name, equals, value = given.partition("=")
        if not (name.isidentifier() and equals):
            raise ValueError(f"{given}: expected NAME=VALUE")
        if name in ("source", "target", "transposed") or name in arguments:
            raise ValueError(f"{name}: expected once" if name in arguments else f"{name}: not here")
        arguments[name] = _value(value)
    translation = conventions.translate(
        options.source, options.target, transposed=options.transposed, **arguments
    )
    text = textwrap.fill(str(translation), 100, break_long_words=False, break_on_hyphens=False)
    return dataclasses.asdict(translation), text


def receptive_field(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Answer with the receptive field, jump, offset and halo of a chain, layer by layer."""
    size = options.input_size
    words = [(given, _windows(given)) for given in options.layers]
    layers = sum(len(windows) for _, windows in words)
    if layers > MOST_LAYERS:
        raise ValueError(f"LAYER: expected at most {MOST_LAYERS} layers, got {layers}")
    so_far = CoordinateMap()
    rows = []
    for given, windows in words:
        so_far = so_far.then(*windows)
        row: dict[str, Any] = {
            "layer": given,
            "receptive_field": so_far.receptive_field[0],
            "jump": _number(so_far.jump[0]),
            "offset": _number(so_far.offset[0]),
        }
        if size is not None:
            row["size"] = so_far.output_size(size)[0]
        rows.append(row)
    before, after = so_far.halo[0]
    answer: dict[str, Any] = {
        "layers": rows,
        "halo": {"before": before, "after": after},
        "period": dict(zip(("outputs", "inputs"), so_far.period[0], strict=True)),
    }
    if not words[0][1][0].transposed:
        answer["minimal_padding"] = so_far.minimal_padding(1 if size is None else size)[0]
    header = [name.replace("_", " ") for name in rows[0]]
    table = [header, *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table
    ]
    lines.append(f"a tile needs {before} more inputs before and {after} after its own")
    return answer, "\n".join(lines)


MOST_LAYERS = 1000
_LAYER = re.compile(r"k?(\d{1,300})((?:[spd]\d{1,300}|[tc])*)(?:x(\d{1,9}))?", re.ASCII)


def _windows(text: str) -> list[Window]:
    """Return the layers that a word like ``3s2p1x2`` stands for."""
    match = _LAYER.fullmatch(text)
    parts = re.findall(r"[spd]\d+|[tc]", match[2]) if match else []
    letters = [part[0] for part in parts]
    if match is None or len(set(letters)) < len(letters):
        raise ValueError(
            f"{text}: expected KERNEL[sSTRIDE][pPADDING][dDILATION][t][c][xTIMES], like 3s2p1"
        )
    amounts = {part[0]: int(part[1:]) for part in parts if len(part) > 1}
    times = int(match[3] or 1)
    if not 1 <= times <= MOST_LAYERS:
        raise ValueError(f"{text}: expected 1 to {MOST_LAYERS} times")
    window = Window(
        int(match[1]),
        strides=amounts.get("s", 1),
        dilations=amounts.get("d", 1),
        padding=amounts.get("p", 0),
        transposed="t" in letters,
        ceil_mode="c" in letters,
    )
    return [window] * times


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,300}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"expected an integer, got {text[:40]!r}")
    return int(text)


def _padding(text: str) -> Any:
    """Return a word, a number, or ``(low, high)``."""
    if text.isidentifier():
        return text
    try:
        numbers = tuple(map(_integer, text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--padding: {error}") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _value(text: str) -> Any:
    """Return what a Python literal says, and any other text as it is.

    >>> _value("2"), _value("3,3"), _value("same"), _value("[1, 1, 0, 0]")
    (2, (3, 3), 'same', [1, 1, 0, 0])
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of syntax, which is no concern here
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _number(value: Fraction) -> int | str:
    return int(value) if value.denominator == 1 else str(value)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


if __name__ == "__main__":
    sys.exit(main())
