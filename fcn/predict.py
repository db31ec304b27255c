"""``python -m fcn predict``: the class of every pixel, of pictures of any size."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import overlay, pictures, tiling
from .arguments import add_device, height_and_width
from .files import keep_inputs
from .palette import Classes

if TYPE_CHECKING:
    import PIL.Image

#: What is written of a picture: class ids, colours, and colours over it.
IDS, COLOURED, OVERLAY = ".png", ".color.png", ".overlay.png"

#: How many classes are named in the line that is printed of a picture.
NAMED = 4

NAMES = """
Of a picture NAME.jpg are written NAME.png (a palette PNG whose pixels are class ids),
NAME.color.png and, with --overlay, NAME.overlay.png. Where two pictures would be written to one
file, the names keep their endings: NAME.jpg.png. No input is ever overwritten.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.epilog = NAMES
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="a picture, or a folder of pictures"
    )
    parser.add_argument(
        "--weights", required=True, type=Path, metavar="FILE", help="a file that fcn.load reads"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="made where it is missing"
    )
    parser.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="names and colours, a class a line: 'road 128 64 128' (default: the weights' names)",
    )
    parser.add_argument(
        "--tile",
        type=height_and_width,
        metavar="HxW",
        help="see tiles of this size, a quarter of which overlaps, with logits averaged there "
        "(default: the whole picture, a large one by exact tiles)",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="give every tile the halo that makes the result equal to the whole picture's",
    )
    parser.add_argument(
        "--direct",
        action="store_true",
        help="sum every convolution directly: slower, and exact tiles give the whole's very bits",
    )
    parser.add_argument(
        "--overlay", action="store_true", help="draw the classes over the picture, with a legend"
    )
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; return 1 if a picture could not be read or segmented."""
    from tqdm import tqdm

    from .model import load

    inputs = expanded(options.images)
    names = output_names(inputs)
    wanted = [IDS, COLOURED, *([OVERLAY] if options.overlay else [])]
    outputs = {
        path: {ending: options.out / f"{name}{ending}" for ending in wanted}
        for path, name in names.items()
    }
    written = [path for paths in outputs.values() for path in paths.values()]
    keep_inputs("--out", [*inputs, options.weights, options.classes], written)
    model = load(options.weights).frozen()
    model.graph.check_numbers(options.weights)  # `load` brings back any bits
    tiling.check_pixelwise(model, str(options.weights))
    classes = Classes.read(options.classes) if options.classes else Classes.of(model.classes)
    if len(classes) != len(model.classes):
        raise ValueError(
            f"{options.classes}: expected {len(model.classes)} classes as {options.weights} has, "
            f"got {len(classes)}"
        )
    model = model.to(options.device)
    if options.direct:
        model = model.compiled(algorithm="direct")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out: expected a folder, {options.out} is a file")
    options.out.mkdir(parents=True, exist_ok=True)

    failed = 0
    with tqdm(total=len(inputs), unit="image", disable=None) as bar:
        for path in inputs:
            problem: str | None = None
            line = ""
            try:
                picture = pictures.read(path)
                line = _predict(model, classes, picture, outputs[path], options)
            except pictures.Unreadable as error:
                problem = str(error)
            except MemoryError:
                problem = f"{path}: not enough memory for it; a smaller --tile takes less"
            except (OSError, ValueError) as error:  # of its outputs: the others have their own
                problem = f"{path}: {error}"
            if problem is None:
                tqdm.write(f"{path}: {line}", file=sys.stdout)
            else:
                failed += 1
                tqdm.write(f"fcn: {problem}", file=sys.stderr)
            bar.update()
    if failed:
        print(f"fcn: {failed} of {len(inputs)} pictures failed", file=sys.stderr)
    return 1 if failed else 0


def _predict(
    model: Any,
    classes: Classes,
    picture: PIL.Image.Image,
    outputs: dict[str, Path],
    options: argparse.Namespace,
) -> str:
    """Segment a picture, write what is wanted of it, and return what was found as a line."""
    from tqdm import tqdm

    size = picture.height, picture.width
    tiled = options.tile is not None or picture.width * picture.height > tiling.LARGE
    with tqdm(
        total=size[0] * size[1],
        unit="pixel",
        unit_scale=True,
        leave=False,
        disable=None if tiled else True,
    ) as bar:
        ids = tiling.segment(model, picture, options.tile, exact=options.exact, advance=bar.update)
    overlay.save_ids(outputs[IDS], ids, classes)
    overlay.save_coloured(outputs[COLOURED], ids, classes)
    if OVERLAY in outputs:
        overlay.save_overlay(outputs[OVERLAY], picture, ids, classes)
    found = overlay.shares(ids, classes)
    parts = [f"{classes.names[c]} {overlay.percent(share)}" for c, share in found[:NAMED]]
    if len(found) > NAMED:
        parts.append(f"{len(found) - NAMED} more")
    return f"{picture.width} x {picture.height} pixels: {', '.join(parts)}"


def expanded(paths: Iterable[Path]) -> list[Path]:
    """Return the pictures, those of a folder in the order of their names, each once.

    Of a folder (not of those in it) the files are taken whose names end as pictures' do.

    Raises
    ------
    ValueError
        For a folder without any.
    """
    found = []
    for path in paths:
        if os.path.isdir(path):  # False for what cannot be seen
            endings = pictures.endings()
            inside = sorted(
                file
                for file in path.iterdir()
                if file.suffix.lower() in endings and file.name[0] != "." and file.is_file()
            )
            if not inside:
                raise ValueError(f"{path}: expected pictures in this folder, got none")
            found += inside
        else:
            found.append(path)
    once: dict[str, Path] = {}
    for path in found:
        once.setdefault(os.path.realpath(path), path)
    return list(once.values())


def output_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return what the outputs of each picture are called: its name, the ending left out.

    Where that would write two pictures to one file, both keep theirs. Letters' case makes no
    difference, as on many file systems.

    Raises
    ------
    ValueError
        For two that are called alike all the same, of different folders.

    >>> list(output_names([Path("cat.jpg"), Path("dog.jpg"), Path("dog.png")]).values())
    ['cat', 'dog.jpg', 'dog.png']
    """
    paths = list(paths)
    names = {path: path.stem for path in paths}
    for last in (False, True):
        written = {path: _files(name) for path, name in names.items()}
        times = Counter(file for files in written.values() for file in files)
        alike = [path for path in paths if any(times[file] > 1 for file in written[path])]
        if not alike:
            break
        if last:
            other = next(p for p in alike[1:] if set(written[p]) & set(written[alike[0]]))
            raise ValueError(
                f"{alike[0]} and {other} would be written to one file: predict them one by one"
            )
        names.update((path, path.name) for path in alike)
    return names


def _files(name: str) -> list[str]:
    return [f"{name}{ending}".casefold() for ending in (IDS, COLOURED, OVERLAY)]
