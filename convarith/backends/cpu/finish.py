"""What is added to a product, in the element that the kernels compute in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..protocol import ACTIVATIONS, PLAIN, Epilogue


class Finish(NamedTuple):
    """An epilogue as the kernels take it; `activation` is its place in ACTIVATIONS."""

    scale: np.ndarray | None = None
    bias: np.ndarray | None = None
    residual: np.ndarray | None = None
    activation: int = 0

    @classmethod
    def of(cls, epilogue: Epilogue, dtype: np.dtype) -> Finish:
        """Return the parts in `dtype`, C-contiguous and aligned."""
        if epilogue is PLAIN:
            return NOTHING
        parts = (
            None if part is None else np.require(part, dtype, ("C", "A"))
            for part in (epilogue.scale, epilogue.bias, epilogue.residual)
        )
        return cls(*parts, ACTIVATIONS.index(epilogue.activation))


NOTHING = Finish()
