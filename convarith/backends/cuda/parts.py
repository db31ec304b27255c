"""What a call hands to a map kernel besides its source: the packed kernel and the epilogue."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...arrays import computed_in
from ..protocol import Epilogue
from .device import Device
from .law import ELEMENTS
from .layout import simple

ACTIVATIONS = {None: np.int32(0), "relu": np.int32(1), "relu6": np.int32(2)}


@dataclasses.dataclass(frozen=True)
class Packed:
    """A kernel laid out, and the flag that an entry of it is not finite, where that matters."""

    weights: Any
    careful: Any = None


class Parts:
    """An epilogue as the kernels take it: arrays of one dtype, null where absent.

    Attributes
    ----------
    element : str
        What the arrays hold: the result's type, or what it is computed in.
    arguments : tuple
        scale, bias, residual, activation.
    plain : bool
        Whether there is nothing in it.
    """

    def __init__(self, device: Device | None, epilogue: Epilogue, dtype: np.dtype) -> None:
        given = (epilogue.scale, epilogue.bias, epilogue.residual)
        activation = ACTIVATIONS[epilogue.activation]
        self.plain = epilogue.activation is None and all(part is None for part in given)
        same = all(part is None or part.dtype == dtype for part in given)
        part_dtype = dtype if same else computed_in(dtype)
        self.element = ELEMENTS[part_dtype.name]
        arrays = (None if part is None else simple(device, part, part_dtype) for part in given)
        self.arguments = (*arrays, activation)

    def in_steps(
        self, source: Any, result: Any, step: int
    ) -> Iterator[tuple[Any, Any, tuple[Any, ...]]]:
        """Yield source, result and the arguments of at most `step` images after the other."""
        if len(result) <= step:
            yield source, result, self.arguments
            return
        scale, bias, residual, activation = self.arguments
        for first in range(0, len(result), step):
            images = slice(first, first + step)
            some = residual if residual is None else residual[images]
            yield source[images], result[images], (scale, bias, some, activation)
