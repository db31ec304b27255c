"""The order in which Keras numbers the layers of a functional model."""

from __future__ import annotations

import dataclasses

from .graph import INPUT, Node
from .keras_file import KerasFile
from .layers import BatchNorm, Conv

GROUPS = {Conv: "conv2d", BatchNorm: "batch_normalization"}


def with_names(file: KerasFile, nodes: dict[str, Node]) -> KerasFile:
    """Return the file with its layers' names, where it has none, for a backbone's nodes.

    Before 3.10 Keras wrote layers by class and number alone. It numbers them by how far they are
    from the output, the farthest first, those equally far in the order in which they were made
    (``keras.src.ops.function.map_graph``).

    Parameters
    ----------
    file : KerasFile
    nodes : dict of str to Node
        Those of the backbone, made in the order in which Keras makes its layers. It is the whole
        model in the file, or the first layer of a sequential one.
    """
    if not file.numbered or file.names:
        return file
    nested = "layers/functional/layers"
    inside = nested if any(path.startswith(nested + "/") for path in file.arrays) else "layers"
    left = dict.fromkeys(nodes, 0)
    for name in reversed(nodes):
        for source in nodes[name].inputs:
            if source != INPUT:
                left[source] = max(left[source], left[name] + 1)
    counts = dict.fromkeys(GROUPS.values(), 0)
    names = {}
    for name in sorted(nodes, key=lambda name: -left[name]):  # which keeps the order of equals
        group = GROUPS.get(type(nodes[name].layer))
        if group is not None:
            names[f"{inside}/{group}" + (f"_{counts[group]}" if counts[group] else "")] = name
            counts[group] += 1
    return dataclasses.replace(file, names=names)
