"""``python -m fcn evaluate``: predictions against the masks of a data set."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import tiling
from .arguments import add_device, picture_to_write, positive
from .files import keep_inputs
from .metrics import Confusion
from .palette import Classes
from .panel import Row, save_panel
from .voc import Dataset, Sample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "--data", required=True, type=Path, metavar="DIR", help="in Pascal VOC's layout"
    )
    parser.add_argument(
        "--split", default="val", help="a file in ImageSets/Segmentation (default: val)"
    )
    parser.add_argument(
        "--weights", required=True, type=Path, metavar="FILE", help="a file that fcn.load reads"
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse a data set with a picture that is at fault"
    )
    parser.add_argument(
        "--panel",
        type=picture_to_write,
        metavar="FILE",
        help="draw pictures beside their labels and what was found",
    )
    parser.add_argument(
        "--pictures",
        type=positive,
        default=3,
        metavar="N",
        help="how many the panel has, evenly out of the split (default: 3)",
    )
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from .model import load

    model = load(options.weights).frozen()
    model.graph.check_numbers(options.weights)  # `load` brings back any bits
    tiling.check_pixelwise(model, str(options.weights))
    data = Dataset(options.data, options.split, None, strict=options.strict, progress=True)
    for problem in data.skipped.values():
        print(f"fcn: skipped {problem}", file=sys.stderr)
    _compare(model.classes, data.classes, options)
    if options.panel:
        keep_inputs("--panel", [options.weights, *data.files()], [options.panel])
    count = min(options.pictures, len(data)) if options.panel else 0
    shown = {data.names[i * len(data) // count] for i in range(count)}
    rows: list[Row] = []
    start = time.perf_counter()
    confusion = Confusion(len(data.classes))
    for sample, found in predictions(model.to(options.device), data, progress=True):
        confusion.add(sample.labels, found)
        if sample.name in shown:
            rows.append((sample.image, sample.labels, found))
    seconds = time.perf_counter() - start

    left_out = f", {len(data.skipped)} skipped" if data.skipped else ""
    print(f"{options.data}, {options.split}: {len(data)} pictures{left_out}, {seconds:.1f} s")
    print("\n".join(table(confusion, data.classes.names)))
    if options.panel:
        save_panel(options.panel, rows, data.classes)
        print(f"wrote {options.panel}")
    return 0


def predictions(
    model: Any, data: Dataset, *, progress: bool = False
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Yield every whole picture of a data set with the class ids that a model finds.

    Parameters
    ----------
    model : Model
    data : Dataset
    progress : bool
        Show a progress bar, on a terminal.
    """
    from tqdm import tqdm

    hidden = None if progress else True
    for index in tqdm(range(len(data)), unit="image", disable=hidden, leave=False):
        sample = data[index]
        yield sample, tiling.segment(model, sample.image)


def table(confusion: Confusion, names: Sequence[str]) -> list[str]:
    """Return lines with the figures of each class, and of all; a dash where there is none.

    >>> confusion = Confusion(2)
    >>> confusion.matrix[:] = [[3, 1], [0, 0]]
    >>> print("\\n".join(table(confusion, ["road", "tree"])))
    class  accuracy      IU    share
    road     0.7500  0.7500  100.00%
    tree          -  0.0000    0.00%
    <BLANKLINE>
    pixel accuracy         0.7500
    mean accuracy          0.7500
    mean IU                0.3750
    frequency weighted IU  0.7500
    4 pixels counted, 0 void
    """
    wide = max(len("class"), *map(len, names))
    lines = [f"{'class':<{wide}}  accuracy      IU    share"]
    total = max(1, int(confusion.pixels.sum()))
    for name, accuracy, iu, pixels in zip(
        names, confusion.accuracies, confusion.ius, confusion.pixels, strict=True
    ):
        share = f"{pixels / total:.2%}"
        lines.append(f"{name:<{wide}}  {_figure(accuracy):>8}  {_figure(iu):>6}  {share:>7}")
    figures = {
        "pixel accuracy": confusion.pixel_accuracy,
        "mean accuracy": confusion.mean_accuracy,
        "mean IU": confusion.mean_iu,
        "frequency weighted IU": confusion.frequency_weighted_iu,
    }
    lines.append("")
    lines += [f"{name:<21}  {_figure(value)}" for name, value in figures.items()]
    lines.append(f"{confusion.pixels.sum()} pixels counted, {confusion.void_pixels} void")
    return lines


def _figure(value: float) -> str:
    return "-" if value != value else f"{value:.4f}"


def _compare(ours: Sequence[str], theirs: Classes, options: argparse.Namespace) -> None:
    """Refuse weights for other classes than the data's, as far as the names tell."""
    if len(ours) != len(theirs):
        raise ValueError(
            f"{options.weights}: expected {len(theirs)} classes as {options.data} has, "
            f"got {len(ours)}"
        )
    if all(name == f"class {index}" for index, name in enumerate(ours)):
        return  # the file did not know them
    for index, (our, their) in enumerate(zip(ours, theirs.names, strict=True)):
        if _letters(our) != _letters(their):
            raise ValueError(
                f"{options.weights}: expected {their!r} as class {index}, as {options.data} has, "
                f"got {our!r}"
            )


def _letters(name: str) -> str:
    """Return a name without what spellings differ by: ``"tv/monitor"`` is ``"TVmonitor"``."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
