"""From a photograph to the class at each pixel, by a classifier made fully convolutional."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.resources import files

import numpy as np

from convarith import bilinear_kernel, conv_transpose

from .backbones import mobilenet_v2
from .layers import Sequential

#: What torchvision's ImageNet weights were trained on: RGB in 0..1, less the mean, by the spread.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
SPREAD = np.array([0.229, 0.224, 0.225], np.float32)
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
        self.network = Sequential(
            [mobilenet_v2.features(tensors), mobilenet_v2.classifier(tensors)]
        )
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
        x = (image.astype(np.float32) / 255 - MEAN) / SPREAD
        return self.network(x[None])[0]

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
