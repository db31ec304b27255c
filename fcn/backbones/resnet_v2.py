"""ResNet V2 (He et al., arXiv:1603.05027), as Keras Applications defines and names it."""

from __future__ import annotations

import numpy as np

from ..layers import Add
from ..preprocess import Preprocess
from . import Backbone
from .chain import Chain

#: By depth: the blocks of each stage.
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
#: The inner channels of the stages' blocks, whose outputs have four times as many.
WIDTHS = (64, 128, 256, 512)
#: Keras's; its default momentum.
NORM = {"epsilon": 1.001e-5, "momentum": 0.99}


def nodes(rng: np.random.Generator | None, *, depth: int) -> Backbone:
    """Return conv1_pad to post_relu.

    The last block of a stage halves the map, not the first of the next, and rounds up. The
    deepest maps of strides 8 and 16 are therefore inside of those blocks: what their
    pre-activation gives.

    Parameters
    ----------
    rng : Generator or None
    depth : {50, 101}
    """
    chain = Chain(rng)
    chain.pad("conv1_pad", 3)
    chain.conv("conv1_conv", 7, 64, bias=True, strides=2)
    chain.pad("pool1_pad", 1)
    chain.pool("pool1_pool", 3, 2, "VALID")
    for stage, (blocks, width) in enumerate(zip(BLOCKS[depth], WIDTHS, strict=True), 2):
        for at in range(1, blocks + 1):
            stride = 2 if at == blocks and stage < 5 else 1
            _block(chain, f"conv{stage}_block{at}", width, stride, conv_shortcut=at == 1)
    chain.norm("post_bn", **NORM)
    chain.relu("post_relu")
    stages = {32: ("post_relu", 2048)}
    for stride, stage in ((8, 3), (16, 4)):
        name = f"conv{stage}_block{BLOCKS[depth][stage - 2]}_preact_relu"
        stages[stride] = (name, chain.channels[name])
    return Backbone(chain.nodes, stages, Preprocess.tf())


def _block(chain: Chain, name: str, width: int, stride: int, *, conv_shortcut: bool) -> None:
    """Add a bottleneck block whose normalisations and rectifiers come before the convolutions."""
    source = chain.last
    chain.norm(f"{name}_preact_bn", **NORM)
    preact = chain.relu(f"{name}_preact_relu")
    shortcut = source
    if conv_shortcut:
        shortcut = chain.conv(f"{name}_0_conv", 1, 4 * width, bias=True, strides=stride)
    elif stride > 1:
        shortcut = chain.pool(f"{name}_0_pool", 1, stride, "VALID", source)
    chain.conv(f"{name}_1_conv", 1, width, preact)
    chain.norm(f"{name}_1_bn", **NORM)
    chain.relu(f"{name}_1_relu")
    chain.pad(f"{name}_2_pad", 1)
    chain.conv(f"{name}_2_conv", 3, width, strides=stride)
    chain.norm(f"{name}_2_bn", **NORM)
    chain.relu(f"{name}_2_relu")
    chain.conv(f"{name}_3_conv", 1, 4 * width, bias=True)
    chain.add(f"{name}_out", Add(), shortcut, chain.last)
