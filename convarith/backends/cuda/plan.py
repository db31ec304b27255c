"""Which kernel a product takes, and a plan of the protocol around it."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ...arrays import computed_in
from ...geometry import ConvGeometry
from ...namespace import on_host
from .. import structure
from ..protocol import PLAIN, Epilogue, Options, Product, result_shape
from . import device as devices
from .depthwise import depthwise_map
from .gradients import DepthwiseGradient, PlainGradient, TiledGradient
from .law import ELEMENTS, MOST_COORDINATE, within_reach
from .layout import simple
from .maps import FewMap, PlainMap, TiledMap
from .parts import Packed, Parts
from .separable import SeparableMap

#: Dtypes whose products the tensor cores take as they are; float32 on request, as TF32.
HALVES = ("float16", "bfloat16")


def plan(
    product: Product, geometry: ConvGeometry, dtype: np.dtype, options: Options
) -> CudaPlan | None:
    """Plan a product, or return None where there is no kernel for it."""
    if options.algorithm == "winograd":
        raise ValueError("algorithm: expected None or 'direct' on CUDA, got 'winograd'")
    if options.precision == "tf32" and dtype != np.float32:
        raise ValueError(f"precision: expected 'float32' for results of {dtype}, got 'tf32'")
    empty = 0 in (*geometry.input_size, *geometry.output_size)
    channels = max(geometry.in_channels, geometry.out_channels)
    if dtype.name not in ELEMENTS or geometry.rank > 3 or empty or channels >= MOST_COORDINATE:
        return None
    inner = _chosen(product, geometry, dtype, options)
    return CudaPlan(product, geometry, dtype, inner, structured=options.algorithm is None)


def _chosen(product: Product, geometry: ConvGeometry, dtype: np.dtype, options: Options) -> Any:
    """Return the first kernel that applies: the order of this function is the preference."""
    tensor_cores = dtype.name in HALVES or options.precision == "tf32"
    tiled = dtype == np.float32 or tensor_cores
    plain_only = not within_reach(geometry)
    if product == "kernel_gradient":
        if tiled and not plain_only and DepthwiseGradient.applies(geometry, dtype):
            return DepthwiseGradient(geometry, dtype)
        if tiled and not plain_only and TiledGradient.applies(geometry, dtype):
            return TiledGradient(geometry, dtype, tensor_cores=tensor_cores)
        return PlainGradient(geometry, dtype)
    transposed = product == "transpose"
    if plain_only:
        return PlainMap(geometry, dtype, transposed=transposed)
    depthwise = depthwise_map(geometry, dtype, transposed=transposed)
    if depthwise is not None:
        return depthwise
    if tiled and FewMap.applies(geometry, dtype, transposed=transposed):
        return FewMap(geometry, dtype, transposed=transposed)
    if tiled and TiledMap.applies(geometry, dtype, transposed=transposed):
        return TiledMap(geometry, dtype, transposed=transposed, tensor_cores=tensor_cores)
    return PlainMap(geometry, dtype, transposed=transposed)


class CudaPlan:
    """One product in one dtype by the kernels of `inner`.

    Parameters
    ----------
    inner
        A plan of `maps` or `gradients`.
    structured : bool
        Whether to look for a kernel's structure, which may change the order of its sums.
    view : callable, optional
        What `inner` packs of a kernel, where that is not the kernel itself.
    why : str
        What the structure is.
    """

    def __init__(
        self,
        product: Product,
        geometry: ConvGeometry,
        dtype: np.dtype,
        inner: Any,
        *,
        structured: bool = False,
        view: Any = None,
        why: str = "",
    ) -> None:
        self.product, self.geometry, self.dtype, self.inner = product, geometry, dtype, inner
        self.structured, self.view, self.why = structured, view, why
        self.gradient = product == "kernel_gradient"
        self.shape = result_shape(product, geometry)
        self.entries = math.prod(self.shape)
        self._plain = Parts(None, PLAIN, dtype)

    def __str__(self) -> str:
        return f"cuda: direct, {self.inner}" + (f"; {self.why}" if self.why else "")

    def specialised(self, operand: Any, *, reused: bool) -> CudaPlan:
        """Return the plan for a kernel that is diagonal, or rows times columns.

        Only an operator's kernel is looked at, which waits for the device.
        """
        if not (self.structured and reused) or self.gradient:
            return self
        g, floating = self.geometry, computed_in(self.dtype).kind == "f"
        if g.rank != 2 or not floating or not _may_be_diagonal(g) or not within_reach(g):
            return self
        weights = _weights(operand, g.groups)
        if weights is None:
            return self
        if self._separable is not None and structure.separable(weights) is not None:
            return self._separable
        return self._depthwise if g.groups == 1 and self._depthwise is not None else self

    @functools.cached_property
    def _depthwise(self) -> CudaPlan | None:
        """The plan of a dense kernel in which no channel meets another."""
        g, transposed = structure.by_channels(self.geometry), self.product == "transpose"
        inner = depthwise_map(g, self.dtype, transposed=transposed)
        if inner is None:
            return None
        why = "no channel of the kernel meets another"
        return CudaPlan(
            self.product, self.geometry, self.dtype, inner, view=_diagonal_entries, why=why
        )

    @functools.cached_property
    def _separable(self) -> CudaPlan | None:
        """The plan of a kernel that is rows times columns."""
        g, transposed = structure.by_channels(self.geometry), self.product == "transpose"
        inner = SeparableMap(g, self.dtype, transposed=transposed)
        if not inner.applies():
            return None

        def view(kernel: Any) -> structure.Factors | None:
            weights = _weights(kernel, self.geometry.groups)
            return None if weights is None else structure.separable(weights)

        why = "no channel of the kernel meets another, and each is rows times columns"
        return CudaPlan(self.product, self.geometry, self.dtype, inner, view=view, why=why)

    def pack(self, operand: Any) -> Packed:
        """Lay out the kernel, or g."""
        return self.inner.pack(
            devices.current(), operand if self.view is None else self.view(operand)
        )

    def nbytes(self, source: Any) -> int:
        """Count the result, a converted source, and scratch.

        Parts of the epilogue in another dtype or layout than the result's come on top.
        """
        entries = self.entries * (1 if self.gradient else len(source))
        simple_source = source.dtype == self.dtype and source.flags.c_contiguous
        converted = 0 if simple_source else source.size * self.dtype.itemsize
        scratch = self.inner.scratch(devices.current(), source)
        return entries * self.dtype.itemsize + converted + scratch

    def run(self, source: Any, packed: Packed, out: Any, epilogue: Epilogue) -> Any:
        """Compute into `out`, or into memory of CuPy's pool."""
        device = devices.current()
        source = simple(device, source, self.dtype)
        in_place = out is not None and out.flags.c_contiguous
        if in_place:
            result = out
        else:
            shape = self.shape if self.gradient else (len(source), *self.shape)
            result = device.xp.empty(shape, self.dtype)
        if self.gradient:
            self.inner.run(device, source, packed, result)
        else:
            parts = self._plain if epilogue is PLAIN else Parts(device, epilogue, self.dtype)
            self.inner.run(device, source, packed, result, parts)
        if out is None or in_place:
            return result
        out[...] = result
        return out


def _may_be_diagonal(geometry: ConvGeometry) -> bool:
    """Whether each channel may stand for itself: as many in as out, in one group or one each.

    A single one is left as it is: what its structure would gain has not been measured.
    """
    channels = geometry.in_channels
    return channels == geometry.out_channels > 1 and geometry.groups in (1, channels)


def _weights(kernel: Any, groups: int) -> np.ndarray | None:
    """Return the weights ``(kh, kw, c)`` of a kernel without meeting channels, on the host."""
    numbers = on_host(kernel)
    if computed_in(numbers.dtype) != numbers.dtype:
        numbers = numbers.astype(np.float32)
    if numbers.dtype.kind != "f":
        return None
    return structure.channel_weights(numbers, groups)


def _diagonal_entries(kernel: Any) -> Any:
    """Return ``(*k, 1, c)`` of a kernel ``(*k, c, c)``."""
    return kernel.diagonal(axis1=-2, axis2=-1)[..., None, :]
