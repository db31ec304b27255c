"""A plan of the protocol around the kernels': any array in, any array out, and the choice."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...geometry import ConvGeometry
from .. import structure
from ..protocol import PLAIN, Epilogue, Options, Product, result_shape
from . import (
    depthwise,
    depthwise_gradient,
    launch,
    pool,
    rowwise,
    separable,
    winograd,
    winograd_gradient,
)
from .direct import MOST_JOBS, MOST_SCRATCH, DirectPlan
from .finish import NOTHING, Finish
from .gradient import GradientPlan
from .vector import Element, element_of, path
from .winograd_gradient import WinogradGradientPlan

#: Bytes of a kernel up to which is kept what was found and packed of the last ones.
SMALL_KERNEL = 2**12


def plan(
    product: Product, geometry: ConvGeometry, dtype: np.dtype, options: Options
) -> CpuPlan | None:
    """Plan a product, or return None where the reference is to do it."""
    if options.precision != "float32":
        raise ValueError(f"precision: expected 'float32' on the CPU, got {options.precision!r}")
    element = element_of(dtype)
    if element is None or not _within_reach(geometry):
        return None
    chosen, why = _chosen(product, geometry, element, options)
    inner: Any = chosen or _direct(product, geometry, element)
    if isinstance(inner, DirectPlan) and len(inner.jobs) > MOST_JOBS:
        return None
    if not chosen and inner.scratch(1, threads=1) > MOST_SCRATCH:  # as on any number of threads
        return None
    structured = options.algorithm is None
    return CpuPlan(product, geometry, dtype, inner, structured=structured, why=why)


def _direct(
    product: Product, geometry: ConvGeometry, element: Element
) -> (
    DirectPlan
    | depthwise.DepthwisePlan
    | rowwise.RowwisePlan
    | GradientPlan
    | depthwise_gradient.DepthwiseGradientPlan
):
    """Return the plan by windows or by rows where channels do not meet, or else by tiles."""
    if product == "kernel_gradient":
        if depthwise_gradient.applies(geometry):
            return depthwise_gradient.DepthwiseGradientPlan(path(), element, geometry)
        return GradientPlan(path(), element, geometry)
    if rowwise.applies(path(), element, geometry, product):
        return rowwise.RowwisePlan(path(), element, geometry, product)
    if depthwise.applies(path(), geometry, product):
        return depthwise.DepthwisePlan(path(), element, geometry)
    return DirectPlan(path(), element, geometry, product)


def _chosen(
    product: Product, geometry: ConvGeometry, element: Element, options: Options
) -> tuple[winograd.WinogradPlan | WinogradGradientPlan | None, str]:
    """Return the plan by Winograd, or None for direct, and why."""
    arguments, algorithm = (geometry, product, element, path()), options.algorithm
    gradient = product == "kernel_gradient"
    possible = winograd.applies(*arguments)
    if algorithm == "winograd" and not possible:
        raise ValueError(
            "algorithm: expected None or 'direct' here, got 'winograd', which takes floats, two "
            "axes, one group, no dilations, 3 x 3 (or 2 x 2) taps at stride 1, or for a transposed "
            "convolution and a kernel gradient 2 or 3 taps a stride, and on both sides the "
            f"channels of a vector ({path().lanes(element)}) to {winograd.MOST_CHANNELS} (in all, "
            f"of the input for each phase, to {winograd.MOST_OPERANDS} for a kernel gradient)"
        )
    if not possible:
        return None, "" if algorithm is None else f"algorithm={algorithm!r} was asked for"
    preferred = winograd_gradient.preferred if gradient else winograd.preferred
    pays = preferred(*arguments)
    if algorithm is not None:
        why = f"algorithm={algorithm!r} was asked for"
    elif pays:
        why = "it saves enough products for these sizes and channels"
    else:
        why = "saving products would not pay for these sizes and channels"
    if algorithm == "direct" or not (pays or algorithm):
        return None, why
    if gradient:
        return WinogradGradientPlan(path(), element, geometry), why
    compact = options.compact
    return winograd.WinogradPlan(path(), element, geometry, product, compact=compact), why


def _within_reach(geometry: ConvGeometry) -> bool:
    """Whether the kernels' loops are made for this: three axes, numbers whose products are int64.

    A stride has as many phases as a transpose has kinds of results; each is planned by itself.
    """
    if geometry.rank > 3 or max(geometry.strides) > MOST_JOBS:
        return False
    if 0 in (*geometry.input_size, *geometry.output_size):
        return False  # nothing to compute
    return all(abs(number) < 2**31 for axis in geometry.axes for number in axis)


def _once_if_small(method: Callable[[CpuPlan, np.ndarray], Any]) -> Callable[..., Any]:
    """Let a method look at the numbers of a small kernel once for many calls.

    What it returns is shared by them, and none may change it.
    """

    @functools.lru_cache(maxsize=256)
    def recalled(plan: CpuPlan, numbers: bytes, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return method(plan, np.frombuffer(numbers, dtype).reshape(shape))

    @functools.wraps(method)
    def once(self: CpuPlan, operand: np.ndarray) -> Any:
        if operand.nbytes > SMALL_KERNEL:
            return method(self, operand)
        return recalled(self, operand.tobytes(), operand.shape, operand.dtype)

    return once


class CpuPlan:
    """One product in one dtype by the kernels of `inner`, which compute in its element.

    Parameters
    ----------
    inner
        A plan of this folder, with ``run``, ``scratch``, ``work`` (the multiply-adds of one of the
        batch) and, but for gradients, whose g is read as it is, ``pack``.
    structured : bool
        Whether to look for a kernel's structure, which may change the order of its sums.
    why : str
        Why these kernels were chosen.
    view : callable, optional
        What `inner` packs of a kernel, where that is not the kernel itself.
    """

    def __init__(
        self,
        product: Product,
        geometry: ConvGeometry,
        dtype: np.dtype,
        inner: Any,
        *,
        structured: bool = False,
        why: str = "",
        view: Callable[[np.ndarray], Any] | None = None,
    ) -> None:
        self.product, self.geometry, self.why = product, geometry, why
        self.dtype, self.inner, self.structured, self.view = dtype, inner, structured, view
        self.computed = inner.element.dtype
        self.gradient = product == "kernel_gradient"
        self.shape = result_shape(product, geometry)
        self.entries = math.prod(self.shape)
        self._batch = (-1, 0)
        #: Whether the result's bits are those that the kernels compute, under another name.
        self.same_bits = dtype.itemsize == self.computed.itemsize
        self.made = dtype if self.same_bits else self.computed
        #: Whether the kernels can finish: an epilogue of integers wraps in their own dtype.
        self.fused = inner.element.floating

    def __str__(self) -> str:
        return f"cpu: {self.inner}" + (f"; {self.why}" if self.why else "")

    def tune(self, packed: Any, batch: int, seconds: float) -> None:
        """Time this plan's blocks where it has any to choose from; see `tuning`."""
        if isinstance(self.inner, DirectPlan):
            self.inner.tune(packed, batch, seconds)
            self._batch = (-1, 0)  # the scratch may have changed

    def specialised(self, operand: np.ndarray, *, reused: bool) -> CpuPlan:
        """Return the plan for a kernel that is diagonal, or rows times columns.

        To look costs little here, `reused` or not.
        """
        if not self.structured or self.gradient:
            return self
        return self._specialised(operand)

    @_once_if_small
    def _specialised(self, operand: np.ndarray) -> CpuPlan:
        kernel = self._computable(operand)
        weights = structure.channel_weights(kernel, self.geometry.groups)
        if weights is None:
            return self
        if self._separable is not None and structure.separable(weights) is not None:
            return self._separable
        return self if self.geometry.groups == self.geometry.in_channels else self._depthwise

    @functools.cached_property
    def _depthwise(self) -> CpuPlan:
        """The plan of a dense kernel in which no channel meets another."""
        g = self.geometry
        geometry = structure.by_channels(g)
        inner = _direct(self.product, geometry, self.inner.element)

        def view(kernel: np.ndarray) -> np.ndarray:
            weights = structure.channel_weights(kernel, 1)
            assert weights is not None  # or there would be no such plan
            return weights[..., None, :]

        why = "no channel of the kernel meets another"
        return CpuPlan(self.product, g, self.dtype, inner, view=view, why=why)

    @functools.cached_property
    def _separable(self) -> CpuPlan | None:
        """The plan of a kernel that is rows times columns, where that is faster."""
        path, element, g = self.inner.path, self.inner.element, self.geometry
        if not separable.applies(g, self.product, element):
            return None
        inner = separable.SeparablePlan(path, element, g, self.product)

        def view(kernel: np.ndarray) -> structure.Factors | None:
            weights = structure.channel_weights(kernel, g.groups)
            return None if weights is None else structure.separable(weights)

        why = "no channel of the kernel meets another, and each is rows times columns"
        return CpuPlan(self.product, g, self.dtype, inner, view=view, why=why)

    def pack(self, operand: np.ndarray) -> Any:
        """Lay out the kernel, or what `inner` needs of it; g is only made contiguous."""
        return self._computable(operand) if self.gradient else self._pack(operand)

    @_once_if_small
    def _pack(self, operand: np.ndarray) -> Any:
        operand = self._computable(operand)
        return self.inner.pack(operand if self.view is None else self.view(operand))

    def nbytes(self, source: np.ndarray) -> int:
        """Count the result, in the element and in the dtype, a converted source, scratch."""
        batch = len(source)
        if batch != self._batch[0]:
            entries = self.entries * (1 if self.gradient else batch)
            copies = 0 if self.same_bits else self.computed.itemsize
            threads = launch.allowed(batch * self.inner.work)
            fixed = entries * (self.dtype.itemsize + copies) + self.inner.scratch(batch, threads)
            self._batch = batch, fixed  # of the last batch: a tuple is replaced as a whole
        return self._batch[1] + source.size * self.computed.itemsize

    def run(
        self, source: np.ndarray, packed: Any, out: np.ndarray | None, epilogue: Epilogue
    ) -> np.ndarray:
        """Compute into `out`, or into memory of the pool."""
        source = self._computable(source)
        shape = self.shape if self.gradient else (len(source), *self.shape)
        in_place = out is not None and self.same_bits and _simple(out, self.dtype)
        target = out if out is not None and in_place else pool.empty(shape, self.made)
        result = target if self.made == self.computed else target.view(self.computed)
        if self.gradient:
            self.inner.run(source, packed, result)
        elif epilogue is PLAIN or not self.fused:
            self.inner.run(source, packed, result, NOTHING)
        else:
            self.inner.run(source, packed, result, Finish.of(epilogue, self.computed))
        if not self.same_bits:
            with np.errstate(all="ignore"):
                target = target.astype(self.dtype)
        if not self.fused and epilogue is not PLAIN:
            target = epilogue.applied(target)
        if out is None or in_place:
            return target
        out[...] = target
        return out

    def _computable(self, array: np.ndarray) -> np.ndarray:
        """Return an operand C-contiguous, aligned and in the element, itself where it is so."""
        if _simple(array, self.computed):
            return array
        result = pool.empty(array.shape, self.computed)
        with np.errstate(all="ignore"):
            np.copyto(result, array, casting="unsafe")
        return result


def _simple(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether the kernels can read and write an array where it lies; `dtype` is native."""
    flags = array.flags
    return array.dtype == dtype and flags.c_contiguous and flags.aligned
