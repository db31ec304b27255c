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


#: What the kernels of transposed convolutions are at first.
UPSAMPLINGS = ("bilinear", "xavier")


def nodes(
    head: str,
    backbone: Backbone,
    classes: int,
    rng: np.random.Generator,
    upsampling: str = "bilinear",
) -> dict[str, Node]:
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
    upsampling : {"bilinear", "xavier"}
        Whether upsampling starts as bilinear interpolation, or drawn as Glorot & Bengio do.

    Raises
    ------
    ValueError
    """
    if not isinstance(head, str) or head not in HEADS:
        raise ValueError(f"head: expected one of {', '.join(HEADS)}, got {head!r}")
    if upsampling not in UPSAMPLINGS:
        expected = " or ".join(map(repr, UPSAMPLINGS))
        raise ValueError(f"upsampling: expected {expected}, got {upsampling!r}")

    def up(factor: int) -> ConvTranspose:
        size = 2 * factor
        if upsampling == "bilinear":
            kernel = bilinear_kernel(classes, classes, size)
        else:
            kernel = glorot_uniform(rng, (size, size, classes, classes))
        return ConvTranspose(kernel, None, strides=(factor, factor), padding="SAME")

    coarsest, *finer = HEADS[head]
    made: dict[str, Node] = {}
    name, channels = backbone.stages[coarsest]
    made["score32"] = Node(_score(glorot_uniform(rng, (1, 1, channels, classes))), (name,))
    last, stride = "score32", coarsest
    for skip in finer:
        name, channels = backbone.stages[skip]
        score, doubled, fitted, total = (
            f"{part}{skip}" for part in ("score", "upscore", "crop", "fuse")
        )
        made[score] = Node(_score(np.zeros((1, 1, channels, classes), np.float32)), (name,))
        made[doubled] = Node(up(stride // skip), (last,))
        made[fitted] = Node(Crop(), (doubled, score))
        made[total] = Node(Add(), (score, fitted))
        last, stride = total, skip
    made["upscore"] = Node(up(stride), (last,))
    made["crop"] = Node(Crop(), ("upscore", INPUT))
    made["softmax"] = Node(Softmax(), ("crop",))
    return made


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Return a kernel ``(kh, kw, c_in, c_out)`` drawn as Glorot & Bengio (AISTATS 2010) do.

    Uniform within ``sqrt(6/(kh*kw*(c_in + c_out)))``, which the textbook calls Xavier.
    """
    limit = math.sqrt(6 / (math.prod(shape[:2]) * (shape[2] + shape[3])))
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def _score(kernel: np.ndarray) -> Conv:
    return Conv(kernel, np.zeros(kernel.shape[-1], np.float32))
