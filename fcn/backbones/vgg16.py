"""VGG16 (Simonyan & Zisserman, arXiv:1409.1556, configuration D), named as in Caffe's model."""

from __future__ import annotations

import numpy as np

from ..preprocess import Preprocess
from . import Backbone
from .chain import Chain

#: The convolutions of each stage, all 3x3, and their channels.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
FC = 4096


def nodes(rng: np.random.Generator | None, *, fc: bool = False) -> Backbone:
    """Return conv1_1 to pool5, and fc6 and fc7 as convolutions where `fc` says so.

    All is padded SAME and each pooling rounds up, so the last map has ``ceil(h/32)`` rows. Long
    et al. (arXiv:1411.4038) pad the picture by 100 instead, for fc6 to fit; and drop out, which
    changes nothing at inference, behind fc6 and fc7.
    """
    chain = Chain(rng)
    for stage, (count, width) in enumerate(STAGES, 1):
        for at in range(1, count + 1):
            chain.conv(f"conv{stage}_{at}", 3, width, bias=True, padding="SAME")
            chain.relu(f"relu{stage}_{at}")
        chain.pool(f"pool{stage}", 2, 2, "SAME")
    if fc:
        for name, size in (("6", 7), ("7", 1)):
            chain.conv(f"fc{name}", size, FC, bias=True, padding="SAME")
            chain.relu(f"relu{name}")
    stages = {stride: (name, 512) for stride, name in ((16, "pool4"), (32, "pool5"))}
    stages |= {8: ("pool3", 256)} | ({32: ("relu7", FC)} if fc else {})
    return Backbone(chain.nodes, stages, Preprocess.torch())
