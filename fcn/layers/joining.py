"""`Add` and `Crop`: where branches of a network meet."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .arrays import Array, namespace
from .layer import Layer, Shape


@dataclasses.dataclass(eq=False)
class Add(Layer):
    """The sum of two inputs or more of one shape."""

    arity: ClassVar[tuple[int, int | None]] = (2, None)

    def forward(self, *xs: Array, train: bool = False) -> tuple[Array, int]:
        """See `Layer.forward`; the number of inputs is saved."""
        self.output_shape(*(x.shape for x in xs))
        y = xs[0] + xs[1]
        for x in xs[2:]:
            y += x
        return y, len(xs)

    def backward(
        self, saved: int, g: Array, *, inputs: bool = True, parameters: bool = True
    ) -> tuple[tuple[Array, ...], dict[str, Array]]:
        """See `Layer.backward`."""
        return (g,) * saved, {}

    def output_channels(self, *channels: int) -> int:
        """See `Layer.output_channels`."""
        if len(set(channels)) > 1:
            raise ValueError(f"inputs: expected equal channels, got {channels}")
        return channels[0]

    def output_shape(self, *shapes: Shape) -> Shape:
        """See `Layer.output_shape`."""
        if len(set(shapes)) > 1:
            raise ValueError(f"inputs: expected equal shapes, got {', '.join(map(str, shapes))}")
        return shapes[0]


@dataclasses.dataclass(eq=False)
class Crop(Layer):
    """The first input cut to the height and width of the second, at its lower right.

    Upsampling by a stride makes a multiple of it, rounded up; this takes off what is too much.
    """

    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def forward(self, x: Array, like: Array, train: bool = False) -> tuple[Array, Shape]:
        """See `Layer.forward`; the shape of the first input is saved."""
        _, h, w, _ = self.output_shape(x.shape, like.shape)
        # A copy where it is cut: a view would keep all of it in memory.
        return (x if (h, w) == x.shape[1:3] else x[:, :h, :w].copy()), x.shape

    def backward(
        self, saved: Shape, g: Array, *, inputs: bool = True, parameters: bool = True
    ) -> tuple[tuple[Array, None], dict[str, Array]]:
        """See `Layer.backward`; the second input only lends its size."""
        if g.shape == saved:
            return (g, None), {}
        gx = namespace(g).zeros(saved, g.dtype)
        gx[:, : g.shape[1], : g.shape[2]] = g
        return (gx, None), {}

    def output_shape(self, *shapes: Shape) -> Shape:
        """See `Layer.output_shape`."""
        (n, h, w, c), (_, rows, columns, _) = shapes
        if rows > h or columns > w:
            raise ValueError(
                f"inputs: expected the first at least as large as the second, got "
                f"{(h, w)} and {(rows, columns)}"
            )
        return n, rows, columns, c
