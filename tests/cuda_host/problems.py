"""A product's numbers, planned and run on a device as the front end does it, and what ran there."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest

from convarith import ConvGeometry
from convarith.arrays import computed_in
from convarith.backends import Options, cuda
from convarith.backends.cuda import device as devices
from convarith.backends.cuda.depthwise import DepthwiseMap, DepthwiseStripMap
from convarith.backends.cuda.gradients import DepthwiseGradient, PlainGradient, TiledGradient
from convarith.backends.cuda.maps import FewMap, PlainMap, TiledMap
from convarith.backends.cuda.plan import CudaPlan
from convarith.backends.protocol import Epilogue, Product
from convarith.namespace import on_host
from convarith.testing import assert_product, random_array, structured_kernel

#: Kernels that a problem may ask for where planning would take another.
INNER: dict[str, Any] = {
    "map_plain": PlainMap,
    "map_few": FewMap,
    "map_ffma": functools.partial(TiledMap, tensor_cores=False),
    "map_mma": functools.partial(TiledMap, tensor_cores=True),
    "depthwise": DepthwiseMap,
    "depthwise_strip": DepthwiseStripMap,
    "gradient_plain": PlainGradient,
    "gradient_depthwise": DepthwiseGradient,
    "gradient_ffma": functools.partial(TiledGradient, tensor_cores=False),
    "gradient_mma": functools.partial(TiledGradient, tensor_cores=True),
}


class Watched:
    """A device that keeps a list of its launches.

    Attributes
    ----------
    device : Device or HostDevice
        What the kernels run on.
    multiprocessors : int
        What planning is told.
    launches : list
        The name and the constants of each kernel that ran.
    """

    def __init__(self, device: Any) -> None:
        self.device, self.xp, self.architecture = device, device.xp, device.architecture
        self.multiprocessors = device.multiprocessors
        self.launches: list[tuple[str, dict[str, str | int]]] = []

    def kernel(self, name: str, **constants: str | int) -> devices.Kernel:
        """Return the device's kernel, which is listed when it is launched."""
        kernel = self.device.kernel(name, **constants)

        def launch(
            grid: tuple[int, int, int], block: int, arguments: tuple[Any, ...], shared: int = 0
        ) -> None:
            self.launches.append((name, constants))
            kernel(grid, block, arguments, shared)

        return launch

    @property
    def on_host(self) -> bool:
        """Whether it is this machine's CPU."""
        return self.architecture == "host"

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Be the device that plans find, with an empty list of launches."""
        self.launches.clear()
        with mock.patch.object(devices, "current", lambda: self):
            yield

    @contextlib.contextmanager
    def in_order(self, seed: int, cp_mode: int = 0) -> Iterator[None]:
        """Run threads and copies in another order, where that is ours to say."""
        if not self.on_host:
            yield
            return
        before = self.device.seed, self.device.cp_mode
        self.device.seed, self.device.cp_mode = seed, cp_mode
        try:
            yield
        finally:
            self.device.seed, self.device.cp_mode = before

    def ran(self, name: str, **constants: str | int) -> int:
        """Return how often a kernel ran with these among its constants."""
        return sum(
            name == launched and constants.items() <= its.items() for launched, its in self.launches
        )


@dataclasses.dataclass(frozen=True)
class Problem:
    """A product of one geometry with numbers from a seed.

    `kernel` names one of `INNER`, or None for what planning takes. A layout is "C", "odd" (an
    element behind a multiple of 16 bytes) or "sparse" (every second element of each axis).
    """

    product: Product
    geometry: ConvGeometry
    _: dataclasses.KW_ONLY
    dtype: str = "float32"
    precision: str = "float32"
    structure: str = "random"
    kernel: str | None = None
    batch: int = 2
    parts: tuple[str, ...] = ()
    activation: str | None = None
    seed: int = 0

    def changed(self, **changes: Any) -> Problem:
        """Return the problem with other values of some fields."""
        return dataclasses.replace(self, **changes)

    @property
    def numbers(self) -> np.dtype:
        """The dtype; where bfloat16 is not installed, the test is skipped."""
        if self.dtype == "bfloat16":
            pytest.importorskip("ml_dtypes")
        return np.dtype(self.dtype)

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The source, the operand (the kernel, or g) and the epilogue's parts."""
        g, dtype, rng = self.geometry, self.numbers, np.random.default_rng(self.seed)
        x, y = (self.batch, *g.input_shape), (self.batch, *g.output_shape)
        source = random_array(rng, y if self.product == "transpose" else x, dtype)
        if self.product == "kernel_gradient":
            return {"source": source, "operand": random_array(rng, y, dtype)}
        result = x if self.product == "transpose" else y
        shapes = {"scale": result[-1:], "bias": result[-1:], "residual": result}
        return {
            "source": source,
            "operand": structured_kernel(rng, g, dtype, self.structure),
            **{name: random_array(rng, shapes[name], dtype) for name in self.parts},
        }

    def plan(self) -> CudaPlan | None:
        """Return the plan, of the kernel that was asked for."""
        dtype = self.numbers
        plan = cuda.plan(self.product, self.geometry, dtype, Options(precision=self.precision))
        if plan is None or self.kernel is None:
            return plan
        way = {} if plan.gradient else {"transposed": self.product == "transpose"}
        inner = INNER[self.kernel](self.geometry, dtype, **way)
        return CudaPlan(self.product, self.geometry, dtype, inner)

    def run(
        self,
        device: Watched,
        *,
        arrays: dict[str, np.ndarray] | None = None,
        source: str = "C",
        operand: str = "C",
        out: str | None = None,
    ) -> np.ndarray:
        """Return the result, of these arrays or the problem's own, on the host.

        `source`, `operand` and `out` are layouts; without `out` the result is the plan's own array.
        """
        plan, xp = self.plan(), device.xp
        arrays = {**self.arrays, **(arrays or {})}
        with device.current():
            kernel = laid(xp, arrays["operand"], operand)
            plan = plan.specialised(kernel, reused=True)
            values = laid(xp, arrays["source"], source)
            target = None
            if out is not None:
                shape = plan.shape if plan.gradient else (len(values), *plan.shape)
                target = laid(xp, np.zeros(shape, values.dtype), out)
            parts = {name: xp.asarray(arrays[name]) for name in self.parts}
            epilogue = Epilogue(**parts, activation=self.activation)
            result = plan.run(values, plan.pack(kernel), target, epilogue)
        assert target is None or result is target
        return on_host(result)

    def check(self, result: np.ndarray) -> None:
        """Assert that a result is right to the bound, by an oracle in wider numbers."""
        operands = [self.arrays[name] for name in ("source", "operand")]
        constant = None
        if self.precision == "tf32":  # the products of rounded operands are exact in float32
            operands = [nearest_tf32(operand) for operand in operands]
        if self.precision == "tf32" or computed_in(self.numbers) != self.numbers:
            # Tensor cores cut off the bits of terms below the largest of a few.
            constant = 2 * self.terms() + 8
        parts = {name: self.arrays[name] for name in self.parts}
        assert_product(
            result,
            self.product,
            self.geometry,
            *operands,
            constant=constant,
            activation=self.activation,
            **parts,
        )

    def terms(self) -> int:
        """Return the terms of the longest sum."""
        g = self.geometry
        if self.product == "kernel_gradient":
            return self.batch * math.prod(g.output_size)
        channels = g.in_channels if self.product == "forward" else g.out_channels
        return math.prod(g.kernel_size) * channels // g.groups


def laid(xp: Any, array: np.ndarray, layout: str) -> Any:
    """Return an array on a device in a layout."""
    if layout == "C":
        return xp.asarray(array)
    if layout == "odd":
        larger = xp.zeros(array.size + 1, array.dtype)
        result = larger[1:].reshape(array.shape)
    else:
        larger = xp.zeros([2 * length for length in array.shape], array.dtype)
        result = larger[tuple(slice(None, None, 2) for _ in array.shape)]
    result[...] = xp.asarray(array)
    return result


def nearest_tf32(x: np.ndarray) -> np.ndarray:
    """Return float32 rounded to TF32, ties away from zero."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def assert_same_bits(one: np.ndarray, other: np.ndarray) -> None:
    """Assert that two results are the same to the bit."""
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    differ = one.reshape(-1).view(np.uint8) != other.reshape(-1).view(np.uint8)
    assert not differ.any(), f"{differ.sum()} of {differ.size} bytes differ: {one} and {other}"
