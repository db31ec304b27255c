"""`ZeroPadding`: zeros around the picture."""

from __future__ import annotations

import dataclasses

from .arrays import Array, namespace
from .layer import Layer, Shape
from .sizes import pairs


@dataclasses.dataclass(eq=False)
class ZeroPadding(Layer):
    """Rows and columns of zeros around each input.

    Attributes
    ----------
    padding : ((int, int), (int, int))
        ``(low, high)`` of the rows and of the columns; one integer stands for all four.
    """

    padding: tuple[tuple[int, int], tuple[int, int]]

    def __post_init__(self) -> None:
        self.padding = pairs("padding", self.padding)

    def _inside(self, shape: Shape) -> tuple[slice, ...]:
        """Return where the input of this shape lies in the result."""
        (top, _), (left, _) = self.padding
        return (slice(None), slice(top, top + shape[1]), slice(left, left + shape[2]))

    def forward(self, x: Array, train: bool = False) -> tuple[Array, Shape]:
        """See `Layer.forward`; the shape of the input is saved."""
        y = namespace(x).zeros(self.output_shape(x.shape), x.dtype)
        y[self._inside(x.shape)] = x
        return y, x.shape

    def backward(
        self, saved: Shape, g: Array, *, inputs: bool = True, parameters: bool = True
    ) -> tuple[tuple[Array], dict[str, Array]]:
        """See `Layer.backward`."""
        return (g[self._inside(saved)].copy(),), {}

    def output_shape(self, *shapes: Shape) -> Shape:
        """See `Layer.output_shape`."""
        n, h, w, c = shapes[0]
        rows, columns = map(sum, self.padding)
        return n, h + rows, w + columns, c
