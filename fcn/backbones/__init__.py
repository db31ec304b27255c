"""Classification networks without their heads, as the nodes of a graph."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ..graph import Node
    from ..preprocess import Preprocess

#: Where each backbone is written down: its module, and what to call it with.
_MODULES = {
    "vgg16": ("vgg16", {}),
    "resnet50v2": ("resnet_v2", {"depth": 50}),
    "resnet101v2": ("resnet_v2", {"depth": 101}),
    "mobilenet_v2": ("mobilenet_v2", {}),
}
#: The names that `nodes` and `fcn.build` take.
BACKBONES = tuple(_MODULES)


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone's nodes, and where its feature maps are.

    Attributes
    ----------
    nodes : dict of str to Node
        In topological order.
    stages : dict of int to (str, int)
        By stride (8, 16, 32): the last node of that stride that a head reads, and its channels.
        Its maps are of size ``ceil(h/stride)``, ``ceil(w/stride)``.
    preprocess : Preprocess
        What its published weights were trained on.
    """

    nodes: dict[str, Node]
    stages: dict[int, tuple[str, int]]
    preprocess: Preprocess


def nodes(name: str, rng: np.random.Generator | None, *, fc: bool = False) -> Backbone:
    """Return a backbone by its name.

    Parameters
    ----------
    name : str
        One of `BACKBONES`.
    rng : Generator or None
        Draws the kernels; without it they are zeros, for weights that are read afterwards.
    fc : bool
        Whether VGG16's fc6 and fc7 are part of it, as convolutions. The others have none.

    Raises
    ------
    ValueError
    """
    if not isinstance(name, str) or name not in _MODULES:
        raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {name!r}")
    module, arguments = _MODULES[name]
    if fc:
        if name != "vgg16":
            raise ValueError(f"fc: expected False for {name}, only vgg16 has fc6 and fc7")
        arguments = {"fc": True}
    return importlib.import_module(f".{module}", __name__).nodes(rng, **arguments)


@functools.cache
def names(name: str, *, fc: bool = False) -> frozenset[str]:
    """Return the names of a backbone's nodes; arguments as `nodes` takes them.

    >>> "conv1_1" in names("vgg16")
    True
    """
    return frozenset(nodes(name, None, fc=fc).nodes)
