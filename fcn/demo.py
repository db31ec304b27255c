"""``python -m fcn demo``: what a photograph shows, and where."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from . import pictures, weights
from .arguments import picture_to_write, positive
from .files import keep_inputs
from .segment import ConvolutionalClassifier
from .torch_file import read_state_dict

#: The network saw objects some 200 pixels large; a larger photograph only takes longer.
LONGEST_SIDE = 640


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "image", nargs="?", type=Path, metavar="IMAGE", help="default: scikit-image's cat"
    )
    parser.add_argument(
        "--top", type=positive, default=3, metavar="N", help="classes to print (default: 3)"
    )
    parser.add_argument(
        "--out",
        type=picture_to_write,
        default=Path("demo.png"),
        help="the panel (default: demo.png)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    keep_inputs("--out", [options.image], [options.out])
    demo(options.image, top=options.top, out=options.out)
    return 0


def demo(image: Path | None, *, top: int, out: Path) -> None:
    """Segment one photograph (default: scikit-image's cat), print what it shows, draw where.

    Parameters
    ----------
    image : Path or None
    top : int
        How many classes to print.
    out : Path
        Where to write the panel.
    """
    picture, name = _photograph(image)
    shown = pictures.shrunk(picture, LONGEST_SIDE)
    model = ConvolutionalClassifier(read_state_dict(weights.fetch(weights.MOBILENET_V2)))
    photograph = np.asarray(shown)
    start = time.perf_counter()
    found = model.segment(photograph)
    seconds = time.perf_counter() - start

    note = "" if shown.size == picture.size else f", shrunk from {picture.width} x {picture.height}"
    print(f"{name}: {shown.width} x {shown.height} pixels{note}")
    print("MobileNetV2 as a fully convolutional network, 1000 ImageNet classes")
    print(f"{'class':>5}  {'name':<30} {'score':>5}  {'pixels':>6}")
    for label, score, share in found.classes()[:top]:
        print(f"{label:>5}  {model.names[label]:<30} {score:>5.2f}  {share:>6.1%}")
    print(f"took {seconds:.2f} s")
    best = found.best
    pictures.save_heat_panel(
        out, photograph, found.heat, name, f"{model.names[best]} (class {best})"
    )
    print(f"wrote {out}")


def _photograph(image: Path | None):
    if image is not None:
        return pictures.read(image), image.name
    import PIL.Image
    import skimage.data

    return PIL.Image.fromarray(skimage.data.cat()), "cat"
