"""`ReLU` and `Softmax`."""

from __future__ import annotations

import dataclasses

from .arrays import Array, namespace
from .layer import Layer
from .sizes import short


@dataclasses.dataclass(eq=False)
class ReLU(Layer):
    """``max(x, 0)``, or ``min(max(x, 0), maximum)``.

    Attributes
    ----------
    maximum : float or None
        None, or 6 for ReLU6.

    Notes
    -----
    The derivative is 0 where the result is 0 or the maximum, as TensorFlow has it.
    """

    maximum: float | None = None

    def __post_init__(self) -> None:
        maximum = self.maximum
        if maximum is None:
            return
        if isinstance(maximum, bool) or not isinstance(maximum, (int, float)) or maximum != 6:
            raise ValueError(f"maximum: expected None or 6, got {short(maximum)}")
        self.maximum = 6.0

    def forward(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """See `Layer.forward`; the result is saved, which the next layer mostly saves too."""
        xp = namespace(x)
        y = xp.maximum(x, 0)
        if self.maximum is not None:
            xp.minimum(y, self.maximum, out=y)
        return y, y

    def backward(
        self, saved: Array, g: Array, *, inputs: bool = True, parameters: bool = True
    ) -> tuple[tuple[Array], dict[str, Array]]:
        """See `Layer.backward`."""
        passes = saved > 0
        if self.maximum is not None:
            passes &= saved < self.maximum
        return (g * passes,), {}


@dataclasses.dataclass(eq=False)
class Softmax(Layer):
    """``exp(x)/sum(exp(x))`` over the channels of each pixel."""

    def forward(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        """See `Layer.forward`; the result is saved."""
        xp = namespace(x)
        y = x - x.max(axis=-1, keepdims=True)  # no power exceeds 1, one is 1
        xp.exp(y, out=y)
        y /= y.sum(axis=-1, keepdims=True)
        return y, y

    def backward(
        self, saved: Array, g: Array, *, inputs: bool = True, parameters: bool = True
    ) -> tuple[tuple[Array], dict[str, Array]]:
        """See `Layer.backward`."""
        y = saved
        gx = g * y
        gx -= y * gx.sum(axis=-1, keepdims=True)
        return (gx,), {}
