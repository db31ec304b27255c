"""Models from files of Keras's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import backbones, keras_config, keras_order
from .graph import INPUT, Graph, Node
from .keras_file import KerasFile
from .layers import Conv, ConvTranspose, Crop, ReLU, Softmax
from .model import Model
from .preprocess import Preprocess
from .receptive import channels

PREPROCESS = {"torch": Preprocess.torch, "tf": Preprocess.tf, "caffe": Preprocess.caffe}
#: By a layer that only they have: what the networks of Keras Applications were trained on.
KNOWN = {
    "conv5_block1_preact_bn": "tf",  # ResNet V2
    "conv5_block1_3_bn": "caffe",  # ResNet
    "block5_conv3": "caffe",  # VGG16 and VGG19
    "block_16_project_BN": "tf",  # MobileNetV2
}
#: Characters of a reason, which may show what a file has in it.
LONGEST = 400
#: What may follow the scoring convolution of the textbook's network.
ACTIVATIONS = ("relu", "linear")


def is_backbone(file: KerasFile) -> bool:
    """Whether the configuration is that of a backbone of ours alone, without a head."""
    config = (file.configuration or {}).get("config")
    layers = config.get("layers") if isinstance(config, dict) else None
    last = layers[-1] if isinstance(layers, list) and layers else None
    return isinstance(last, dict) and last.get("name") == "post_relu"  # ResNet V2's


def is_textbook(file: KerasFile) -> bool:
    """Whether weights without a configuration are a sequential network's with an upsampling."""
    return file.numbered and "layers/conv2d_transpose/vars/0" in file.arrays


def beyond(file: KerasFile, backbone: str) -> list[str]:
    """Return the paths of the kernels in a file that are not the backbone's.

    Keras Applications' classifiers are no kernels, but matrices.

    Raises
    ------
    ValueError
        Where the backbone's arrays are not there.
    """
    nodes = backbones.nodes(backbone, None).nodes
    file = keras_order.with_names(file, nodes)
    for name, node in nodes.items():
        if arrays := node.layer.arrays():
            try:
                file.named(name, list(arrays))
            except ValueError as error:
                raise ValueError(f"{file.path}: node {name!r}: {error}") from error
    return [path for path in file.left() if file.arrays[path].ndim == 4]


def network(file: KerasFile) -> Graph:
    """Return the network of a file with a configuration, without what it does not say."""
    if file.configuration is None:
        raise ValueError(
            f"{file.path}: weights without a configuration, which need --backbone, --classes and "
            "--head of `python -m fcn convert`"
        )
    try:
        return keras_config.graph(file)
    except ValueError as error:
        raise ValueError(f"{file.path}: {str(error)[:LONGEST]}") from error


def from_keras(
    file: KerasFile, *, preprocess: str | None = None, classes: Sequence[str] | None = None
) -> Model:
    """Return the model of a `.keras` file, or of a legacy `.h5` of a whole model.

    Parameters
    ----------
    file : KerasFile
    preprocess : {"torch", "tf", "caffe"}, optional
        What becomes of a picture's pixels. It is not in the file; by default it is that of the
        network of Keras Applications whose layers the model has.
    classes : sequence of str, optional
        Their names, which are not in the file either. Default: their numbers.

    Raises
    ------
    ValueError
        In one line, for a file without a configuration, with a layer or option that is not
        supported (named), with other arrays than those of its layers, or of an unknown
        preprocessing.
    """
    graph = network(file)
    return _model(file, graph, {"keras": keras_config.name(file)}, preprocess, classes)


def textbook(
    file: KerasFile,
    backbone: str,
    classes: int | Sequence[str],
    *,
    activation: str = "relu",
    preprocess: str | None = None,
) -> Model:
    """Return the textbook's network with the weights of a `.weights.h5`, which has nothing else.

    ``Sequential([backbone, Conv2D(classes, 1, activation), Conv2DTranspose(classes, 64,
    padding="same", strides=32), Softmax()])``, its layers' names being Keras's.

    Parameters
    ----------
    file : KerasFile
    backbone : {"resnet50v2", "resnet101v2"}
    classes : int or sequence of str
        Their number, or their names.
    activation : {"relu", "linear"}
        What follows the first convolution: the textbook's is a ReLU.
    preprocess : {"torch", "tf", "caffe"}, optional

    Raises
    ------
    ValueError
        In one line, for a file that has another network's arrays.
    """
    try:
        graph = _textbook(file, backbone, activation)
        number = classes if isinstance(classes, int) else len(classes)
        found = channels(graph)[graph.output]
        if found != number:
            raise ValueError(f"expected the scores of {number} classes, got {found}")
    except ValueError as error:
        raise ValueError(f"{file.path}: {str(error)[:LONGEST]}") from error
    names = None if isinstance(classes, int) else classes
    made_of = {"backbone": backbone, "head": "32s"}
    return _model(file, graph, made_of, preprocess, names)


def _textbook(file: KerasFile, backbone: str, activation: str) -> Graph:
    trunk = backbones.nodes(backbone, None)
    file = keras_order.with_names(file, trunk.nodes)
    for name, node in trunk.nodes.items():
        for array, ours in node.layer.arrays().items():
            try:
                found = file.named(name, list(node.layer.arrays()))[array]
            except ValueError as error:
                raise ValueError(f"node {name!r}: {error}") from error
            if found.shape != ours.shape:
                raise ValueError(
                    f"node {name!r}: {array}: expected shape {ours.shape}, got {found.shape}"
                )
            setattr(node.layer, array, found)
    last, _ = trunk.stages[32]
    score = _pair(file, "layers/conv2d")
    upscore = _pair(file, "layers/conv2d_transpose")
    nodes = dict(trunk.nodes)
    nodes["score32"] = Node(Conv(*score, padding="VALID"), (last,))
    if score[0].shape[:2] != (1, 1) or upscore[0].shape[:2] != (64, 64):
        raise ValueError(
            f"expected kernels of 1x1 and 64x64 behind {backbone}, got "
            f"{score[0].shape[:2]} and {upscore[0].shape[:2]}"
        )
    scored = "score32"
    if activation == "relu":
        scored = "score32:relu"
        nodes[scored] = Node(ReLU(), ("score32",))
    nodes["upscore"] = Node(ConvTranspose(*upscore, strides=(32, 32), padding="SAME"), (scored,))
    nodes["crop"] = Node(Crop(), ("upscore", INPUT))
    nodes["softmax"] = Node(Softmax(), ("crop",))
    graph = Graph(nodes, channels=3)
    if left := file.left():
        raise ValueError(f"arrays that the textbook's network has not: {left[0][:120]}")
    return graph


def _pair(file: KerasFile, place: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the kernel, and the bias where there is one, of a layer with any name."""
    name = file.names.get(place, place)
    variables = ["kernel"] + ["bias"] * (f"{place}/vars/1" in file.arrays)
    found = file.placed(place, name, variables)
    return found["kernel"], found.get("bias")


def _model(
    file: KerasFile,
    graph: Graph,
    architecture: dict[str, str],
    preprocess: str | None,
    classes: Sequence[str] | None,
) -> Model:
    if preprocess is None:
        preprocess = next((KNOWN[name] for name in KNOWN if name in graph.nodes), None)
    if preprocess is None:
        raise ValueError(
            f"{file.path}: what becomes of a picture's pixels is not in the file: "
            "`python -m fcn convert --preprocess` says it"
        )
    graph.check_numbers(file.path)
    number = channels(graph)[graph.output]
    if classes is None:
        classes = [f"class {i}" for i in range(number)]
    elif len(classes) != number:
        raise ValueError(f"{file.path}: expected names of {number} classes, got {len(classes)}")
    return Model(
        graph, classes=classes, preprocess=PREPROCESS[preprocess](), architecture=architecture
    )
