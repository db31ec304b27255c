"""`BatchNorm`: by the batch in training, by the moving statistics otherwise."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from .arrays import Array, channel_sums, checked, namespace
from .layer import Layer
from .sizes import number


@dataclasses.dataclass(eq=False)
class BatchNorm(Layer):
    """``gamma*(x - mean)/sqrt(variance + epsilon) + beta``, a channel at a time.

    Attributes
    ----------
    gamma, beta : ndarray or None
        ``(c,)``, float32; None stands for 1 and for 0.
    moving_mean, moving_variance : ndarray
        ``(c,)``, float32. With ``train=True`` the batch's own are taken in their place (the
        biased variance), and these are moved in place, as Keras does:
        ``moving = momentum*moving + (1 - momentum)*batch``.
    epsilon, momentum : float

    Notes
    -----
    Ioffe & Szegedy, arXiv:1502.03167. Sums over the pixels run in float64. The variance is the
    mean square of the deviations from the mean, which cancels nothing.

    Examples
    --------
    >>> import numpy as np
    >>> two, x = np.full(1, 2, np.float32), np.array([[[[0.0], [4.0]]]], np.float32)
    >>> layer = BatchNorm(None, None, two.copy(), two.copy(), epsilon=0)
    >>> layer.forward(x, train=True)[0].ravel()
    array([-1.,  1.], dtype=float32)
    """

    parameters: ClassVar[tuple[str, ...]] = ("gamma", "beta")
    statistics: ClassVar[tuple[str, ...]] = ("moving_mean", "moving_variance")

    gamma: Array | None
    beta: Array | None
    moving_mean: Array
    moving_variance: Array
    epsilon: float = 1e-3
    momentum: float = 0.99

    def __post_init__(self) -> None:
        shape = checked("moving_mean", self.moving_mean, 1).shape
        checked("moving_variance", self.moving_variance, 1)
        for name, array in self.arrays().items():
            if checked(name, array, 1).shape != shape:
                raise ValueError(
                    f"{name}: expected shape {shape}, as moving_mean has, got {array.shape}"
                )
        self.epsilon = number("epsilon", self.epsilon, 0, 1)
        self.momentum = number("momentum", self.momentum, 0, 1)

    def forward(self, x: Array, train: bool = False) -> tuple[Array, Any]:
        """See `Layer.forward`; the input and two numbers a channel are saved."""
        xp = namespace(x)
        if train:
            pixels = x.size // x.shape[-1]
            if pixels == 0:
                raise ValueError(f"x: expected a pixel or more to train on, got shape {x.shape}")
            mean = channel_sums(x) / pixels
            y, rest = _deviations(x, mean)
            variance = xp.maximum(channel_sums(y, y) / pixels - rest**2, 0)
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving += ((1 - self.momentum) * (batch - moving)).astype(moving.dtype)
        else:
            mean, variance = (
                self.moving_mean.astype(xp.float64),
                self.moving_variance.astype(xp.float64),
            )
            y, rest = _deviations(x, mean)
        spread = 1 / xp.sqrt(variance + self.epsilon)
        scale = self._scale(spread)
        y *= scale.astype(y.dtype)
        shift = -rest * scale if self.beta is None else self.beta - rest * scale
        y += shift.astype(y.dtype)
        return y, (x, mean, spread, train)

    def _scale(self, spread: Array) -> Array:
        """Return what deviations from the mean are multiplied by."""
        return spread if self.gamma is None else spread * self.gamma

    def backward(
        self, saved: Any, g: Array, *, inputs: bool = True, parameters: bool = True
    ) -> tuple[tuple[Array | None], dict[str, Array]]:
        """See `Layer.backward`."""
        x, mean, spread, train = saved
        if not (inputs or parameters):
            return (None,), {}
        if not (train or parameters):
            return (g * self._scale(spread).astype(g.dtype),), {}
        deviations, rest = _deviations(x, mean)
        total = channel_sums(g)
        along = (channel_sums(g, deviations) - rest * total) * spread
        gradients = {}
        if parameters and self.gamma is not None:
            gradients["gamma"] = along.astype(g.dtype)
        if parameters and self.beta is not None:
            gradients["beta"] = total.astype(g.dtype)
        if not inputs:
            return (None,), gradients
        scale = self._scale(spread)
        if not train:
            return (g * scale.astype(g.dtype),), gradients
        # The batch's mean and variance depend on x too: the gradient keeps no part along the
        # ones and none along the normalised x.
        pixels = x.size // x.shape[-1]
        tilt = scale * spread * along / pixels
        gx = deviations
        gx *= -tilt.astype(g.dtype)
        gx += (tilt * rest - scale * total / pixels).astype(g.dtype)
        gx += g * scale.astype(g.dtype)
        return (gx,), gradients

    def output_channels(self, *channels: int) -> int:
        """See `Layer.output_channels`."""
        expected = len(self.moving_mean)
        if channels != (expected,):
            raise ValueError(f"input: expected {expected} channels, got {channels[0]}")
        return expected


def _deviations(x: Array, mean: Array) -> tuple[Array, Array]:
    """Return `x` less a float64 mean rounded to float32, and what rounding took off the mean."""
    near = mean.astype(x.dtype)
    return x - near, mean - near
