"""From a photograph to the class at each pixel, by a classifier made fully convolutional."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.resources import files

import numpy as np

from convarith import bilinear_kernel, conv_transpose

from .backbones import mobilenet_v2
from .graph import Graph, Node
from .inference import Program
from .layers import Conv
from .pretrained import TORCH_NAMES

#: ImageNet's, with a name each.
CLASSES = 1000
#: Classes upsampled at a time: a map of all 1000 at a photograph's size takes gigabytes.
CHUNK = 50


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentation:
    """The most probable class at each pixel.

    Attributes
    ----------
    labels : ndarray
        ``(h, w)`` class indices.
    probabilities : ndarray
        ``(h, w)`` softmax of that class, float32.
    best : int
        The class with the most pixels.
    heat : ndarray
        ``(h, w)`` softmax of `best`, float32.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    best: int
    heat: np.ndarray

    def classes(self) -> list[tuple[int, float, float]]:
        """Return ``(class, score, share)``, the greatest share of pixels first.

        The score is the mean probability over the class's own pixels.
        """
        counts = np.bincount(self.labels.ravel())
        sums = np.bincount(self.labels.ravel(), self.probabilities.ravel().astype(np.float64))
        order = sorted(np.flatnonzero(counts), key=lambda label: (-counts[label], label))
        size = self.labels.size
        return [(int(c), float(sums[c] / counts[c]), float(counts[c] / size)) for c in order]


class ConvolutionalClassifier:
    """MobileNetV2 with its ImageNet head as a 1x1 convolution.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        torchvision's state dict.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        trunk = mobilenet_v2.nodes(None)
        last, channels = trunk.stages[mobilenet_v2.STRIDE]
        kernel = np.zeros((1, 1, channels, CLASSES), np.float32)
        bias = np.zeros(CLASSES, np.float32)
        # As Long et al. (arXiv:1411.4038, section 3.1) turn classifiers into nets that output a
        # map. The mean of the map's scores is the classifier's, whose pooling comes first.
        head = {"classifier.1": Node(Conv(kernel, bias), (last,))}
        self.graph = Graph(trunk.nodes | head, channels=3)
        _fill(self.graph, tensors)
        self.preprocess = trunk.preprocess
        self._program = Program(self.graph)
        self.names = (
            files("fcn").joinpath("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
        )

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Return the map of class scores, ``(ceil(h/32), ceil(w/32), 1000)``.

        Parameters
        ----------
        image : ndarray
            ``(h, w, 3)``, RGB, uint8.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(
                f"image: expected uint8 of shape (h, w, 3), got {image.dtype} of {image.shape}"
            )
        return self._program(self.preprocess(image)[None])[0]

    def classify(self, image: np.ndarray) -> np.ndarray:
        """Return the 1000 class probabilities of a picture, as torchvision's classifier does.

        The picture comes scaled and cropped, see `centre_crop`.
        """
        scores = self.logits(image).mean(axis=(0, 1), dtype=np.float64)
        powers = np.exp(scores - scores.max())
        return powers / powers.sum()

    def segment(self, image: np.ndarray) -> Segmentation:
        """Return the most probable class at each pixel of ``(h, w, 3)`` RGB in uint8."""
        scores, size = self.logits(image), image.shape[:2]
        labels = np.zeros(size, np.int64)
        highest = np.full(size, -np.inf, np.float32)
        total = np.zeros(size, np.float32)  # of exp(score - highest), over the classes so far
        for start in range(0, scores.shape[-1], CHUNK):
            pixels = to_pixels(scores[..., start : start + CHUNK], size)
            here = pixels.max(axis=-1)
            higher = np.maximum(highest, here)
            total *= np.exp(highest - higher)
            total += np.exp(pixels - higher[..., None]).sum(axis=-1)
            labels = np.where(here > highest, start + pixels.argmax(axis=-1), labels)
            highest = higher
        best = int(np.bincount(labels.ravel()).argmax())
        heat = to_pixels(scores[..., best : best + 1], size)[..., 0]
        return Segmentation(labels, 1 / total, best, np.exp(heat - highest) / total)


def _fill(graph: Graph, tensors: Mapping[str, np.ndarray]) -> None:
    """Set a graph's arrays to those of torch's state dict, whose modules its nodes are named as.

    Raises
    ------
    ValueError
        Naming a tensor that is missing or of another shape or dtype.
    """
    for name, node in graph.nodes.items():
        for own, array in node.layer.arrays().items():
            tensor = _taken(tensors, f"{name}.{TORCH_NAMES[own]}", array.shape)
            setattr(node.layer, own, tensor)


def _taken(tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a tensor of float32 in our layout: torch has kernels as ``(out, in, h, w)``."""
    tensor = tensors.get(name)
    theirs = shape if len(shape) == 1 else (shape[3], shape[2], *shape[:2])
    if name == "classifier.1.weight":  # of a linear layer
        theirs = theirs[:2]
    if tensor is None or tensor.shape != theirs or tensor.dtype != np.float32:
        found = "nothing" if tensor is None else f"{tensor.dtype} of shape {tensor.shape}"
        raise ValueError(f"{name}: expected float32 of shape {theirs}, got {found}")
    if len(shape) == 1:
        return tensor
    return np.ascontiguousarray(tensor.reshape(*theirs[:2], *shape[:2]).transpose(2, 3, 1, 0))


def to_pixels(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate a map of scores to the pixels of the picture that it was made of.

    A bilinear transposed convolution of odd size ``2*32 - 1`` and strides 32: its middle tap
    lies on a pixel, as the features do, so nothing is shifted by half a pixel. Beyond the last
    feature it is divided by what upsampled ones are there, which repeats the edge.

    Parameters
    ----------
    scores : ndarray
        ``(ceil(h/32), ceil(w/32), c)``.
    size : (int, int)
        ``(h, w)``.

    Returns
    -------
    ndarray
        ``(h, w, c)``.
    """
    for axis, pixels in enumerate(size):
        scores = _interpolate(scores, axis, pixels) / _interpolate(
            np.ones_like(scores[..., :1]), axis, pixels
        )
    return scores


def _interpolate(scores: np.ndarray, axis: int, pixels: int) -> np.ndarray:
    """Upsample ``(h, w, c)`` along one axis; a bilinear kernel is the product of two such."""
    stride, (cells, channels) = mobilenet_v2.STRIDE, (scores.shape[axis], scores.shape[-1])
    taps = bilinear_kernel(1, 1, 2 * stride - 1)[stride - 1, :, 0, 0]  # the middle row
    before = stride - 1
    after = stride * (cells - 1) + len(taps) - before - pixels
    along = [1, 1]
    along[axis] = len(taps)
    strides, padding = [1, 1], [(0, 0), (0, 0)]
    strides[axis], padding[axis] = stride, (before, after)
    kernel = np.broadcast_to(taps.reshape(*along, 1, 1), (*along, 1, channels))
    return conv_transpose(scores[None], kernel, strides=strides, padding=padding, groups=channels)[
        0
    ]
