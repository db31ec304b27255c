"""Train a network of fcn's beside the same one in torch: one recipe, equal weights and batches.

python benchmarks/train_torch.py --data DIR [--weights imagenet|none] [--epochs N] [--json F]

An epoch of ours and one of torch's take turns, so that both meet the same machine. No figure here
passes or fails. The recipe: VGG16 without fc6 and fc7, 8s, Adam, pictures padded to the crop and
flipped at random. Validation is on whole pictures.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import hardware
import numpy as np
from fcn_inference import versions
from torch_training import Segmenter, Theirs, is_kernel

import fcn
from fcn import tiling
from fcn.arguments import height_and_width, positive
from fcn.batches import Batch, batches, steps
from fcn.files import replacing
from fcn.metrics import Confusion
from fcn.optimizers import SGD, Adam
from fcn.preprocess import Preprocess
from fcn.training import Trainer
from fcn.voc import Dataset

SIDES = ("ours", "torch")
#: Of torch's memory; on a CPU the first is the faster one.
LAYOUTS = ("contiguous", "channels_last")


class Side(Protocol):
    """What is asked of ours and of torch's."""

    preprocess: Preprocess

    def step(self, x: np.ndarray, labels: np.ndarray) -> Any:
        """Train on a batch; return the loss before, as something that `float` takes."""

    def segmenter(self) -> Segmenter:
        """Return what segments with the weights as they are now."""

    def finish(self) -> None:
        """Wait for all that was begun."""


class Ours:
    """A model and its optimizer.

    Parameters
    ----------
    model : Model
        Trained in place.
    optimizer : SGD or Adam
    rate : float
        The learning rate of all parameters.
    decay : float
        The weight decay, of kernels only.
    """

    def __init__(
        self, model: fcn.Model, optimizer: SGD | Adam, rate: float, decay: float = 0.0
    ) -> None:
        self.model, self.preprocess = model, model.preprocess
        parameters = model.graph.parameters()
        decays = {name: decay for name in parameters if is_kernel(name)}
        rates = dict.fromkeys(parameters, rate)
        self.trainer = Trainer(model, optimizer, rates, decays=decays)

    def step(self, x: np.ndarray, labels: np.ndarray) -> float:
        """See `Side.step`."""
        sums = self.trainer.step(x, labels)
        return sums.loss / max(1, sums.pixels)

    def segmenter(self) -> Segmenter:
        """See `Side.segmenter`."""
        model = self.model.compiled()
        return lambda pixels: tiling.segment(model, pixels)

    def finish(self) -> None:
        """See `Side.finish`."""
        if self.trainer.xp is not np:
            self.trainer.xp.cuda.Device().synchronize()


def train(side: Side, source: Iterable[Batch]) -> tuple[list[float], int, float]:
    """Train on batches; return the losses, the number of pictures and the seconds."""
    losses, pictures, start = [], 0, time.perf_counter()
    for x, labels in source:
        losses.append(side.step(x, labels))
        pictures += len(x)
    side.finish()
    seconds = time.perf_counter() - start
    return [float(loss) for loss in losses], pictures, seconds


def validate(side: Side, data: Dataset) -> tuple[Confusion, float]:
    """Return how well the pictures of a split were segmented, and the seconds it took."""
    confusion, start = Confusion(len(data.classes)), time.perf_counter()
    segment = side.segmenter()
    for index in bar(range(len(data)), len(data), "validation"):
        sample = data[index]
        confusion.add(sample.labels, segment(sample.image))
    return confusion, time.perf_counter() - start


def bar(items: Iterable[Any], total: int, text: str) -> Iterator[Any]:
    """Yield the items, on a terminal with a bar that says how long it still takes."""
    from tqdm import tqdm

    yield from tqdm(items, text, total, disable=None, leave=False)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = parsed(arguments)
    hardware.use_threads(options.threads)
    try:
        splits = {
            "train": Dataset(
                options.data,
                "train",
                options.crop,
                seed=options.seed,
                strict=True,
                pad=True,
                flip=True,
            ),
            "val": Dataset(options.data, "val", None, strict=True),
        }
        sides = made(options, splits["train"].classes.names)
    except (ImportError, OSError, ValueError) as error:
        print(f"benchmarks/train_torch.py: {error}", file=sys.stderr)
        return 2
    result = described(options, splits)
    for epoch in range(options.epochs):
        figures = {name: turn(side, splits, epoch, options) for name, side in sides.items()}
        result["epochs"].append(figures)
        print(line(epoch + 1, figures), flush=True)
        if options.json:
            with replacing(options.json) as beside:
                beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if len(sides) == 2:
        print(comparison(result["epochs"]))
    return 0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="in Pascal VOC's layout"
    )
    parser.add_argument("--weights", choices=("imagenet", "none"), default="imagenet", help="first")
    parser.add_argument("--epochs", type=positive, default=10, metavar="N", help="how many")
    parser.add_argument("--batch", type=positive, default=4, metavar="N", help="pictures a step")
    parser.add_argument("--lr", type=float, default=1e-4, help="Adam's learning rate")
    parser.add_argument(
        "--crop", type=height_and_width, default=(192, 256), metavar="HxW", help="to train on"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn")
    parser.add_argument("--steps", type=positive, metavar="N", help="end an epoch after so many")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="who trains")
    parser.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="of torch's memory")
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="of each side")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    if options.json and (options.json.is_dir() or not options.json.parent.is_dir()):
        parser.error(f"--json: cannot write {options.json}")
    return options


def made(options: argparse.Namespace, classes: Sequence[str]) -> dict[str, Side]:
    """Return the sides by the name that figures have, with equal weights."""
    weights = None if options.weights == "none" else options.weights
    model = fcn.build("vgg16", classes, "8s", weights=weights, seed=options.seed)
    sides: dict[str, Side] = {}
    if "ours" in options.sides:
        sides["convarith"] = Ours(model.to(options.device), Adam(), options.lr)
    if "torch" in options.sides:
        import torch

        if options.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device: torch has no CUDA device")
        torch.set_num_threads(options.threads)
        # On a GPU float32 as it is, as ours is, by the algorithm that is found to be the fastest.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        sides["torch"] = Theirs(
            model, Adam(), options.lr, device=options.device, layout=options.layout
        )
    return sides


def described(options: argparse.Namespace, splits: Mapping[str, Dataset]) -> dict[str, Any]:
    """Return what the figures depend on, and where those of the epochs will be."""
    known = versions("cpu") | versions("cuda")
    computing = ("numpy", "convarith", "cupy" if options.device == "cuda" else "numba", "torch")
    names = ("weights", "batch", "lr", "crop", "seed", "steps", "layout")
    return {
        "machine": hardware.machine() | {"versions": {name: known.get(name) for name in computing}},
        "device": options.device,
        "threads": options.threads,
        "date": datetime.date.today().isoformat(),
        "recipe": {"network": "vgg16-8s", "optimizer": "adam"}
        | {name: getattr(options, name) for name in names},
        "data": options.data.resolve().name,
        "pictures": {split: len(data) for split, data in splits.items()},
        "epochs": [],
    }


def turn(
    side: Side, splits: Mapping[str, Dataset], epoch: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Train a side for an epoch and validate it; return its figures."""
    data = splits["train"]
    number = min(steps(len(data), options.batch), options.steps or sys.maxsize)
    source = itertools.islice(batches(data, side.preprocess, options.batch, epoch), number)
    before = hardware.others_seconds()
    losses, pictures, seconds = train(side, bar(source, number, "training"))
    others = (hardware.others_seconds() - before) / (seconds * hardware.cores())
    confusion, validation = validate(side, splits["val"])
    return {
        "losses": losses,
        "training_seconds": seconds,
        "images_per_second": pictures / seconds,
        "others": others,
        "validation_seconds": validation,
        "pixel_accuracy": confusion.pixel_accuracy,
        "mean_iu": confusion.mean_iu,
        "ius": [None if np.isnan(iu) else float(iu) for iu in confusion.ius],
    }


def line(number: int, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures of an epoch in words."""
    made = []
    for name, found in figures.items():
        made.append(
            f"{name} {found['training_seconds']:.1f} s + {found['validation_seconds']:.1f} s, "
            f"{found['images_per_second']:.2f} images/s, "
            f"loss {statistics.fmean(found['losses']):.4f}, "
            f"accuracy {found['pixel_accuracy']:.4f}, mean IU {found['mean_iu']:.4f}"
        )
    return f"epoch {number}: {' | '.join(made)}"


def comparison(epochs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """Return how many times torch's speed ours is in the median epoch, and how far we are apart."""
    ratios = {
        part: statistics.median(
            each["torch"][f"{part}_seconds"] / each["convarith"][f"{part}_seconds"]
            for each in epochs
        )
        for part in ("training", "validation")
    }
    ours, theirs = (
        [loss for each in epochs for loss in each[name]["losses"]]
        for name in ("convarith", "torch")
    )
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    last = epochs[-1]
    return (
        f"convarith: {ratios['training']:.2f} x torch's speed in training, "
        f"{ratios['validation']:.2f} x in validation; losses differ by at most {apart:.1e}, "
        f"the last mean IU by {last['convarith']['mean_iu'] - last['torch']['mean_iu']:+.4f}"
    )


if __name__ == "__main__":
    sys.exit(main())
