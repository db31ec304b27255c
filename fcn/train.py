"""``python -m fcn train``: a network trained on a folder of labelled pictures."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from . import heads
from .arguments import add_device, height_and_width, positive
from .backbones import BACKBONES
from .optimizers import OPTIMIZERS
from .recipe import RATES, Recipe
from .session import BEST, begun, resumed
from .stopping import Stopping

#: The options that a run's numbers depend on, by the fields of `Recipe`, which has their defaults.
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Recipe)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""

    def add(name: str, help: str, **more: Any) -> None:
        field = name.lstrip("-").replace("-", "_")
        default = DEFAULTS[field]
        if default is not dataclasses.MISSING and default is not None and default is not False:
            shown = default if isinstance(default, str | int | float) else None
            help += f" (default: {shown})" if shown is not None else ""
        # What is not given is not there: a run that goes on has it in its checkpoint.
        parser.add_argument(name, default=argparse.SUPPRESS, help=help, **more)

    add("--data", "the pictures and their masks, in Pascal VOC's layout", metavar="DIR")
    add(
        "--split",
        "files in ImageSets/Segmentation: what to train on and what to validate on, or one for "
        "both (default: train val)",
        nargs="+",
        metavar="NAME",
    )
    add("--backbone", "the network whose feature maps are scored", choices=BACKBONES)
    add("--fc", "vgg16 with fc6 and fc7, without their dropout", action="store_true")
    add("--weights", "what the backbone begins with (default: drawn)", metavar="FILE|imagenet")
    add("--head", "the stride of the finest scores", choices=tuple(heads.HEADS))
    add("--upsampling", "what the transposed convolutions begin as", choices=heads.UPSAMPLINGS)
    add("--epochs", "how often to see every picture", type=positive, metavar="N")
    add("--batch", "pictures a step", type=positive, metavar="N")
    add(
        "--crop",
        "what a step sees of a picture, or whole pictures (default: 320x480)",
        type=crop,
        metavar="HxW|none",
    )
    add("--pad", "pad smaller pictures by void instead of leaving them out", action="store_true")
    parser.add_argument(
        "--no-flip",
        dest="flip",
        default=argparse.SUPPRESS,
        action="store_false",
        help="do not mirror half of the pictures at random",
    )
    add("--optimizer", "how parameters are moved", choices=tuple(OPTIMIZERS))
    rates = ", ".join(f"{name} {rate:g}" for name, rate in RATES.items())
    add("--lr", f"the learning rate (default: {rates})", type=float, metavar="RATE")
    for group, what in (
        ("backbone", "the backbone; 0 freezes it"),
        ("upsampling", "transposed convolutions; 0 freezes them"),
        ("bias", "biases; the paper's is 2"),
    ):
        add(f"--lr-{group}", f"times --lr for {what}", type=float, metavar="FACTOR")
    add("--momentum", "of sgd (default: 0.9)", type=float, metavar="M")
    add("--weight-decay", "of sgd's kernels (default: 0)", type=float, metavar="D")
    add(
        "--seed",
        "of the weights that are drawn, the order, the crops and the flips",
        type=int,
        metavar="S",
    )
    add("--strict", "refuse a data set with a picture that is at fault", action="store_true")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="RUN", help="the folder that is written to"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, by its own options"
    )
    parser.add_argument(
        "--save-every",
        type=seconds,
        default=300.0,
        metavar="SECONDS",
        help="how often to write a checkpoint within an epoch (default: 300)",
    )
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code: 130 where it was stopped, and can be resumed."""
    given = {name: value for name, value in vars(options).items() if name in DEFAULTS}
    if "split" in given:
        given["split"] = _split(given["split"])
    start = resumed if options.resume else begun
    session = start(options.out, given, device=options.device, save_every=options.save_every)
    with Stopping() as stopping:
        while not session.done:
            if not session.epoch(stopping):
                session.save()
                print(f"fcn: stopped; --resume goes on with {options.out}", file=sys.stderr)
                return 130
    best = session.progress.best
    if best is not None:
        print(f"best mean IU {best.val_mean_iu:.4f}, of epoch {best.epoch}: {options.out / BEST}")
    return 0


def _split(names: list[str]) -> tuple[str, str]:
    """Return the lists to train and to validate on, of one name or two, also with a comma."""
    parts = [part for name in names for part in name.split(",") if part]
    if len(parts) not in (1, 2):
        raise ValueError(f"split: expected one name or two, got {' '.join(names)}")
    return parts[0], parts[-1]


def crop(text: str) -> tuple[int, int] | None:
    """Return height and width, or None for whole pictures."""
    return None if text == "none" else height_and_width(text)


def seconds(text: str) -> float:
    """Return a time that is none below 0 and comes to an end."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number
