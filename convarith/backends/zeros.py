"""Sums of nothing: what every product is where the batch or a spatial axis is empty.

The kernels of no backend ever meet an empty array.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import computed_in
from ..geometry import ConvGeometry
from ..namespace import namespace
from .protocol import Epilogue, Product, result_shape


class ZerosPlan:
    """Zeros of the result's shape, finished by the epilogue, in any library."""

    def __init__(self, product: Product, geometry: ConvGeometry, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.gradient = product == "kernel_gradient"
        self.shape = result_shape(product, geometry)

    def __str__(self) -> str:
        return "zeros: an axis is empty, and so is every sum"

    def specialised(self, operand: Any, *, reused: bool) -> ZerosPlan:
        """Return this plan: no kernel's structure is of use."""
        return self

    def pack(self, operand: Any) -> None:
        """Return None: nothing is read of a kernel."""

    def nbytes(self, source: Any) -> int:
        """Count the zeros in the dtype computed in, and the result."""
        batch = 1 if self.gradient else len(source)
        each = computed_in(self.dtype).itemsize + self.dtype.itemsize
        return batch * math.prod(self.shape) * each

    def run(self, source: Any, packed: Any, out: Any, epilogue: Epilogue) -> Any:
        """Finish zeros."""
        shape = self.shape if self.gradient else (len(source), *self.shape)
        zeros = namespace(source).zeros(shape, computed_in(self.dtype))
        with np.errstate(all="ignore"):
            result = epilogue.applied(zeros).astype(self.dtype, copy=False)
        if out is None:
            return result
        out[...] = result
        return out
