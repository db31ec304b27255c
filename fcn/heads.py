"""The heads of Long, Shelhamer & Darrell: scores of coarse maps, fused and upsampled to pixels."""

from __future__ import annotations

import math

import numpy as np

from convarith import bilinear_kernel

from .backbones import Backbone
from .graph import INPUT, Node
from .layers import Add, Conv, ConvTranspose, Crop, Softmax

#: By name: the strides of the maps that are scored, the coarsest first. The last is upsampled to
#: pixels at once.
HEADS = {"32s": (32,), "16s": (32, 16), "8s": (32, 16, 8)}


def nodes(head: str, backbone: Backbone, classes: int, rng: np.random.Generator) -> dict[str, Node]:
    """Return the nodes that turn a backbone's feature maps into class probabilities.

    A 1x1 convolution scores the coarsest map; transposed ones double the scores, which are
    cropped to the next finer map and added to that map's own; the last is upsampled to the
    pixels and cropped to the input, before the softmax. Long et al. (arXiv:1411.4038, section
    4.2): the coarsest scores' kernel is drawn (Glorot & Bengio's uniform one, as in the
    textbook), the skips' are zero, so that training starts from the coarser net, and
    upsampling starts bilinear.

    Parameters
    ----------
    head : {"32s", "16s", "8s"}
    backbone : Backbone
    classes : int
    rng : Generator

    Raises
    ------
    ValueError
    """
    if not isinstance(head, str) or head not in HEADS:
        raise ValueError(f"head: expected one of {', '.join(HEADS)}, got {head!r}")
    coarsest, *finer = HEADS[head]
    made: dict[str, Node] = {}
    name, channels = backbone.stages[coarsest]
    made["score32"] = Node(_score(glorot_uniform(rng, channels, classes)), (name,))
    last, stride = "score32", coarsest
    for skip in finer:
        name, channels = backbone.stages[skip]
        score, up, fitted, total = (
            f"{part}{skip}" for part in ("score", "upscore", "crop", "fuse")
        )
        made[score] = Node(_score(np.zeros((1, 1, channels, classes), np.float32)), (name,))
        made[up] = Node(_upsampling(classes, stride // skip), (last,))
        made[fitted] = Node(Crop(), (up, score))
        made[total] = Node(Add(), (score, fitted))
        last, stride = total, skip
    made["upscore"] = Node(_upsampling(classes, stride), (last,))
    made["crop"] = Node(Crop(), ("upscore", INPUT))
    made["softmax"] = Node(Softmax(), ("crop",))
    return made


def glorot_uniform(rng: np.random.Generator, c_in: int, c_out: int) -> np.ndarray:
    """Return a 1x1 kernel drawn as Glorot & Bengio (AISTATS 2010) do: ``(1, 1, c_in, c_out)``.

    Uniform within ``sqrt(6/(c_in + c_out))``, which the textbook calls Xavier.
    """
    limit = math.sqrt(6 / (c_in + c_out))
    return rng.uniform(-limit, limit, (1, 1, c_in, c_out)).astype(np.float32)


def _score(kernel: np.ndarray) -> Conv:
    return Conv(kernel, np.zeros(kernel.shape[-1], np.float32))


def _upsampling(classes: int, factor: int) -> ConvTranspose:
    """Return the bilinear interpolation by `factor`, its kernel trainable."""
    kernel = bilinear_kernel(classes, classes, 2 * factor)
    return ConvTranspose(kernel, None, strides=(factor, factor), padding="SAME")
