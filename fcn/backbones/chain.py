"""Nodes one after another: how the backbones write a graph down."""

from __future__ import annotations

import math

import numpy as np

from ..graph import INPUT, Node
from ..layers import BatchNorm, Conv, Layer, MaxPool, ReLU, ZeroPadding


class Chain:
    """Nodes of a graph, each on the one before it unless told otherwise.

    Parameters
    ----------
    rng : Generator or None
        Draws the kernels; without it they are zeros, for weights that are read afterwards.
    channels : int
        Of the input.

    Attributes
    ----------
    nodes : dict of str to Node
    channels : dict of str to int
        How many channels each node gives.
    last : str
        The node added last.
    """

    def __init__(self, rng: np.random.Generator | None, channels: int = 3) -> None:
        self.rng = rng
        self.nodes: dict[str, Node] = {}
        self.channels = {INPUT: channels}
        self.last = INPUT

    def add(self, name: str, layer: Layer, *inputs: str, channels: int | None = None) -> str:
        """Add a node on `inputs` (default: the last one); return its name.

        It gives as many channels as its first input, unless told otherwise.
        """
        inputs = inputs or (self.last,)
        self.nodes[name] = Node(layer, inputs)
        self.channels[name] = self.channels[inputs[0]] if channels is None else channels
        self.last = name
        return name

    def conv(
        self,
        name: str,
        size: int,
        width: int,
        *inputs: str,
        bias: bool = False,
        strides: int = 1,
        padding: str | tuple[tuple[int, int], tuple[int, int]] = "VALID",
        depthwise: bool = False,
    ) -> str:
        """Add a convolution of `width` channels; a depthwise one keeps each channel by itself.

        Its kernel is drawn as He et al. (arXiv:1502.01852) draw it, its bias zero.
        """
        c_in = self.channels[inputs[0] if inputs else self.last]
        shape = (size, size, 1 if depthwise else c_in, width)
        layer = Conv(
            he_normal(self.rng, shape),
            np.zeros(width, np.float32) if bias else None,
            strides=(strides, strides),
            padding=padding,
            groups=c_in if depthwise else 1,
        )
        return self.add(name, layer, *inputs, channels=width)

    def norm(self, name: str, *inputs: str, epsilon: float, momentum: float) -> str:
        """Add a batch normalisation that changes nothing yet."""
        width = self.channels[inputs[0] if inputs else self.last]
        zeros, ones = np.zeros(width, np.float32), np.ones(width, np.float32)
        layer = BatchNorm(ones, zeros, zeros.copy(), ones.copy(), epsilon, momentum)
        return self.add(name, layer, *inputs)

    def relu(self, name: str, *inputs: str, maximum: float | None = None) -> str:
        """Add a rectifier."""
        return self.add(name, ReLU(maximum), *inputs)

    def pad(self, name: str, amount: int, *inputs: str) -> str:
        """Add zeros around the image."""
        return self.add(name, ZeroPadding(((amount, amount), (amount, amount))), *inputs)

    def pool(self, name: str, size: int, strides: int, padding: str, *inputs: str) -> str:
        """Add a max-pooling."""
        return self.add(name, MaxPool((size, size), (strides, strides), padding), *inputs)


def he_normal(rng: np.random.Generator | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return normal numbers of variance 2 over what one output reads, zeros without `rng`.

    Parameters
    ----------
    rng : Generator or None
    shape : tuple of int
        ``(kh, kw, c_in // groups, c_out)``.

    >>> he_normal(None, (3, 3, 2, 4)).shape
    (3, 3, 2, 4)
    """
    if rng is None:
        return np.zeros(shape, np.float32)
    kernel = rng.standard_normal(shape, np.float32)
    kernel *= np.float32(math.sqrt(2 / math.prod(shape[:-1])))
    return kernel
