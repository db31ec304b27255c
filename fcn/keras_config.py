"""From a Keras configuration and its arrays to a `Graph`.

A configuration is JSON: layers by class name, each with its options, and for a functional model
the layers that each reads. It is data, not code: every layer is one of the table below, and
every option is either carried out or refused by its name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import keras_wiring
from .graph import INPUT, Graph, Node
from .keras_file import KerasFile
from .keras_layers import LAYERS, Made, Options
from .layers import ConvTranspose, Crop, Softmax
from .layers.sizes import short

MODELS = ("Sequential", "Functional", "Model")
#: Models within models within models.
DEEPEST = 16
#: Networks have hundreds; a file with more is out to keep its reader busy.
MOST_NODES = 10_000


def graph(file: KerasFile) -> Graph:
    """Return the network of a file of Keras's that has a configuration.

    Nodes are named as the layers are; where two models have a layer of one name, the second is
    called ``model.layer``. An activation within a layer is a node of its own, ``layer:relu``.
    `Dropout` and its like change nothing at inference and are left out. Where the network
    upsamples by what it halved, rounding up, a `Crop` to the input's size is put in front of the
    softmax: it is the identity where Keras's own output has that size.

    Raises
    ------
    ValueError
        Naming the layer and the option that are not supported, or the array that is not there.
    """
    if file.configuration is None:
        raise ValueError("no configuration in the file")
    builder = _Builder(file)
    output = builder.model(file.configuration, None, (), "")
    if left := file.left():
        raise ValueError(f"arrays that no layer of the configuration has: {left[0][:120]}")
    if builder.channels is None:
        raise ValueError("the configuration has no layer and no input")
    return fitted(Graph(_ancestors(builder.nodes, output), builder.channels))


def name(file: KerasFile) -> str:
    """Return what the model of a file is called."""
    config = (file.configuration or {}).get("config")
    return str(config.get("name"))[:100] if isinstance(config, dict) else ""


def fitted(graph: Graph) -> Graph:
    """Return the graph with its output cropped to the input, where it is at least as large.

    That is where it is as large for some sizes and larger for others.
    """
    if not any(isinstance(node.layer, ConvTranspose) for node in graph.nodes.values()):
        return graph
    sizes = [(side, side + 1) for side in (64, 65, 95, 96, 127, 128)]
    try:
        outputs = [graph.shapes((1, *size, graph.channels))[graph.output][1:3] for size in sizes]
    except ValueError:  # it takes no such sizes
        return graph
    excess = [
        have - wanted
        for output, size in zip(outputs, sizes, strict=True)
        for have, wanted in zip(output, size, strict=True)
    ]
    if min(excess) != 0 or max(excess) == 0:
        return graph
    nodes = dict(graph.nodes)
    name, last = nodes.popitem()
    crop = _unused("crop", nodes.keys() | {name})
    if isinstance(last.layer, Softmax):
        nodes[crop] = Node(Crop(), (last.inputs[0], INPUT))
        nodes[name] = Node(last.layer, (crop,))
    else:
        nodes[name] = last
        nodes[crop] = Node(Crop(), (name, INPUT))
    return Graph(nodes, graph.channels)


def _unused(name: str, taken: Any) -> str:
    while name in taken:
        name += "_"
    return name


def _ancestors(nodes: dict[str, Node], output: str) -> dict[str, Node]:
    """Return the nodes that the output depends on; it is then the last."""
    if output not in nodes:
        raise ValueError("the configuration has no layer between its input and its output")
    needed, kept = {output}, []
    for name in reversed(nodes):
        if name in needed:
            kept.append(name)
            needed.update(nodes[name].inputs)
    return {name: nodes[name] for name in reversed(kept)}


@dataclasses.dataclass
class _Builder:
    """The nodes so far."""

    file: KerasFile
    nodes: dict[str, Node] = dataclasses.field(default_factory=dict)
    channels: int | None = None

    def model(
        self, entry: Mapping[str, Any], source: str | None, trail: tuple[str, ...], place: str
    ) -> str:
        """Add a model's layers; return the name of the node that is its output.

        Parameters
        ----------
        entry : mapping
            Its class and configuration.
        source : str or None
            The node it reads; None for the outermost, which reads the input.
        trail : tuple of str
            The names of the models it is in.
        place : str
            Where its arrays are, see `KerasFile.placed`.
        """
        if len(trail) >= DEEPEST:
            raise ValueError(f"models nested more than {DEEPEST} deep")
        kind, config = entry.get("class_name"), entry.get("config")
        if kind not in MODELS or not isinstance(config, dict):
            raise ValueError(f"expected a model, Sequential or Functional, got {short(kind)}")
        entries = config.get("layers")
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise ValueError(f"model {short(config.get('name'))} has no list of layers")
        layers: dict[str, _Layer] = {}
        for layer in self._placed(kind, entries, place):
            if layers.setdefault(layer.name, layer) is not layer:
                raise ValueError(f"two layers of one name, {short(layer.name)}")
        trail = (*trail, str(config.get("name")))
        if kind == "Sequential":
            return self._sequential(config, list(layers.values()), source, trail)
        return self._functional(config, layers, source, trail)

    def _placed(self, kind: str, entries: list[dict[str, Any]], place: str) -> Iterator[_Layer]:
        """Yield the layers with the places of their arrays: the class and a count of it."""
        counts: dict[str, int] = {}
        for position, entry in enumerate(entries):
            class_name, config = entry.get("class_name"), entry.get("config")
            if not isinstance(class_name, str) or not isinstance(config, dict):
                raise ValueError(f"layer {position} has no class and configuration")
            name = config.get("name", entry.get("name"))
            if not isinstance(name, str) or "/" in name or not name:
                raise ValueError(f"layer {position} of class {short(class_name)} has no name")
            _refuse_custom(entry, name)
            if not self.file.numbered:
                where = place or name
            elif kind == "Sequential" and position == 0 and class_name == "InputLayer":
                where = ""  # which Keras does not count among the layers
            else:
                group = _snake_case(class_name)
                count = counts[group] = counts.get(group, -1) + 1
                where = f"{place}/layers/{group}" if place else f"layers/{group}"
                where += f"_{count}" if count else ""
            yield _Layer(name, class_name, config, entry, where)

    def _sequential(
        self, config: dict[str, Any], layers: list[_Layer], source: str | None, trail: Any
    ) -> str:
        if source is None and layers and layers[0].kind != "InputLayer":
            first = layers[0].config
            source = self._input(first.get("batch_input_shape", config.get("build_input_shape")))
        for layer in layers:
            sources = [] if source is None else [source]
            source = self._layer(layer, sources, trail)
        if source is None:
            raise ValueError("a model without layers")
        return source

    def _functional(
        self, config: dict[str, Any], layers: dict[str, _Layer], source: str | None, trail: Any
    ) -> str:
        start, end = (keras_wiring.end(config, key) for key in ("input_layers", "output_layers"))
        outputs: dict[str, str] = {}
        for name, layer in layers.items():
            with _named(f"layer {short(name)}"):
                if layer.kind == "InputLayer":
                    if name != start:
                        raise ValueError("a second input, expected one")
                    sources = [] if source is None else [source]
                else:
                    reads = keras_wiring.reads(layer.entry.get("inbound_nodes"))
                    if missing := [read for read in reads if read not in outputs]:
                        raise ValueError(f"reads {short(missing[0])}, which is no layer before it")
                    sources = [outputs[read] for read in reads]
            outputs[name] = self._layer(layer, sources, trail)
        if end not in outputs:
            raise ValueError(f"output_layers: {short(end)} is not a layer")
        return outputs[end]

    def _layer(self, layer: _Layer, sources: list[str], trail: tuple[str, ...]) -> str:
        """Add one layer's nodes; return the name of its output's."""
        if layer.kind in MODELS:
            if len(sources) != 1:
                raise ValueError(f"model {short(layer.name)} has {len(sources)} inputs, expected 1")
            return self.model(layer.entry, sources[0], trail, layer.place)
        with _named(f"layer {short(layer.name)} of class {short(layer.kind)}"):
            if layer.kind == "InputLayer":
                if sources:
                    return sources[0]
                return self._input(
                    layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
                )
            if layer.kind not in LAYERS:
                raise ValueError(f"not supported; these are: {', '.join(LAYERS)}")
            options = Options(layer.config)

            def arrays(*variables: str) -> dict[str, np.ndarray]:
                return self.file.placed(layer.place, layer.name, variables, trail[-1])

            made = LAYERS[layer.kind](options, arrays)
            options.refuse_the_rest()
            return self._add(layer.name, made, sources, trail)

    def _add(self, name: str, made: Made, sources: list[str], trail: tuple[str, ...]) -> str:
        if not made:
            if len(sources) != 1:
                raise ValueError(f"{len(sources)} inputs, expected 1")
            return sources[0]
        if len(self.nodes) >= MOST_NODES:
            raise ValueError(f"more than {MOST_NODES} layers")
        if name == INPUT or name in self.nodes:
            name = _unused(f"{'.'.join(trail)}.{name}", self.nodes)
        for suffix, layer in made:
            node = f"{name}:{suffix}" if suffix else name
            if node in self.nodes:
                raise ValueError(f"two nodes called {short(node)}")
            self.nodes[node] = Node(layer, tuple(sources))
            sources = [node]
        return sources[0]

    def _input(self, shape: Any) -> str:
        """Note the input's channels, from its shape."""
        good = isinstance(shape, list) and len(shape) == 4
        if not good or type(shape[3]) is not int:
            raise ValueError(f"expected an input of shape (n, h, w, c), got {short(shape)}")
        self.channels = shape[3]
        return INPUT


@dataclasses.dataclass(frozen=True)
class _Layer:
    name: str
    kind: str
    config: dict[str, Any]
    entry: dict[str, Any]
    place: str


def _refuse_custom(entry: dict[str, Any], name: str) -> None:
    """Refuse what a file wants looked up elsewhere than among Keras's layers."""
    module, registered = entry.get("module"), entry.get("registered_name")
    kind = entry["class_name"]
    own = kind in MODELS or module in (None, "keras.layers")
    if not own or registered not in (None, kind):
        where = registered if registered not in (None, kind) else f"{module}.{kind}"
        raise ValueError(
            f"layer {short(name)} is {short(where)}, expected one of Keras's own layers"
        )


def _snake_case(name: str) -> str:
    """Return a class's name as Keras's files spell it (``keras.src.utils.naming``).

    >>> [_snake_case(name) for name in ("Conv2DTranspose", "ReLU", "BatchNormalization")]
    ['conv2d_transpose', 're_lu', 'batch_normalization']
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Put what it is about before what is wrong."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{what}: {error}") from error
