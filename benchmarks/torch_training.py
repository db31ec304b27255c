"""A network of fcn's in torch, with its optimizer, to be trained beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from networks import Shape, TorchWalk, pads

import fcn
from fcn.graph import INPUT, Graph
from fcn.layers import BatchNorm, Conv, ConvTranspose, Crop, MaxPool
from fcn.optimizers import SGD, Adam
from fcn.voc import VOID

#: From ``(h, w, 3)``, RGB in uint8, to class ids ``(h, w)``.
Segmenter = Callable[[np.ndarray], np.ndarray]


class Theirs:
    """The same network in torch, with its optimizer.

    Parameters
    ----------
    model : Model
        On the CPU. Its weights are copied.
    optimizer, rate, decay
        As `Ours` takes them; of the optimizer its settings.
    device : {"cpu", "cuda"}
    layout : {"contiguous", "channels_last"}
        Of torch's memory.

    Attributes
    ----------
    tensors : dict of str to Tensor
        By ``"node/array"``; kernels have torch's order of axes.

    Raises
    ------
    ValueError
        Naming a node that has no counterpart here.
    """

    def __init__(
        self,
        model: fcn.Model,
        optimizer: SGD | Adam,
        rate: float,
        decay: float = 0.0,
        *,
        device: str = "cpu",
        layout: str = "contiguous",
    ) -> None:
        import torch

        self.torch, self.device = torch, device
        self.preprocess, self.stride = model.preprocess, model.stride
        channels_last = layout == "channels_last"
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.graph = Graph(model.graph.needed(model.scores), model.graph.channels)
        check(self.graph)
        trained = self.graph.parameters()
        self.tensors = {
            name: self._tensor(array).requires_grad_(name in trained)
            for name, array in self.graph.arrays().items()
        }
        #: What TrainingWalk finds the tensors by.
        self.by_array = {
            id(array): self.tensors[name] for name, array in self.graph.arrays().items()
        }
        self.walks: dict[Shape, TrainingWalk] = {}
        self.optimizer = self._optimizer(optimizer, list(trained), rate, decay)

    def _tensor(self, array: np.ndarray) -> Any:
        tensor = self.torch.tensor(array, device=self.device)
        if array.ndim < 4:
            return tensor
        # A transposed kernel is that of the convolution it transposes, here and there: its
        # channels change places as any kernel's do.
        return tensor.permute(3, 2, 0, 1).contiguous(memory_format=self.format)

    def _optimizer(self, ours: SGD | Adam, names: Sequence[str], rate: float, decay: float) -> Any:
        if isinstance(ours, Adam):
            tensors, betas = [self.tensors[name] for name in names], (ours.beta1, ours.beta2)
            return self.torch.optim.Adam(tensors, rate, betas, ours.epsilon, fused=True)
        groups = [
            {
                "params": [self.tensors[name] for name in names if is_kernel(name) == kernels],
                "weight_decay": decay if kernels else 0.0,
            }
            for kernels in (True, False)
        ]
        return self.torch.optim.SGD(groups, rate, ours.momentum)

    def logits(self, x: np.ndarray, *, train: bool) -> Any:
        """Map ``(n, h, w, c)`` to a tensor ``(n, classes, h, w)``."""
        if x.shape not in self.walks:
            self.walks[x.shape] = TrainingWalk(self.graph, x.shape, self.by_array)
        batch = self.torch.from_numpy(x).to(self.device).permute(0, 3, 1, 2)
        return self.walks[x.shape].made(batch.contiguous(memory_format=self.format), train)

    def step(self, x: np.ndarray, labels: np.ndarray) -> Any:
        """See `Side.step`."""
        torch = self.torch
        true = torch.from_numpy(labels).to(self.device).long()
        # Their own mean is NaN where no pixel is labelled.
        total = torch.nn.functional.cross_entropy(
            self.logits(x, train=True), true, ignore_index=VOID, reduction="sum"
        )
        loss = total / (true != VOID).sum().clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def segmenter(self) -> Segmenter:
        """See `Side.segmenter`."""
        return self._segmented

    def _segmented(self, pixels: np.ndarray) -> np.ndarray:
        """Return class ids; the picture is padded as `fcn.tiling` does."""
        height, width = pixels.shape[:2]
        padded = (-(-side // self.stride) * self.stride for side in (height, width))
        x = np.zeros((1, *padded, pixels.shape[2]), np.float32)
        x[0, :height, :width] = self.preprocess(pixels)
        with self.torch.no_grad():
            found = self.logits(x, train=False)[0].argmax(0)
        return found[:height, :width].to(self.torch.uint8).cpu().numpy()

    def finish(self) -> None:
        """See `Side.finish`."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()


class TrainingWalk(TorchWalk):
    """What training needs besides: batch norms by the batch, any padding, and crops."""

    def __init__(self, graph: Graph, shape: Shape, tensors: dict[int, Any]) -> None:
        super().__init__(graph, shape, tensors)
        self.shapes = {INPUT: shape} | graph.shapes(shape)
        self.train = False

    def made(self, source: Any, train: bool = False) -> Any:
        """Return the last node's result."""
        self.train = train
        values = {INPUT: source}
        last_read = {s: name for name, node in self.graph.nodes.items() for s in node.inputs}
        for name, node in self.graph.nodes.items():
            make = getattr(self, type(node.layer).__name__)
            shapes = [self.shapes[each] for each in node.inputs]
            inputs = [values[each] for each in node.inputs]
            values[name] = make(node.layer, shapes, self.shapes[name], *inputs)
            # What torch keeps for the gradient it keeps itself.
            for each in set(node.inputs):
                if last_read[each] == name:
                    del values[each]
            del inputs
        return values[self.graph.output]

    def ConvTranspose(
        self, layer: ConvTranspose, sources: list[Shape], result: Shape, x: Any
    ) -> Any:
        top, left, _, _ = pads(layer, sources[0])
        weight, bias = self._weights(layer)
        # What is missing beyond the last windows, and what is too much at the end.
        missing = []
        for axis, low in ((1, top), (2, left)):
            size, stride, kernel = sources[0][axis], layer.strides[axis - 1], weight.shape[axis + 1]
            missing.append(max(0, result[axis] - ((size - 1) * stride + kernel - 2 * low)))
        y = self.F.conv_transpose2d(x, weight, bias, layer.strides, (top, left), missing)
        return y[:, :, : result[1], : result[2]]

    def BatchNorm(self, layer: BatchNorm, sources: Any, result: Shape, x: Any) -> Any:
        named = {name: self.tensors[id(array)] for name, array in layer.arrays().items()}
        return self.F.batch_norm(
            x,
            named["moving_mean"],
            named["moving_variance"],
            named.get("gamma"),
            named.get("beta"),
            self.train,
            1 - layer.momentum,  # theirs is the new one's share
            layer.epsilon,
        )

    def MaxPool(self, layer: MaxPool, sources: list[Shape], result: Shape, x: Any) -> Any:
        top, left, bottom, right = pads(layer, sources[0])
        if any((top, left, bottom, right)):
            x = self.F.pad(x, (left, right, top, bottom), value=-np.inf)
        return self.F.max_pool2d(x, layer.window, layer.strides)

    def Crop(self, layer: Crop, sources: Any, result: Shape, x: Any, like: Any) -> Any:
        return x[:, :, : result[1], : result[2]]


def check(graph: Graph) -> None:
    """Refuse a graph with a node that has no counterpart in torch here."""
    for name, node in graph.nodes.items():
        kind = type(node.layer).__name__
        if not hasattr(TrainingWalk, kind):
            raise ValueError(f"node {name}: expected a layer that is mapped to torch, got {kind}")
        if isinstance(node.layer, Conv) and node.layer.dilations != (1, 1):
            raise ValueError(f"node {name}: expected dilations of 1, got {node.layer.dilations}")


def is_kernel(name: str) -> bool:
    """Tell a convolution's kernel by its name, ``"node/parameter"``."""
    return name.rpartition("/")[2] == "kernel"
