"""What a graph costs at a size of its input: operations and memory, nothing computed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from .graph import INPUT, Graph
from .inference import Program
from .layers import BatchNorm, Conv, ConvTranspose, Crop, Layer, MaxPool, ReLU, Shape, Softmax

#: Bytes of a float32.
FLOAT = 4
#: The most that convarith keeps of results that are let go (README, "Backends").
KEPT = 1 << 28
#: Bytes a pixel of two batches, one of them in the making, and of what a loss makes besides its
#: gradient.
PIXEL = 80
#: What a step is seen to take at the least, be it ever so small: the compiler of the kernels with
#: what it compiled before, which the first step loads: 125 MiB on one machine, 170 on another, and
#: something to spare. To compile takes more, once.
SPARE = 208 << 20


def flops(layer: Layer, source: Shape, result: Shape) -> int:
    """Return the operations of a convolution, transposed or not: 2 a multiply-add.

    All are counted that the dense kernel has, also those on padding, as papers count; not those
    of layers that have no kernel.

    Parameters
    ----------
    layer : Layer
    source, result : tuple of int
        The shapes ``(n, h, w, c)`` of its first input and of its result.

    >>> import numpy as np
    >>> flops(Conv(np.ones((3, 3, 2, 5), np.float32)), (1, 8, 8, 2), (1, 8, 8, 5))
    11520
    """
    if isinstance(layer, Conv):
        return 2 * math.prod(result[:3]) * layer.kernel.size
    if isinstance(layer, ConvTranspose):
        return 2 * math.prod(source[:3]) * layer.kernel.size
    return 0


def inference_bytes(program: Program, shape: Shape) -> int:
    """Return what the input, the buffers and the result of a program take in float32.

    >>> from fcn.model import build
    >>> model = build("mobilenet_v2", 2, "32s")
    >>> round(inference_bytes(model.program, (1, 320, 480, 3)) / 2**20)
    28
    """
    lengths, _ = program.buffers(shape)
    result = math.prod(program.shapes(shape)[program.until])
    return FLOAT * (math.prod(shape) + sum(lengths) + result)


def saved_bytes(
    graph: Graph, shape: Shape, *, until: str | None = None, frozen: Collection[str] = ()
) -> int:
    """Return what `Graph.forward` saves for `Graph.backward`, the input included, in float32.

    Parameters
    ----------
    graph : Graph
    shape : tuple of int
        ``(n, h, w, channels)``.
    until, frozen
        As `Graph.forward` takes them.
    """
    return _Training(graph, shape, until, frozen).saved()


def training_parts(
    graph: Graph,
    shape: Shape,
    *,
    until: str | None = None,
    frozen: Collection[str] = (),
    slots: int = 0,
) -> dict[str, int]:
    """Return what a step of training needs, in bytes by what for; rather too much than too little.

    Parameters
    ----------
    graph : Graph
    shape : tuple of int
        ``(n, h, w, channels)``.
    until, frozen
        As `Graph.forward` takes them.
    slots : int
        How many arrays the optimizer keeps of every parameter that is trained.

    Returns
    -------
    dict of str to int
        ``weights``; ``optimizer``; ``activations``, the most that there are at a time of what is
        saved, of the gradients on their way, and of those of the parameters; and ``work``, what
        the layers, the loss and the reader of batches make for themselves.

    Notes
    -----
    The activations are counted. The work is an estimate. Results that are let go are kept for the
    next ones, up to `KEPT` bytes, and they are of many sizes; the largest kernel is laid out anew,
    in Winograd's algorithm as 36 numbers for 9, forward and for its gradient; and the C library's
    heap has gaps. In 14 networks, sizes and sets of frozen nodes the sum without `SPARE` was 0.8
    to 1.5 times what a process took beside that, and 1.06 to 1.25 times where it was more than 500
    MiB.
    """
    training = _Training(graph, shape, until, frozen)
    trained = sum(
        array.size
        for name, node in training.nodes.items()
        if name not in training.frozen
        for array in node.layer.trained().values()
    )
    activations = max(training.forward(), training.backward())
    kernels = (_laid_out(node.layer) for node in training.nodes.values())
    return {
        "weights": FLOAT * sum(array.size for array in graph.arrays().values()),
        "optimizer": FLOAT * slots * trained,
        "activations": activations,
        "work": min(activations, KEPT)
        + max(kernels, default=0)
        + PIXEL * math.prod(shape[:3])
        + SPARE,
    }


def training_bytes(
    graph: Graph,
    shape: Shape,
    *,
    until: str | None = None,
    frozen: Collection[str] = (),
    slots: int = 0,
) -> int:
    """Return the sum of `training_parts`."""
    return sum(training_parts(graph, shape, until=until, frozen=frozen, slots=slots).values())


def _laid_out(layer: Layer) -> int:
    """Return the bytes that products of a layer may lay its kernel out in."""
    if not isinstance(layer, Conv | ConvTranspose):
        return 0
    winograd = isinstance(layer, Conv) and layer.kernel.shape[:2] == (3, 3) and layer.groups == 1
    return layer.kernel.nbytes * (2 * 36 // 9 if winograd else 2)


class _Training:
    """Which results are there as a step goes through the graph and back."""

    def __init__(
        self, graph: Graph, shape: Shape, until: str | None, frozen: Collection[str]
    ) -> None:
        self.nodes = graph.needed(until)
        self.output = next(reversed(self.nodes))
        self.frozen, self.active = frozenset(frozen), graph.active(frozen)
        self.shapes = {INPUT: shape} | graph.shapes(shape)
        self.sizes = {name: FLOAT * math.prod(each) for name, each in self.shapes.items()}
        #: Whose array a node's result is: a crop that takes nothing off returns what it got.
        self.owners = {INPUT: INPUT}
        for name, node in self.nodes.items():
            source = node.inputs[0]
            same = isinstance(node.layer, Crop) and self.shapes[name] == self.shapes[source]
            self.owners[name] = self.owners[source] if same else name

    def saved(self) -> int:
        """Return what is there between forward and backward."""
        return self._bytes({INPUT, *map(self._kept, self.nodes)}, self.nodes)

    def forward(self) -> int:
        """Return the most while results are made: those still to be read, and those saved."""
        last_read = {s: name for name, node in self.nodes.items() for s in node.inputs}
        kept: set[str | None] = {INPUT}
        live, done, most = {INPUT}, [], 0
        for name, node in self.nodes.items():
            live.add(name)
            done.append(name)
            kept.add(self._kept(name))
            most = max(most, self._bytes(kept | {self.owners[each] for each in live}, done))
            live -= {source for source in node.inputs if last_read[source] == name}
        return most

    def backward(self) -> int:
        """Return the most while gradients come back, a node's in and out at once."""
        left = list(self.nodes)
        arriving = {self.output}
        parameters = most = 0
        for name, node in reversed(self.nodes.items()):
            layer = node.layer
            sources = set(node.inputs[:1] if isinstance(layer, Crop) else node.inputs)
            sources &= self.active
            if name not in self.frozen:
                parameters += FLOAT * sum(array.size for array in layer.trained().values())
            if name in arriving:
                flowing = sum(self.sizes[each] for each in arriving | sources)
                # A normalisation works on the deviations from the mean besides.
                flowing += self.sizes[name] if isinstance(layer, BatchNorm) else 0
                kept = {INPUT, *map(self._kept, left)}
                most = max(most, self._bytes(kept, left) + parameters + flowing)
                arriving = arriving - {name} | sources
            left.pop()
        return most

    def _kept(self, name: str) -> str | None:
        """Return whose result a node saves for its gradient."""
        if name not in self.active:
            return None
        node = self.nodes[name]
        if isinstance(node.layer, Conv | ConvTranspose | BatchNorm):
            return self.owners[node.inputs[0]]
        return name if isinstance(node.layer, ReLU | Softmax) else None

    def _bytes(self, results: set[str | None], done: Iterable[str]) -> int:
        """Return the bytes of results, and of what poolings save: a byte an entry."""
        own = (math.prod(self.shapes[name]) for name in done if self._is_pooling(name))
        return sum(self.sizes[name] for name in results if name is not None) + sum(own)

    def _is_pooling(self, name: str) -> bool:
        return name in self.active and isinstance(self.nodes[name].layer, MaxPool)
