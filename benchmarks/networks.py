"""The same network in other libraries: a graph of fcn's, node by node, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fcn.graph import INPUT, Graph
from fcn.layers import (
    Add,
    BatchNorm,
    Conv,
    ConvTranspose,
    Crop,
    MaxPool,
    ReLU,
    Softmax,
    ZeroPadding,
)

Shape = tuple[int, ...]


class Walk:
    """Goes through a graph for one shape of the input, and has each layer made by a method.

    The methods are named as the layers are and take the layer, the shapes of its inputs and of
    its result, and what the inputs became.
    """

    def __init__(self, graph: Graph, shape: Shape) -> None:
        self.graph, self.shape = graph, shape

    def made(self, source: Any) -> Any:
        """Return what the last node became, `source` being the input."""
        shapes = {INPUT: self.shape} | self.graph.shapes(self.shape)
        values = {INPUT: source}
        for name, node in self.graph.needed().items():
            if isinstance(node.layer, Crop):
                if shapes[name] != shapes[node.inputs[0]]:
                    raise ValueError(f"{name}: expected a size that needs no crop")
                values[name] = values[node.inputs[0]]
                continue
            make = getattr(self, type(node.layer).__name__)
            inputs = [values[each] for each in node.inputs]
            result = shapes[name]
            values[name] = make(node.layer, [shapes[s] for s in node.inputs], result, *inputs)
        return values[self.graph.output]


def pads(layer: Conv | MaxPool | ConvTranspose, shape: Shape) -> list[int]:
    """Return the padding as ONNX and torch take it: lows, then highs."""
    padding = layer.geometry(shape).convolution.padding
    return [low for low, _ in padding] + [high for _, high in padding]


class KerasWalk(Walk):
    """Layers of Keras, on symbolic tensors, channels last."""

    def __init__(self, graph: Graph, shape: Shape) -> None:
        import keras

        super().__init__(graph, shape)
        self.layers = keras.layers

    def _with(self, layer: Any, arrays: list[np.ndarray], x: Any) -> Any:
        y = layer(x)
        layer.set_weights(arrays)
        return y

    def Conv(self, layer: Conv, sources: list[Shape], result: Shape, x: Any) -> Any:
        padding = layer.padding
        if not isinstance(padding, str):
            x, padding = self.layers.ZeroPadding2D(padding)(x), "valid"
        options = {
            "strides": layer.strides,
            "padding": padding.lower(),
            "use_bias": layer.bias is not None,
        }
        size = layer.kernel.shape[:2]
        if layer.groups > 1:
            made = self.layers.DepthwiseConv2D(size, **options)
            return self._with(made, [layer.kernel.transpose(0, 1, 3, 2)], x)
        made = self.layers.Conv2D(layer.kernel.shape[3], size, **options)
        return self._with(made, list(layer.arrays().values()), x)

    def ConvTranspose(self, layer: ConvTranspose, sources: Any, result: Shape, x: Any) -> Any:
        made = self.layers.Conv2DTranspose(
            layer.kernel.shape[2],
            layer.kernel.shape[:2],
            layer.strides,
            layer.padding.lower(),
            use_bias=layer.bias is not None,
        )
        return self._with(made, list(layer.arrays().values()), x)

    def BatchNorm(self, layer: BatchNorm, sources: Any, result: Shape, x: Any) -> Any:
        made = self.layers.BatchNormalization(epsilon=layer.epsilon)
        return self._with(made, list(layer.arrays().values()), x)

    def ReLU(self, layer: ReLU, sources: Any, result: Shape, x: Any) -> Any:
        return self.layers.ReLU(layer.maximum)(x)

    def ZeroPadding(self, layer: ZeroPadding, sources: Any, result: Shape, x: Any) -> Any:
        return self.layers.ZeroPadding2D(layer.padding)(x)

    def MaxPool(self, layer: MaxPool, sources: Any, result: Shape, x: Any) -> Any:
        return self.layers.MaxPooling2D(layer.window, layer.strides, layer.padding.lower())(x)

    def Add(self, layer: Add, sources: Any, result: Shape, *xs: Any) -> Any:
        return self.layers.Add()(xs)

    def Softmax(self, layer: Softmax, sources: Any, result: Shape, x: Any) -> Any:
        return self.layers.Softmax()(x)


def keras_model(graph: Graph, shape: Shape) -> Any:
    """Return a Keras model of a graph, for a batch of the shape ``(n, h, w, c)``."""
    import keras

    source = keras.layers.Input(batch_shape=shape)
    return keras.Model(source, KerasWalk(graph, shape).made(source))


class OnnxWalk(Walk):
    """Nodes of ONNX, channels first, zeros around the picture as the convolutions' padding."""

    def __init__(self, graph: Graph, shape: Shape) -> None:
        super().__init__(graph, shape)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        #: Zeros around the picture that nothing has made yet, by the name of their result.
        self.zeros: dict[str, ZeroPadding] = {}

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _constant(self, array: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _convolution(self, kind: str, layer: Any, x: str, amounts: list[int], group: int) -> str:
        inputs = [x, self._constant(layer.kernel.transpose(3, 2, 0, 1))]
        if layer.bias is not None:
            inputs.append(self._constant(layer.bias))
        size = layer.kernel.shape[:2]
        options = {"strides": layer.strides, "pads": amounts, "kernel_shape": size, "group": group}
        return self._node(kind, inputs, **options)

    def Conv(self, layer: Conv, sources: list[Shape], result: Shape, x: str) -> str:
        amounts = pads(layer, sources[0])
        while x.startswith("zeros "):  # Keras pads by itself; here it is the convolution's
            ((top, bottom), (left, right)), x = self.zeros[x].padding, x.removeprefix("zeros ")
            amounts = [a + b for a, b in zip(amounts, (top, left, bottom, right), strict=True)]
        return self._convolution("Conv", layer, x, amounts, layer.groups)

    def ConvTranspose(self, layer: Any, sources: list[Shape], result: Shape, x: str) -> str:
        return self._convolution("ConvTranspose", layer, x, pads(layer, sources[0]), 1)

    def BatchNorm(self, layer: BatchNorm, sources: Any, result: Shape, x: str) -> str:
        arrays = [self._constant(array) for array in layer.arrays().values()]
        return self._node("BatchNormalization", [x, *arrays], epsilon=layer.epsilon)

    def ReLU(self, layer: ReLU, sources: Any, result: Shape, x: str) -> str:
        if layer.maximum is None:
            return self._node("Relu", [x])
        bounds = [self._constant(np.float32(bound)) for bound in (0, layer.maximum)]
        return self._node("Clip", [x, *bounds])

    def ZeroPadding(self, layer: ZeroPadding, sources: Any, result: Shape, x: str) -> str:
        self.zeros[f"zeros {x}"] = layer
        return f"zeros {x}"

    def MaxPool(self, layer: MaxPool, sources: list[Shape], result: Shape, x: str) -> str:
        if x.startswith("zeros "):
            ((top, bottom), (left, right)), x = self.zeros[x].padding, x.removeprefix("zeros ")
            amounts = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
            x = self._node("Pad", [x, self._constant(amounts)])
        amounts = pads(layer, sources[0])
        options = {"kernel_shape": layer.window, "strides": layer.strides, "pads": amounts}
        return self._node("MaxPool", [x], **options)

    def Add(self, layer: Add, sources: Any, result: Shape, *xs: str) -> str:
        return self._node("Add" if len(xs) == 2 else "Sum", list(xs))

    def Softmax(self, layer: Softmax, sources: Any, result: Shape, x: str) -> str:
        return self._node("Softmax", [x], axis=1)


def onnx_model(graph: Graph, shape: Shape) -> Any:
    """Return an ONNX model of a graph, from ``x`` to ``y``, both channels first."""
    from onnx import TensorProto, helper

    walk = OnnxWalk(graph, shape)
    last = walk.made("x")
    n, h, w, c = shape
    _, rows, columns, classes = graph.shapes(shape)[graph.output]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [n, c, h, w])
    result = helper.make_tensor_value_info(last, TensorProto.FLOAT, [n, classes, rows, columns])
    made = helper.make_graph(walk.nodes, "fcn", [source], [result], walk.constants)
    # An old operator set and version, which every reader takes.
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class TorchWalk(Walk):
    """torch's functions at once, channels first in memory that is channels last."""

    def __init__(self, graph: Graph, shape: Shape, tensors: dict[int, Any]) -> None:
        super().__init__(graph, shape)
        import torch

        self.torch, self.F, self.tensors = torch, torch.nn.functional, tensors

    def Conv(self, layer: Conv, sources: list[Shape], result: Shape, x: Any) -> Any:
        top, left, bottom, right = pads(layer, sources[0])
        weight, bias = self._weights(layer)
        if (top, left) != (bottom, right):
            x, top, left = self.F.pad(x, (left, right, top, bottom)), 0, 0
        return self.F.conv2d(x, weight, bias, layer.strides, (top, left), 1, layer.groups)

    def ConvTranspose(self, layer: Any, sources: list[Shape], result: Shape, x: Any) -> Any:
        top, left, bottom, right = pads(layer, sources[0])
        if (top, left) != (bottom, right):
            raise ValueError("expected even crops")
        weight, bias = self._weights(layer)
        cudnn = self.torch.backends.cudnn
        # cuDNN's search among its algorithms takes half a minute for a kernel of 64 x 64.
        search = cudnn.benchmark and max(layer.kernel.shape[:2]) < 64
        with cudnn.flags(enabled=True, benchmark=search, allow_tf32=cudnn.allow_tf32):
            return self.F.conv_transpose2d(x, weight, bias, layer.strides, (top, left))

    def _weights(self, layer: Any) -> tuple[Any, Any]:
        bias = None if layer.bias is None else self.tensors[id(layer.bias)]
        return self.tensors[id(layer.kernel)], bias

    def BatchNorm(self, layer: BatchNorm, sources: Any, result: Shape, x: Any) -> Any:
        gamma, beta, mean, variance = (self.tensors[id(a)] for a in layer.arrays().values())
        return self.F.batch_norm(x, mean, variance, gamma, beta, eps=layer.epsilon)

    def ReLU(self, layer: ReLU, sources: Any, result: Shape, x: Any) -> Any:
        return self.F.relu(x) if layer.maximum is None else self.F.relu6(x)

    def ZeroPadding(self, layer: ZeroPadding, sources: Any, result: Shape, x: Any) -> Any:
        (top, bottom), (left, right) = layer.padding
        return self.F.pad(x, (left, right, top, bottom))

    def MaxPool(self, layer: MaxPool, sources: list[Shape], result: Shape, x: Any) -> Any:
        if any(pads(layer, sources[0])):
            raise ValueError("expected a size that needs no padding")
        return self.F.max_pool2d(x, layer.window, layer.strides)

    def Add(self, layer: Add, sources: Any, result: Shape, *xs: Any) -> Any:
        return sum(xs[1:], xs[0])

    def Softmax(self, layer: Softmax, sources: Any, result: Shape, x: Any) -> Any:
        return self.torch.softmax(x.float(), 1)


def torch_function(graph: Graph, shape: Shape, device: str, dtype: str) -> Callable[[Any], Any]:
    """Return the network as a function of a tensor of logical shape ``(n, c, h, w)``."""
    import torch

    kind = getattr(torch, dtype)
    tensors = {}
    for node in graph.nodes.values():
        for array in node.layer.arrays().values():
            tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device)
            if array.ndim == 4:
                tensor = tensor.permute(3, 2, 0, 1)
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            normalises = isinstance(node.layer, BatchNorm)  # torch has these in float32 always
            tensors[id(array)] = tensor if normalises else tensor.to(kind)
    return TorchWalk(graph, shape, tensors).made
