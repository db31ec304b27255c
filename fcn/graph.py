"""`Graph`: a network as named nodes, each a layer and the names of what it reads."""

from __future__ import annotations

import contextlib
import dataclasses
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from .layers import LAYERS, Array, Layer, Shape, check_numbers, namespace
from .layers.layer import check_keys
from .layers.sizes import LARGEST, integer, short

#: As much of a name is shown, from its end, where a file may make it of any length.
LONGEST = 200
#: The name of what goes into a graph.
INPUT = "input"


@dataclasses.dataclass(frozen=True)
class Node:
    """A layer, and the names of what it reads in order: nodes, or `INPUT`."""

    layer: Layer
    inputs: tuple[str, ...]


@dataclasses.dataclass(eq=False)
class Saved:
    """What `Graph.backward` needs of a `Graph.forward`; it is used up by it."""

    output: str  # the name of the last node that ran
    input_shape: Shape
    output_shape: Shape
    frozen: frozenset[str]
    layers: dict[str, Any]  # what each layer saved that has a gradient, in the order they ran


class Graph:
    """A network: nodes in topological order, the last of them the output.

    Parameters
    ----------
    nodes : mapping of str to Node
        Each reads nodes before it, or `INPUT`.
    channels : int
        Of the input.

    Raises
    ------
    ValueError
        Naming the node that reads what is not before it, a wrong number of inputs, or inputs
        with channels that its layer does not take.

    Examples
    --------
    >>> from fcn.layers import Conv, ReLU
    >>> kernel = np.ones((3, 3, 1, 2), np.float32)
    >>> graph = Graph({"conv": Node(Conv(kernel), (INPUT,)), "relu": Node(ReLU(), ("conv",))}, 1)
    >>> graph.shapes((1, 4, 4, 1))
    {'conv': (1, 4, 4, 2), 'relu': (1, 4, 4, 2)}
    >>> y, _ = graph.forward(np.ones((1, 4, 4, 1), np.float32))
    >>> y[0, :, :, 0]
    array([[4., 6., 6., 4.],
           [6., 9., 9., 6.],
           [6., 9., 9., 6.],
           [4., 6., 6., 4.]], dtype=float32)
    """

    def __init__(self, nodes: Mapping[str, Node], channels: int) -> None:
        self.nodes = dict(nodes)
        self.channels = integer("channels", channels, 1, LARGEST)
        if not self.nodes:
            raise ValueError("nodes: expected at least one, got none")
        found = {INPUT: self.channels}
        for name, node in self.nodes.items():
            with _named(f"node {short(name)}"):
                if not isinstance(name, str) or name in ("", INPUT):
                    raise ValueError(f"expected another name than {INPUT!r}, one that is not empty")
                if any(unicodedata.category(letter) == "Cc" for letter in name):
                    raise ValueError("expected a name without control characters")
                least, most = node.layer.arity
                if len(node.inputs) < least or (most is not None and len(node.inputs) > most):
                    number = least if least == most else f"{least} or more"
                    raise ValueError(f"expected {number} inputs, got {len(node.inputs)}")
                for source in node.inputs:
                    if source not in found:
                        raise ValueError(f"reads {short(source)}, which is no node before it")
                found[name] = node.layer.output_channels(*(found[s] for s in node.inputs))

    @property
    def output(self) -> str:
        """The name of the last node."""
        return next(reversed(self.nodes))

    def needed(self, until: str | None = None) -> dict[str, Node]:
        """Return the nodes that the output, or `until`, depends on, in order."""
        output = self.output if until is None else until
        if output not in self.nodes:
            raise ValueError(f"until: expected the name of a node, got {short(output)}")
        needed = {output}
        for name in reversed(self.nodes):
            if name in needed:
                needed.update(self.nodes[name].inputs)
        return {name: node for name, node in self.nodes.items() if name in needed}

    def forward(
        self,
        x: Array,
        train: bool = False,
        until: str | None = None,
        frozen: Collection[str] = (),
    ) -> tuple[Array, Saved | None]:
        """Return the output, and with `train` what `backward` needs.

        Nothing is kept that no later node reads and no `backward` needs.

        Parameters
        ----------
        x : ndarray
            ``(n, h, w, channels)``, float32.
        train : bool
            Whether batch norms go by the batch, and `backward` is to follow.
        until : str, optional
            The node whose result to return in place of the last one's. What it does not depend
            on is not run.
        frozen : collection of str
            Nodes whose parameters are not trained, and `INPUT` where the gradient in the input
            is not wanted. They run as without `train`, batch norms by their moving statistics;
            and what has nothing but frozen nodes before it saves nothing.

        Raises
        ------
        ValueError
            For another `x`; for names in `frozen` that no node has, and where they leave nothing
            to train; naming the node whose inputs do not fit, as crops of pictures too small do
            not.
        """
        self._check(x)
        if unknown := set(frozen) - self.nodes.keys() - {INPUT}:
            raise ValueError(f"frozen: expected names of nodes, got {short(min(unknown))}")
        nodes = self.needed(until)
        active = self.active(frozen) if train else frozenset()
        if train and next(reversed(nodes)) not in active:
            raise ValueError("frozen: expected to leave something with a gradient, got nothing")
        output = next(reversed(nodes))
        readers = dict.fromkeys((INPUT, *nodes), 0)
        for node in nodes.values():
            for source in node.inputs:
                readers[source] += 1
        input_shape = x.shape
        saved: dict[str, Any] = {}
        values = {INPUT: x}
        del x
        for name, node in nodes.items():
            with _named(f"node {short(name)}"):
                values[name], kept = node.layer.forward(
                    *(values[source] for source in node.inputs),
                    train=train and name not in frozen,
                )
            if name in active:
                saved[name] = kept
            del kept
            for source in node.inputs:
                readers[source] -= 1
                if not readers[source]:
                    del values[source]
        y = values[output]
        if not train:
            return y, None
        return y, Saved(output, input_shape, y.shape, frozenset(frozen), saved)

    def active(self, frozen: Collection[str]) -> frozenset[str]:
        """Return what a gradient goes through: `INPUT` and nodes that are not frozen, or read such.

        Parameters
        ----------
        frozen : collection of str
            As `forward` takes it.
        """
        active = {INPUT} - set(frozen)
        for name, node in self.nodes.items():
            trained = name not in frozen and bool(node.layer.trained())
            if trained or not active.isdisjoint(node.inputs):
                active.add(name)
        return frozenset(active)

    def _check(self, x: Array) -> None:
        """Refuse an input that is not ``(n, h, w, channels)`` of float32."""
        try:
            namespace(x)
        except TypeError as error:
            raise TypeError(f"x: {error}") from None
        if x.ndim != 4 or x.shape[-1] != self.channels or x.dtype != np.float32:
            raise ValueError(
                f"x: expected float32 of shape (n, h, w, {self.channels}), "
                f"got {x.dtype} of shape {x.shape}"
            )

    def backward(self, saved: Saved | None, g: Array) -> tuple[Array | None, dict[str, Array]]:
        """Return the gradients in the input and in the parameters, by ``"node/parameter"``.

        Parameters
        ----------
        saved : Saved
            Of a `forward` with ``train=True``. It is used up: what a layer saved is let go as
            soon as its gradients are there.
        g : ndarray
            The gradient in the output, of its shape.

        Returns
        -------
        gx : ndarray or None
            Of the input's shape; None where the input is frozen.
        gradients : dict of str to ndarray
            Of every parameter of the nodes that ran and are not frozen; zeros where nothing
            depends on it.
        """
        if saved is None or saved.output not in saved.layers:
            raise ValueError("saved: expected that of a forward with train=True, not used before")
        if g.shape != saved.output_shape or g.dtype != np.float32:
            raise ValueError(
                f"g: expected float32 of the output's shape {saved.output_shape}, "
                f"got {g.dtype} of shape {g.shape}"
            )
        xp = namespace(g)
        active = self.active(saved.frozen)
        arriving: dict[str, Array] = {saved.output: g}
        own: set[str] = set()  # whose arriving gradient is a sum made here
        gradients: dict[str, Array] = {}
        del g
        while saved.layers:
            name = next(reversed(saved.layers))
            node = self.nodes[name]
            trained = {} if name in saved.frozen else node.layer.trained()
            if name not in arriving:  # only its size was read
                del saved.layers[name]
                gradients.update((f"{name}/{key}", xp.zeros_like(a)) for key, a in trained.items())
                continue
            with _named(f"node {short(name)}"):
                into, of_parameters = node.layer.backward(
                    saved.layers.pop(name),
                    arriving.pop(name),
                    inputs=not active.isdisjoint(node.inputs),
                    parameters=bool(trained),
                )
            for parameter, gradient in of_parameters.items():
                gradients[f"{name}/{parameter}"] = gradient
            for source, gradient in zip(node.inputs, into, strict=True):
                if gradient is None or source not in active:
                    continue
                if source not in arriving:
                    arriving[source] = gradient
                elif source in own:
                    arriving[source] += gradient
                else:  # a layer may hand the same array to several
                    arriving[source] = arriving[source] + gradient
                    own.add(source)
            del into, gradient
        gx = arriving.get(INPUT)
        if gx is None and INPUT in active:
            gx = xp.zeros(saved.input_shape, np.float32)
        return gx, gradients

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of all layers, by ``"node/array"``."""
        return {
            f"{name}/{array}": value
            for name, node in self.nodes.items()
            for array, value in node.layer.arrays().items()
        }

    def check_numbers(self, path: Path) -> None:
        """Refuse the weights of a file with numbers that no network computes with."""
        with _named(str(path)):
            for name, array in self.arrays().items():
                check_numbers(name[-LONGEST:], array)

    def parameters(self, frozen: Collection[str] = ()) -> dict[str, Array]:
        """Return the arrays that are trained, by ``"node/parameter"``, but for frozen nodes'."""
        return {
            f"{name}/{array}": value
            for name, node in self.nodes.items()
            if name not in frozen
            for array, value in node.layer.trained().items()
        }

    def shapes(self, shape: Shape) -> dict[str, Shape]:
        """Return the shape of every node's result for an input ``(n, h, w, channels)``."""
        if len(shape) != 4 or shape[-1] != self.channels:
            raise ValueError(f"shape: expected (n, h, w, {self.channels}), got {short(shape)}")
        shapes = {INPUT: tuple(shape)}
        for name, node in self.nodes.items():
            with _named(f"node {short(name)}"):
                shapes[name] = node.layer.output_shape(*(shapes[s] for s in node.inputs))
        del shapes[INPUT]
        return shapes

    def to(self, xp: Any) -> Graph:
        """Return the graph with arrays of `xp`, numpy or cupy, copied only where they are not."""
        nodes = {name: Node(node.layer.to(xp), node.inputs) for name, node in self.nodes.items()}
        return Graph(nodes, self.channels)

    def description(self) -> dict[str, Any]:
        """Return everything but the entries of the arrays, as JSON has it."""
        return {
            "channels": self.channels,
            "nodes": [
                {
                    "name": name,
                    "layer": type(node.layer).__name__,
                    "inputs": list(node.inputs),
                    "config": node.layer.config(),
                }
                for name, node in self.nodes.items()
            ],
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Return the graph of a `description` and its `arrays`.

        Parameters
        ----------
        description : mapping
            As `description` returns it; it may come from a file that nobody vouches for.
        arrays : mapping of str to ndarray
            By ``"node/array"``.

        Raises
        ------
        ValueError
            Naming the node where a name, type, value or shape is not what it should be.
        """
        check_keys("description", description, ["channels", "nodes"])
        if not isinstance(description["nodes"], list):
            raise ValueError(f"nodes: expected a list, got {short(description['nodes'])}")
        if not isinstance(arrays, Mapping) or not all(isinstance(name, str) for name in arrays):
            raise ValueError(f"arrays: expected a mapping by name, got {short(arrays)}")
        own: dict[str, dict[str, Array]] = {}
        for key, array in arrays.items():
            name, _, kept = key.rpartition("/")
            own.setdefault(name, {})[kept] = array
        nodes: dict[str, Node] = {}
        for position, entry in enumerate(description["nodes"]):
            with _named(f"nodes[{position}]"):
                check_keys("entry", entry, ["name", "layer", "inputs", "config"])
                name = entry["name"]
                if not isinstance(name, str) or name in nodes:
                    raise ValueError(f"name: expected one of its own, got {short(name)}")
            with _named(f"node {short(name)}"):
                kind = entry["layer"]
                if not isinstance(kind, str) or kind not in LAYERS:
                    raise ValueError(
                        f"layer: expected one of {', '.join(LAYERS)}, got {short(kind)}"
                    )
                inputs = entry["inputs"]
                if not isinstance(inputs, list) or not all(isinstance(s, str) for s in inputs):
                    raise ValueError(f"inputs: expected a list of names, got {short(inputs)}")
                layer = LAYERS[kind].from_config(entry["config"], own.pop(name, {}))
            nodes[name] = Node(layer, tuple(inputs))
        if own:
            name, left = next(iter(own.items()))
            raise ValueError(
                f"arrays: expected none but the nodes', got {short(f'{name}/{next(iter(left))}')}"
            )
        try:
            return cls(nodes, description["channels"])
        except TypeError as error:
            raise ValueError(str(error)) from None


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Say where before what is wrong there."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
