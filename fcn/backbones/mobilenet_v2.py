"""MobileNetV2 (Sandler et al., arXiv:1801.04381), as torchvision defines and names it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..layers import Conv, Layer, Residual, Sequential, folded

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
EPSILON = 1e-5

#: Five convolutions of stride 2, each with a 3x3 window whose middle tap lies on input 2*o: the
#: feature at (i, j) looks straight at pixel (32*i, 32*j).
STRIDE = 32


class _Tensors:
    """Takes tensors out of a state dict, each with the shape it must have."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.tensors = tensors

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensor = self.tensors.get(name)
        found = "nothing" if tensor is None else f"{tensor.dtype} of shape {tensor.shape}"
        if tensor is None or tensor.shape != shape or tensor.dtype != np.float32:
            raise ValueError(f"{name}: expected float32 of shape {shape}, got {found}")
        return tensor

    def kernel(self, name: str, size: int, c_in: int, c_out: int) -> np.ndarray:
        """Return torch's ``(out, in, h, w)`` as ``(h, w, in, out)``."""
        oihw = self.take(f"{name}.weight", (c_out, c_in, size, size))
        return np.ascontiguousarray(oihw.transpose(2, 3, 1, 0))

    def norm(self, name: str, channels: int) -> dict[str, np.ndarray]:
        parts = ("weight", "bias", "running_mean", "running_var")
        return folded(*(self.take(f"{name}.{part}", (channels,)) for part in parts), EPSILON)


def features(tensors: Mapping[str, np.ndarray]) -> Sequential:
    """Return the network up to its last feature map: ``(n, h, w, 3)`` to ``(n, h', w', 1280)``.

    Each of the five halvings rounds up, so ``h' = ceil(h/32)`` and so on, for any size.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        torchvision's state dict.

    Raises
    ------
    ValueError
        Naming a tensor that is missing or of another shape or dtype.
    """
    take = _Tensors(tensors)
    stem = take.kernel("features.0.0", 3, 3, STEM)
    layers: list[Layer] = [
        Conv(stem, strides=2, padding=1, activation="relu6", **take.norm("features.0.1", STEM))
    ]
    channels = STEM
    for expansion, width, repetitions, first_stride in STAGES:
        for repetition in range(repetitions):
            stride = 1 if repetition else first_stride
            name = f"features.{len(layers)}.conv"
            layers.append(_block(take, name, channels, width, expansion, stride))
            channels = width
    name = f"features.{len(layers)}"
    last = take.kernel(f"{name}.0", 1, channels, FEATURES)
    layers.append(Conv(last, activation="relu6", **take.norm(f"{name}.1", FEATURES)))
    return Sequential(layers)


def _block(
    take: _Tensors, name: str, channels: int, width: int, expansion: int, stride: int
) -> Layer:
    """Return an inverted residual: expand, filter each channel by itself, project."""
    inner = channels * expansion
    body: list[Layer] = []
    if expansion != 1:
        kernel = take.kernel(f"{name}.0.0", 1, channels, inner)
        body.append(Conv(kernel, activation="relu6", **take.norm(f"{name}.0.1", inner)))
    at = len(body)
    kernel = take.kernel(f"{name}.{at}.0", 3, 1, inner)
    norm = take.norm(f"{name}.{at}.1", inner)
    body.append(Conv(kernel, strides=stride, padding=1, groups=inner, activation="relu6", **norm))
    project = Conv(
        take.kernel(f"{name}.{at + 1}", 1, inner, width), **take.norm(f"{name}.{at + 2}", width)
    )
    if stride == 1 and channels == width:
        return Residual(Sequential(body), project)
    return Sequential([*body, project])


def classifier(tensors: Mapping[str, np.ndarray], classes: int = 1000) -> Conv:
    """Return the ImageNet head as a 1x1 convolution over the feature map.

    As Long et al. (arXiv:1411.4038, section 3.1) turn classifiers into nets that output a map.
    The average pooling before it is left out: the mean of the map's scores is the classifier's.
    """
    take = _Tensors(tensors)
    weight = take.take("classifier.1.weight", (classes, FEATURES))
    kernel = np.ascontiguousarray(weight.T)[None, None]
    return Conv(kernel, bias=take.take("classifier.1.bias", (classes,)))
