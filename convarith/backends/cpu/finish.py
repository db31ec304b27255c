"""What is added to a product, in the element that the kernels compute in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..protocol import ACTIVATIONS, Epilogue


class Finish(NamedTuple):
    """An epilogue as the kernels take it; `activation` is its place in ACTIVATIONS."""

    scale: np.ndarray | None = None
    bias: np.ndarray | None = None
    residual: np.ndarray | None = None
    activation: int = 0

    @classmethod
    def of(cls, epilogue: Epilogue, dtype: np.dtype) -> Finish:
        """Return the parts in `dtype`, C-contiguous and aligned."""

        def part(array: np.ndarray | None) -> np.ndarray | None:
            if array is None:
                return None
            if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
                return array  # at once: to ask NumPy takes microseconds
            return np.require(array, dtype, ("C", "A"))

        return cls(
            part(epilogue.scale),
            part(epilogue.bias),
            part(epilogue.residual),
            ACTIVATIONS.index(epilogue.activation),
        )

    def laid_out(self, columns: Callable[[np.ndarray], np.ndarray]) -> Finish:
        """Return the same with the scale and the bias as `columns` lays them out."""
        scale, bias = (None if part is None else columns(part) for part in (self.scale, self.bias))
        return self._replace(scale=scale, bias=bias)


NOTHING = Finish()
