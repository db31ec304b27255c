"""From the pixels of a picture to what a network was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """``(pixel/divisor - mean)/std``, the channels in the order that the weights want.

    Attributes
    ----------
    order : {"RGB", "BGR"}
        The order of the channels that come out, and that `mean` and `std` are in.
    divisor : float
    mean, std : tuple of 3 float

    Examples
    --------
    >>> Preprocess.tf()(np.array([[[0, 51, 255]]], np.uint8))
    array([[[-1. , -0.6,  1. ]]], dtype=float32)
    """

    order: str = "RGB"
    divisor: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.order not in ("RGB", "BGR"):
            raise ValueError(f"order: expected 'RGB' or 'BGR', got {self.order!r}")
        object.__setattr__(self, "divisor", _number("divisor", self.divisor, positive=True))
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)) or len(value) != 3:
                raise ValueError(f"{name}: expected 3 numbers, got {value!r}")
            numbers = (_number(name, number, positive=name == "std") for number in value)
            object.__setattr__(self, name, tuple(numbers))

    @classmethod
    def torch(cls) -> Preprocess:
        """What torchvision's ImageNet weights were trained on."""
        return cls("RGB", 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @classmethod
    def tf(cls) -> Preprocess:
        """What Keras's ResNet V2 was trained on: from -1 to 1."""
        return cls("RGB", 127.5, (1.0, 1.0, 1.0))

    @classmethod
    def caffe(cls) -> Preprocess:
        """What Caffe's VGG16, and Keras's, was trained on: BGR less ImageNet's mean."""
        return cls("BGR", 1.0, (103.939, 116.779, 123.68))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Map ``(..., 3)`` RGB in uint8 to float32 of the same shape."""
        if pixels.dtype != np.uint8 or pixels.ndim < 1 or pixels.shape[-1] != 3:
            raise ValueError(
                f"pixels: expected uint8 of shape (h, w, 3), got {pixels.dtype} of {pixels.shape}"
            )
        x = (pixels if self.order == "RGB" else pixels[..., ::-1]).astype(np.float32, order="C")
        x /= np.float32(self.divisor)
        x -= np.array(self.mean, np.float32)
        if self.std != (1.0, 1.0, 1.0):
            x /= np.array(self.std, np.float32)
        return x

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes, of JSON's types alone."""
        return {
            "order": self.order,
            "divisor": self.divisor,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, described: Any) -> Preprocess:
        """Return the inverse of `to_json`.

        Raises
        ------
        ValueError
            For anything else, naming what.

        >>> Preprocess.from_json(Preprocess.caffe().to_json()) == Preprocess.caffe()
        True
        """
        fields = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(described, Mapping) or sorted(described) != sorted(fields):
            raise ValueError(f"preprocess: expected {', '.join(fields)}, got {described!r}")
        return cls(**described)


def _number(name: str, value: Any, *, positive: bool) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not abs(value) < 1e30 or (positive and not value > 1e-30):
        wanted = "a positive number" if positive else "a finite number"
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return float(value)
