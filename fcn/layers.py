"""The layers of a network at inference, each a callable from array to array."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convarith import conv

Layer = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Conv:
    """A convolution with what follows it fused: ``activation(scale*conv(x) + bias + residual)``.

    Attributes
    ----------
    kernel : ndarray
        ``(kh, kw, c_in // groups, c_out)``.
    scale, bias : ndarray or None
        ``(c_out,)``; a batch normalisation folds into them, see `folded`.
    """

    kernel: np.ndarray
    strides: int = 1
    padding: int = 0
    groups: int = 1
    scale: np.ndarray | None = None
    bias: np.ndarray | None = None
    activation: str | None = None

    def __call__(self, x: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        """Map ``(n, h, w, c_in)`` to ``(n, h', w', c_out)``."""
        return conv(
            x,
            self.kernel,
            strides=self.strides,
            padding=self.padding,
            groups=self.groups,
            scale=self.scale,
            bias=self.bias,
            residual=residual,
            activation=self.activation,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Sequential:
    """Layers one after another."""

    layers: Sequence[Layer]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Map through every layer in turn."""
        for layer in self.layers:
            x = layer(x)
        return x


@dataclasses.dataclass(frozen=True, eq=False)
class Residual:
    """Layers, then a convolution whose result is added to what came in."""

    body: Sequential
    last: Conv

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return ``last(body(x)) + x``, the sum fused into the last convolution."""
        return self.last(self.body(x), residual=x)


def folded(
    weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> dict[str, Any]:
    """Return the scale and bias of `Conv` that a batch normalisation is at inference.

    ``weight*(y - mean)/sqrt(variance + epsilon) + bias`` (Ioffe & Szegedy, arXiv:1502.03167).

    >>> one = np.ones(1, np.float32)
    >>> folded(2*one, one, 3*one, 4*one, 0.0)
    {'scale': array([1.], dtype=float32), 'bias': array([-2.], dtype=float32)}
    """
    scale = weight / np.sqrt(variance + np.float32(epsilon))
    return {"scale": scale, "bias": bias - mean * scale}
