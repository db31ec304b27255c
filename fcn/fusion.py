"""From a graph to the fewest steps that compute it at inference."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, TypeAlias

from .graph import INPUT, Graph, Node
from .layers import (
    Add,
    BatchNorm,
    Conv,
    ConvTranspose,
    Crop,
    Layer,
    MaxPool,
    ReLU,
    ZeroPadding,
    namespace,
)

#: Zeros before and after the rows, and the columns.
Zeros: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
NO_ZEROS: Zeros = ((0, 0), (0, 0))


@dataclasses.dataclass(eq=False)
class Step:
    """One piece of work: a layer, and the nodes around it that it does as well.

    Attributes
    ----------
    layer : Layer
        A BatchNorm, Add or ReLU here is one that nothing before it could take in: the identity,
        then what follows.
    nodes : list of str
        Every node that it stands for; its result is the last one's.
    inputs : list of str
        Whose results it reads; the residual, where there is one, comes last.
    zeros : Zeros
        What surrounds the first input, of a ZeroPadding before a convolution or a pooling.
    norm : BatchNorm or None
        What normalises the product.
    residual : bool
        Whether the last input is added to that.
    activation : {None, "relu", "relu6"}
        What follows.
    """

    layer: Layer
    nodes: list[str]
    inputs: list[str]
    zeros: Zeros = NO_ZEROS
    norm: BatchNorm | None = None
    residual: bool = False
    activation: str | None = None

    @property
    def name(self) -> str:
        """The node whose result it gives."""
        return self.nodes[-1]

    def epilogue(self) -> dict[str, Any]:
        """Return what follows the product but for the residual, as `convarith.conv` takes it.

        A batch normalisation is, by its moving statistics, a scale and a bias (Ioffe & Szegedy,
        arXiv:1502.03167).
        """
        bias = getattr(self.layer, "bias", None)
        if self.norm is None:
            bias = None if bias is None else bias.copy()
            return {"bias": bias, "activation": self.activation}
        norm = self.norm
        xp = namespace(norm.moving_mean)
        scale = 1 / xp.sqrt(norm.moving_variance.astype(xp.float64) + norm.epsilon)
        if norm.gamma is not None:
            scale *= norm.gamma
        shift = -norm.moving_mean.astype(xp.float64)
        if bias is not None:
            shift += bias
        shift *= scale
        if norm.beta is not None:
            shift += norm.beta
        folded = {"scale": scale.astype(xp.float32), "bias": shift.astype(xp.float32)}
        return folded | {"activation": self.activation}


def steps(graph: Graph, until: str) -> list[Step]:
    """Return the steps to the result of node `until`, in an order in which they can run.

    A convolution, transposed or not, takes in the batch normalisation that follows it, the sum
    with what is there already and the rectifier, as long as nothing else reads what lies
    between; a transposed one also the crop behind it. Zeros around the picture become the
    padding of the convolutions and poolings that read them. A batch normalisation, sum or
    rectifier that none of these takes in begins a step of its own, with those behind it.

    Examples
    --------
    >>> import numpy as np
    >>> from fcn.graph import INPUT, Graph, Node
    >>> from fcn.layers import Conv, ReLU
    >>> kernel = np.ones((1, 1, 1, 1), np.float32)
    >>> nodes = {"conv": Node(Conv(kernel), (INPUT,)), "relu": Node(ReLU(), ("conv",))}
    >>> [(step.name, step.nodes) for step in steps(Graph(nodes, 1), "relu")]
    [('relu', ['conv', 'relu'])]
    """
    return _Fusion(graph, until).steps()


class _Fusion:
    def __init__(self, graph: Graph, until: str) -> None:
        self.nodes = graph.needed(until)
        self.order = {name: at for at, name in enumerate(self.nodes)}
        self.readers: dict[str, list[str]] = collections.defaultdict(list)
        for name, node in self.nodes.items():
            for source in node.inputs:
                self.readers[source].append(name)
        self.padded = {name for name, node in self.nodes.items() if self._folds(name, node)}
        self.joined = {
            name: found
            for name, node in self.nodes.items()
            if isinstance(node.layer, Add) and (found := self._operand(node))
        }

    def steps(self) -> list[Step]:
        made: list[Step] = []
        taken = set(self.padded)
        for name, node in self.nodes.items():
            if name not in taken:
                step = self._step(name, node)
                taken.update(step.nodes)
                made.append(step)
        # What a step reads comes before its last node, but perhaps not before its first.
        return sorted(made, key=lambda step: self.order[step.name])

    def _step(self, name: str, node: Node) -> Step:
        step = Step(node.layer, [name], list(node.inputs))
        source = step.inputs[0]
        if source in self.padded:
            padding = self.nodes[source]
            step.zeros = padding.layer.padding
            step.nodes.insert(0, source)
            step.inputs[0] = padding.inputs[0]
        match node.layer:
            case Conv() | ConvTranspose():
                pass
            case BatchNorm():
                step.norm = node.layer
            case Add():
                if len(node.inputs) > 2:
                    return step
                step.residual = True
            case ReLU():
                step.activation = _activation(node.layer)
                return step
            case _:
                return step
        self._take_in_what_follows(step)
        return step

    def _take_in_what_follows(self, step: Step) -> None:
        # After `step.nodes` come, each at most once and in this order: crop, norm, sum, rectifier.
        if isinstance(step.layer, ConvTranspose):
            crop = self._only_reader(step.name)
            if crop and isinstance(self.nodes[crop].layer, Crop):
                if self.nodes[crop].inputs[0] == step.name:
                    step.nodes.append(crop)
        follower = self._only_reader(step.name)
        if isinstance(step.layer, Conv | ConvTranspose) and follower:
            layer = self.nodes[follower].layer
            if isinstance(layer, BatchNorm):
                step.norm = layer
                step.nodes.append(follower)
        follower = self._only_reader(step.name)
        if follower and self.joined.get(follower) == step.name and not step.residual:
            first, second = self.nodes[follower].inputs
            step.inputs.append(second if first == step.name else first)
            step.residual = True
            step.nodes.append(follower)
        follower = self._only_reader(step.name)
        if follower and isinstance(self.nodes[follower].layer, ReLU):
            step.activation = _activation(self.nodes[follower].layer)
            step.nodes.append(follower)

    def _only_reader(self, name: str) -> str | None:
        """Return the one node that reads this one, and reads it once."""
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 else None

    def _folds(self, name: str, node: Node) -> bool:
        """Whether every reader of these zeros can do without them."""
        return (
            isinstance(node.layer, ZeroPadding)
            and bool(self.readers[name])
            and all(self._pads_itself(self.nodes[reader].layer) for reader in self.readers[name])
        )

    @staticmethod
    def _pads_itself(layer: Layer) -> bool:
        # Zeros take part in a maximum, what a pooling pads does not.
        pooling = isinstance(layer, MaxPool) and layer.padding in ("VALID", NO_ZEROS)
        return pooling or isinstance(layer, Conv)

    def _operand(self, node: Node) -> str | None:
        """Return which operand of a sum of two makes the sum: the last that can."""
        if len(node.inputs) != 2 or node.inputs[0] == node.inputs[1]:
            return None
        for operand in sorted(node.inputs, key=lambda name: -self.order.get(name, -1)):
            if operand != INPUT and self._ends_a_product(operand):
                return operand
        return None

    def _ends_a_product(self, name: str) -> bool:
        if self._only_reader(name) is None:
            return False
        node = self.nodes[name]
        if isinstance(node.layer, BatchNorm):
            return True  # of a convolution, or by itself
        if isinstance(node.layer, Crop):
            source = node.inputs[0]
            return self._only_reader(source) is not None and isinstance(
                self.nodes[source].layer, ConvTranspose
            )
        return isinstance(node.layer, Conv | ConvTranspose)


def _activation(layer: Layer) -> str:
    return "relu" if layer.maximum is None else "relu6"
