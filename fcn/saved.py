"""Models in safetensors files: the arrays, and in the metadata everything else, as JSON.

The arrays are ``"node/array"``, as `Graph.arrays` has them. The metadata are ``format`` and
``version``, ``graph`` (`Graph.description`), ``classes``, ``preprocess`` and ``architecture``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import safetensors_file
from .graph import Graph
from .keras_config import MOST_NODES
from .layers.sizes import short
from .model import Model
from .preprocess import Preprocess
from .pretrained import kind
from .safetensors_file import FORMAT

VERSION = "1"
#: Characters of an entry of the metadata; the graph of ResNet101V2 has 120,000.
LARGEST_ENTRY = 1 << 24


def save(model: Model, path: Path) -> None:
    """Write a model to a safetensors file, which appears whole or not at all.

    Parameters
    ----------
    model : Model
        On any device.
    path : Path

    Raises
    ------
    OSError

    Examples
    --------
    >>> import tempfile, fcn.model
    >>> model = fcn.model.build("mobilenet_v2", ["road", "sky"], "32s")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, Path(folder) / "model.safetensors")
    ...     load(Path(folder) / "model.safetensors").classes
    ('road', 'sky')
    """
    arrays = model.to("cpu").graph.arrays()
    safetensors_file.write(
        path, arrays, {"format": FORMAT, "version": VERSION, **description(model)}
    )


def description(model: Model) -> dict[str, str]:
    """Return everything but the arrays, as `described` takes it: JSON by name."""
    metadata = {
        "graph": model.graph.description(),
        "classes": list(model.classes),
        "preprocess": model.preprocess.to_json(),
        "architecture": model.architecture,
    }
    return {name: json.dumps(value, allow_nan=False) for name, value in metadata.items()}


def load_graph(path: Path) -> Graph:
    """Return the network in a file alone: what becomes of a picture's pixels need not be known."""
    if kind(path) == "keras":
        from . import keras_file, keras_model

        return keras_model.network(keras_file.read(path))
    return load(path).graph


def load(path: Path) -> Model:
    """Return the model in a file: one that `save` wrote, or a `.keras` or `.h5` of Keras's.

    Raises
    ------
    ValueError
        In one line, for a file that is truncated, damaged, made to do harm, or of another kind.
    OSError
        Where the file cannot be read.
    """
    found = kind(path)
    if found == "keras":
        from . import keras_file, keras_model

        return keras_model.from_keras(keras_file.read(path))
    if found != "safetensors":
        raise ValueError(
            f"{path}: a {found} file has weights alone, see `python -m fcn convert --backbone`"
        )
    arrays, metadata = safetensors_file.read(path)
    try:
        check_format(metadata, FORMAT, VERSION)
        return described(arrays, metadata)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = str(error)[:400]  # which may show what the file has in it
        raise ValueError(f"{path}: not a model of convarith's: {reason}") from error


def check_format(metadata: Mapping[str, str], expected: str, version: str) -> None:
    """Refuse the metadata of files in another format, or in another version of it."""
    for name, value in (("format", expected), ("version", version)):
        if metadata.get(name) != value:
            raise ValueError(f"{name}: expected {value!r}, got {short(metadata.get(name))}")


def described(arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> Model:
    """Return the model of its arrays and of what `description` returned.

    Raises
    ------
    TypeError, ValueError
        Naming the entry that is not what it should be.
    """
    graph = entry(metadata, "graph", dict)
    nodes = graph.get("nodes")
    if isinstance(nodes, list) and len(nodes) > MOST_NODES:
        raise ValueError(f"graph: expected at most {MOST_NODES} nodes, got {len(nodes)}")
    classes = entry(metadata, "classes", list)
    if not all(isinstance(name, str) and name for name in classes):
        raise ValueError(f"classes: expected names, got {short(classes)}")
    return Model(
        Graph.from_description(graph, arrays),
        classes=classes,
        preprocess=Preprocess.from_json(entry(metadata, "preprocess", dict)),
        architecture=entry(metadata, "architecture", dict),
    )


def entry(metadata: Mapping[str, str], name: str, expected: type) -> Any:
    """Return an entry of a file's metadata as what its JSON says, of the expected type."""
    text = metadata.get(name, "")
    if len(text) > LARGEST_ENTRY:
        raise ValueError(f"{name}: {len(text)} characters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected JSON, got {short(metadata.get(name))}") from error
    if not isinstance(value, expected):
        raise ValueError(f"{name}: expected a {expected.__name__}, got {short(value)}")
    return value
