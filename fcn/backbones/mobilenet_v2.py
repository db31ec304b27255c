"""MobileNetV2 (Sandler et al., arXiv:1801.04381), as torchvision defines and names it."""

from __future__ import annotations

import numpy as np

from ..layers import Add
from ..preprocess import Preprocess
from . import Backbone
from .chain import Chain

#: Table 2 of the paper: expansion, output channels, repetitions, first stride.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, FEATURES = 32, 1280
#: torch's, whose momentum of 0.1 is what moves, not what stays.
NORM = {"epsilon": 1e-5, "momentum": 0.9}

#: Five convolutions of stride 2, each with a 3x3 window whose middle tap lies on input 2*o: the
#: feature at (i, j) looks straight at pixel (32*i, 32*j).
STRIDE = 32


def nodes(rng: np.random.Generator | None) -> Backbone:
    """Return the network up to its last feature map of 1280 channels.

    Nodes are named as torchvision's modules are, ``features.0.0`` and so on, the sums behind
    their block: ``features.3``. Each of the five halvings rounds up, so the last map has
    ``ceil(h/32)`` rows.
    """
    chain = Chain(rng)
    _conv(chain, "features.0", 3, STEM, strides=2)
    ends = {}  # by stride: the last node
    stride, at = 2, 1
    for expansion, width, repetitions, first in STAGES:
        for repetition in range(repetitions):
            strides = 1 if repetition else first
            stride *= strides
            _block(chain, f"features.{at}", width, expansion, strides)
            ends[stride] = chain.last
            at += 1
    ends[stride] = _conv(chain, f"features.{at}", 1, FEATURES)
    stages = {s: (ends[s], chain.channels[ends[s]]) for s in (8, 16, 32)}
    return Backbone(chain.nodes, stages, Preprocess.torch())


def _conv(
    chain: Chain, name: str, size: int, width: int, *, strides: int = 1, depthwise: bool = False
) -> str:
    """Add what torchvision calls Conv2dNormActivation: ``name.0``, ``name.1`` and ``name.2``."""
    around = (size // 2, size // 2)
    chain.conv(
        f"{name}.0", size, width, strides=strides, padding=(around, around), depthwise=depthwise
    )
    chain.norm(f"{name}.1", **NORM)
    return chain.relu(f"{name}.2", maximum=6)


def _block(chain: Chain, name: str, width: int, expansion: int, strides: int) -> None:
    """Add an inverted residual: expand, filter each channel by itself, project."""
    source = chain.last
    channels = chain.channels[source]
    at = 0
    if expansion != 1:
        _conv(chain, f"{name}.conv.0", 1, channels * expansion)
        at = 1
    _conv(chain, f"{name}.conv.{at}", 3, channels * expansion, strides=strides, depthwise=True)
    chain.conv(f"{name}.conv.{at + 1}", 1, width)
    chain.norm(f"{name}.conv.{at + 2}", **NORM)
    if strides == 1 and channels == width:
        chain.add(name, Add(), source, chain.last)
