"""A recipe on CamVid: ours, torch's, and ours from random weights, into fcn/README.md.

python benchmarks/camvid.py [--ours RUN --untrained RUN --torch FILE]

RUN is a folder of ``python -m fcn train``, FILE what train_torch.py wrote. What they came to goes
to results/training; without them the report and its curve are made anew from what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import END, between
from tables import markdown

from fcn.files import replacing
from fcn.record import Epoch, read_log, save_curves

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "training"
CURVE = HERE.parent / "docs" / "camvid-vgg16-8s.png"
README = HERE.parent / "fcn" / "README.md"
NAME = "camvid-vgg16-8s"
BEGIN = "<!-- begin camvid: written by benchmarks/camvid.py -->"

#: Who trained; the last one from random weights.
WHO = ("convarith", "torch", "untrained")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    runs = ("ours", "untrained", "torch")
    for name in runs:
        parser.add_argument(f"--{name}", type=Path, metavar="FILE" if name == "torch" else "RUN")
    options = parser.parse_args(arguments)
    given = [getattr(options, name) is not None for name in runs]
    if any(given) and not all(given):
        parser.error("expected --ours, --untrained and --torch, or none of them")
    try:
        if all(given):
            result = measured(options.ours, options.untrained, options.torch)
            with replacing(RESULTS / f"{NAME}.json") as beside:
                beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        result = read(NAME)
        save_curves(CURVE, {who: history(result, who) for who in WHO})
        text = with_part(README.read_text(encoding="utf-8"))
        with replacing(README) as beside:
            beside.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"benchmarks/camvid.py: {error}", file=sys.stderr)
        return 2
    return 0


def read(name: str) -> dict[str, Any]:
    """Return what was measured."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def measured(ours: Path, untrained: Path, torch: Path) -> dict[str, Any]:
    """Return the three histories and what they depend on."""
    theirs = json.loads(torch.read_text(encoding="utf-8"))
    epochs = [of_torch(number, each) for number, each in enumerate(theirs["epochs"], 1)]
    told = (read_log(ours / "log.csv"), epochs, read_log(untrained / "log.csv"))
    return {
        **{key: theirs[key] for key in ("machine", "date", "recipe", "data", "pictures")},
        "note": "the machine had other work: for the speed see camvid-vgg16-8s-speed.json",
        "histories": {
            who: [dataclasses.asdict(epoch) for epoch in run]
            for who, run in zip(WHO, told, strict=True)
        },
    }


def of_torch(number: int, epoch: Mapping[str, Any]) -> Epoch:
    """Return an epoch as `train_torch` tells it."""
    told = epoch["torch"]
    return Epoch(
        epoch=number,
        loss=statistics.fmean(told["losses"]),
        accuracy=None,
        val_accuracy=told["pixel_accuracy"],
        val_mean_iu=told["mean_iu"],
        seconds=round(told["training_seconds"], 1),
        val_seconds=round(told["validation_seconds"], 1),
    )


def history(result: Mapping[str, Any], who: str) -> list[Epoch]:
    """Return the epochs of one who trained."""
    return [Epoch(**epoch) for epoch in result["histories"][who]]


def with_part(text: str) -> str:
    """Return the README's text with the marked part made anew."""
    part = report(read(NAME), read(f"{NAME}-speed"))
    return between(text, BEGIN, END.format(name="camvid"), [part])


def report(result: Mapping[str, Any], speed: Mapping[str, Any]) -> str:
    """Return the table, the curve, and what they come to."""
    histories = [history(result, who) for who in WHO]
    header = ["epoch", *(f"{what}, {who}" for what in ("mean IU", "accuracy") for who in WHO)]
    rows = [
        [
            str(epochs[0].epoch),
            *(f"{epoch.val_mean_iu:.3f}" for epoch in epochs),
            *(f"{epoch.val_accuracy:.3f}" for epoch in epochs),
        ]
        for epochs in zip(*histories, strict=True)
    ]
    return "\n\n".join(
        [
            markdown(header, rows),
            f"![Loss, pixel accuracy and mean IU by epochs](../docs/{CURVE.name})",
            f"{differences(*histories)} {speeds(speed)}",
        ]
    )


def differences(ours: Sequence[Epoch], torch: Sequence[Epoch], untrained: Sequence[Epoch]) -> str:
    """Return how far ours and torch's are apart, and what training in advance is worth."""
    apart = [a.val_mean_iu - b.val_mean_iu for a, b in zip(ours, torch, strict=True)]
    best, theirs = (max(each.val_mean_iu for each in told) for told in (ours, torch))
    return (
        "Ours and torch see the same batches from the same weights. Their mean IU after the same "
        f"epoch differs by {statistics.fmean(apart):+.3f} on average, {min(apart):+.3f} to "
        f"{max(apart):+.3f}, and in the end by {apart[-1]:+.3f}; the best of any epoch is "
        f"{best:.3f} and {theirs:.3f}. `untrained` is ours from random weights: "
        f"{untrained[-1].val_mean_iu:.3f} in the end."
    )


def speeds(speed: Mapping[str, Any]) -> str:
    """Return the speed of both, by turns in one process."""

    def median(who: str, what: str) -> float:
        return statistics.median(epoch[who][what] for epoch in speed["epochs"])

    rates = [median(who, "images_per_second") for who in WHO[:2]]
    waits = [median(who, "validation_seconds") for who in WHO[:2]]
    machine = speed["machine"]
    return (
        f"By turns in one process on {speed['threads']} cores ({machine['processor']}), "
        f"{speed['recipe']['steps']} steps an epoch, ours trained {rates[0]:.1f} pictures a second "
        f"and torch {rates[1]:.1f}, {rates[0] / rates[1]:.2f} times as many, and validation took "
        f"{waits[0]:.0f} s beside {waits[1]:.0f}."
    )


if __name__ == "__main__":
    sys.exit(main())
