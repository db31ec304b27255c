"""`MaxPool`: the greatest entry of each window."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from convarith import ConvGeometry

from .arrays import Array, namespace
from .layer import Layer, Shape
from .sizes import Padding, padding_of, pair


@dataclasses.dataclass(eq=False)
class MaxPool(Layer):
    """The greatest entry of each window of each channel.

    Attributes
    ----------
    window, strides : (int, int)
        Of the rows and of the columns; one integer stands for both. Windows may overlap.
    padding : {"SAME", "VALID"} or ((int, int), (int, int))
        As `Conv` takes it, below the window's size; what is padded is never the greatest.

    Notes
    -----
    The gradient goes to the first of the greatest entries of a window, row by row, as in
    TensorFlow. NaN passes, and the gradient in it goes nowhere.
    """

    window: tuple[int, int]
    strides: tuple[int, int]
    padding: Padding

    def __post_init__(self) -> None:
        self.window = pair("window", self.window, 1)
        self.strides = pair("strides", self.strides, 1)
        self.padding = padding_of(self.padding)
        if not isinstance(self.padding, str):
            for sides, length in zip(self.padding, self.window, strict=True):
                if max(sides) >= length:
                    raise ValueError(
                        f"padding: expected less than the window {self.window}, whose entries "
                        f"would all be padding, got {self.padding}"
                    )

    def geometry(self, shape: Shape) -> ConvGeometry:
        """Return the arithmetic of the windows over an input ``(n, h, w, c)``."""
        return ConvGeometry(
            shape[1:3],
            self.window,
            strides=self.strides,
            padding=self.padding,
            groups=shape[3],
            in_channels=shape[3],
            out_channels=shape[3],
        )

    def forward(self, x: Array, train: bool = False) -> tuple[Array, Any]:
        """See `Layer.forward`; with `train` a byte an output is saved, else the input."""
        geometry = self.geometry(x.shape)
        rows, columns = geometry.axes
        # The greatest of a rectangle is that of the greatest of its columns. Rows first: NumPy
        # goes through whole rows at once, and fewer are left for the columns.
        xp = namespace(x)
        y = x
        for axis, along in ((1, rows), (2, columns)):
            y = _greatest(xp, y, axis, along)
        if train:
            return y, (x.shape, _winners(xp, x, y, geometry))
        return y, (x.shape, (x, y))

    def backward(
        self, saved: Any, g: Array, *, inputs: bool = True, parameters: bool = True
    ) -> tuple[tuple[Array], dict[str, Array]]:
        """See `Layer.backward`."""
        xp = namespace(g)
        shape, winners = saved
        geometry = self.geometry(shape)
        if isinstance(winners, tuple):  # still to be found
            winners = _winners(xp, *winners, geometry)
        gx = xp.zeros(shape, g.dtype)
        for number, inputs, outputs in _taps(geometry):
            gx[inputs] += g[outputs] * (winners[outputs] == number)
        return (gx,), {}

    def output_shape(self, *shapes: Shape) -> Shape:
        """See `Layer.output_shape`."""
        n, _, _, c = shapes[0]
        return (n, *self.geometry(shapes[0]).output_size, c)


def _greatest(xp: Any, x: Array, axis: int, along: Any) -> Array:
    """Return the greatest of each window along one axis."""
    lead = (slice(None),) * axis
    y = xp.empty((*x.shape[:axis], along.output, *x.shape[axis + 1 :]), x.dtype)
    everywhere = slice(0, along.output)
    # Entries that no window lacks come first: two of them make a result that more is compared
    # with, which else begins as -inf.
    taps = sorted(along.taps(), key=lambda tap: tap.outputs != everywhere)
    if len(taps) > 1 and taps[1].outputs == everywhere:
        first, second, *taps = taps
        xp.maximum(x[(*lead, first.inputs)], x[(*lead, second.inputs)], out=y)
    else:
        y.fill(-math.inf)
    for tap in taps:
        part = y[(*lead, tap.outputs)]
        xp.maximum(part, x[(*lead, tap.inputs)], out=part)
    return y


def _taps(geometry: ConvGeometry) -> list[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
    """Return each entry of the window, numbered row by row, with what it joins."""
    _, width = geometry.kernel_size
    every = slice(None)
    return [
        (
            row.k * width + column.k,
            (every, row.inputs, column.inputs),
            (every, row.outputs, column.outputs),
        )
        for row, column in geometry.taps()
    ]


def _winners(xp: Any, x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Return which entry of its window each output is, the first of several."""
    dtype = np.min_scalar_type(math.prod(geometry.kernel_size) - 1)
    none = np.iinfo(dtype).max
    winners = xp.full(y.shape, none, dtype)
    # The least of the numbers of equal entries; arithmetic, since to branch an entry takes longer.
    for number, inputs, outputs in _taps(geometry):
        numbers = (x[inputs] != y[outputs]).astype(dtype)
        numbers *= none
        numbers |= number
        part = winners[outputs]
        xp.minimum(part, numbers, out=part)
    return winners
