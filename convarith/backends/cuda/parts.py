"""What a call hands to a map kernel besides its source: the packed kernel and the epilogue."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

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


class PartTypes(NamedTuple):
    """What a kernel's constants say of an epilogue: the types of scale and bias, and residual."""

    PART: str
    RESIDUAL: str


class Parts:
    """An epilogue as the kernels take it: null where absent.

    Attributes
    ----------
    types : PartTypes
        What the arrays hold: each the result's type, or what it is computed in.
    arguments : tuple
        scale, bias, residual, activation.
    plain : bool
        Whether there is nothing in it.
    """

    def __init__(self, device: Device | None, epilogue: Epilogue, dtype: np.dtype) -> None:
        scale, bias, residual = epilogue.scale, epilogue.bias, epilogue.residual
        self.plain = epilogue.activation is None and scale is bias is residual is None
        of_channels, of_results = _common(dtype, scale, bias), _common(dtype, residual)
        self.types = PartTypes(_element(of_channels), _element(of_results))
        self.arguments = (
            None if scale is None else simple(device, scale, of_channels),
            None if bias is None else simple(device, bias, of_channels),
            None if residual is None else simple(device, residual, of_results),
            ACTIVATIONS[epilogue.activation],
        )

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


def _common(dtype: np.dtype, *parts: Any) -> np.dtype:
    """Return the result's dtype where all parts have it, else what that is computed in."""
    for part in parts:
        if part is not None and part.dtype != dtype:
            return computed_in(dtype)
    return dtype


@functools.cache  # a dtype's name takes microseconds
def _element(dtype: np.dtype) -> str:
    return ELEMENTS[dtype.name]
