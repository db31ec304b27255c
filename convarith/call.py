"""One call of a product: its epilogue and output are checked, then its plan runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .arrays import check_aligned, computed_in, numeric
from .backends import Epilogue, Plan, Product
from .backends.protocol import ACTIVATIONS, PLAIN, result_shape
from .backends.zeros import ZerosPlan
from .geometry import ConvGeometry
from .memory import UNCHECKED_BYTES, require_bytes
from .namespace import check_together, is_cupy, may_overlap, namespace
from .validate import one_of


class Call:
    """What the result of one call must look like; several threads may share one.

    Parameters
    ----------
    product, geometry, dtype
        As a plan has them; `dtype` is the result's.
    batch : tuple of int
        ``(n,)``, or ``()`` for the kernel gradient.
    bare : bool
        Whether the caller's arrays are without batch and channel axes.
    """

    def __init__(
        self,
        product: Product,
        geometry: ConvGeometry,
        dtype: np.dtype,
        batch: tuple[int, ...],
        bare: bool,
    ) -> None:
        self.product, self.geometry, self.dtype, self.bare = product, geometry, dtype, bare
        self.shape = (*batch, *result_shape(product, geometry))
        lead = len(batch)
        #: The result's shape as the caller sees it.
        self.caller_shape = self.shape[lead : lead + geometry.rank] if bare else self.shape
        #: What to index the caller's arrays with to give them all the axes of the result.
        self.expand: tuple[Any, ...] = (...,)
        if bare:
            self.expand = (
                (None,) * lead + (...,) + (None,) * (len(self.shape) - lead - geometry.rank)
            )
        # A zero axis makes the product 0, but NumPy refuses its other axes if they are absurd.
        self._nbytes = math.prod(max(1, length) for length in self.shape) * dtype.itemsize
        self._empty = 0 in self.shape

    def _require(self, nbytes: int, source: np.ndarray) -> None:
        if nbytes <= UNCHECKED_BYTES:
            return  # before the words are put together
        require_bytes(
            f"the result of shape {self.caller_shape}",
            nbytes,
            way_out="give a smaller size or padding, or work in parts",
            beside=source,
        )

    def epilogue(
        self, source: np.ndarray, scale: Any, bias: Any, residual: Any, activation: Any
    ) -> Epilogue:
        """Check the four parts against the result's shape and dtype, and where `source` lies."""
        if scale is bias is residual is activation is None:
            return PLAIN
        one_of("activation", activation, ACTIVATIONS)
        if activation is not None and self.dtype.kind == "c":
            raise TypeError(f"activation: expected None for a complex result, got {activation!r}")
        channels = self.shape[-1:]
        scale = self._part("scale", scale, channels, source)
        bias = self._part("bias", bias, channels, source)
        residual = self._part("residual", residual, self.caller_shape, source)
        if residual is not None:
            residual = residual[self.expand]
        return Epilogue(scale, bias, residual, activation)

    def _part(
        self, name: str, value: Any, shape: tuple[int, ...], source: np.ndarray
    ) -> np.ndarray | None:
        if value is None:
            return None
        value = numeric(name, value, source)
        if value.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {value.shape}")
        computed = computed_in(self.dtype)
        if value.dtype != computed and not np.can_cast(value.dtype, computed, "safe"):
            raise TypeError(
                f"{name}: expected a dtype that casts safely to {computed}, got {value.dtype}"
            )
        return value

    def run(
        self,
        plan: Plan,
        source: np.ndarray,
        operand: np.ndarray,
        epilogue: Epilogue,
        out: Any,
        *,
        packed: Any = None,
    ) -> np.ndarray:
        """Run the plan on `source` and `operand`, or on `packed` where it has laid that out."""
        self._require(self._nbytes, source)
        target = None if out is None else self._target(out, source)
        if self._empty:
            if out is not None:
                return out
            return namespace(source).empty(self.caller_shape, self.dtype)
        if source.size == 0 or operand.size == 0:
            plan, packed = ZerosPlan(self.product, self.geometry, self.dtype), None
        nbytes = 0
        try:
            if packed is None:
                plan = plan.specialised(operand, reused=False)
                nbytes = plan.nbytes(source) + operand.size * self.dtype.itemsize
                self._require(nbytes, source)
                packed = plan.pack(operand)
            else:
                nbytes = plan.nbytes(source)
                self._require(nbytes, source)
            if target is None:
                result = plan.run(source, packed, None, epilogue)
                return result.reshape(self.caller_shape) if self.bare else result
            touched = (source, operand, epilogue.scale, epilogue.bias, epilogue.residual)
            apart = not may_overlap(target, *(array for array in touched if array is not None))
            result = plan.run(source, packed, target if apart else None, epilogue)
            if not apart:
                target[...] = result
            return out
        except MemoryError as error:
            if is_cupy(source):
                error.args = (f"{error} {self._asked(nbytes)}",)
            raise

    def _asked(self, nbytes: int) -> str:
        """Say what the memory was asked for."""
        return (
            f"It was asked for by {self.product!r} with a result of shape {self.caller_shape} and "
            f"dtype {self.dtype}, {self._nbytes} bytes: with its scratch {nbytes} at most"
        )

    def _target(self, out: Any, source: np.ndarray) -> np.ndarray:
        """Return `out` with all the axes of the result."""
        if is_cupy(out):
            check_aligned("out", out)
        elif not isinstance(out, np.ndarray) or isinstance(out, (np.ma.MaskedArray, np.matrix)):
            raise TypeError(f"out: expected a NumPy or CuPy array, got {type(out).__qualname__}")
        check_together("out", out, source)
        if out.shape != self.caller_shape or out.dtype != self.dtype:
            raise ValueError(
                f"out: expected shape {self.caller_shape} and dtype {self.dtype}, "
                f"got {out.shape} and {out.dtype}"
            )
        if isinstance(out, np.ndarray) and not out.flags.writeable:  # CuPy's always are
            raise ValueError("out: expected a writeable array, got a read-only one")
        return out[self.expand] if self.bare else out
