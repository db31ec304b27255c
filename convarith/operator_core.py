"""`Core`: what an operator and its transpose share, the kernel and its packed forms."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np

from . import backends
from .arrays import check_channels, result_type
from .backends import Options, Plan, Product
from .call import Call
from .geometry import ConvGeometry
from .memory import require_bytes
from .namespace import is_cupy, namespace, on_device_of
from .remembered import Remembered


@dataclasses.dataclass(eq=False)
class Core:
    """A kernel with its geometry, and what was planned and packed of it.

    `half` is the half type that results are asked for in, of a float32 kernel.
    """

    kernel: np.ndarray  # (*k, c_in // groups, c_out)
    geometry: ConvGeometry
    bare: bool
    backend: str
    options: Options
    half: np.dtype | None = None

    def __post_init__(self) -> None:
        require_bytes("kernel", self.kernel.size * self.kernel.itemsize, beside=self.kernel)
        native = self.kernel.dtype.newbyteorder("=")
        if self.half is not None and native != np.float32:
            raise TypeError(f"kernel: expected float32 for results in {self.half}, got {native}")
        with on_device_of(self.kernel):
            if not (self.options.compact and _is_fixed(self.kernel, native)):
                self.kernel = namespace(self.kernel).array(self.kernel, native, order="C")
            if is_cupy(self.kernel):
                self._copied = _stream(self.kernel).record()
            else:
                self.kernel.flags.writeable = False
        self.lock = threading.Lock()
        self._prepared: dict[tuple[Product, np.dtype], tuple[Plan, Any]] = {}
        self._ready = Remembered()

    def __reduce__(self) -> tuple[Any, ...]:
        return Core, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    @property
    def dtype(self) -> np.dtype:
        """What is computed for operands of it, where nothing else is asked for."""
        return self.kernel.dtype if self.half is None else self.half

    def prepared(self, product: Product, dtype: np.dtype) -> tuple[Plan, Any]:
        """Return the plan for results of `dtype` and the kernel packed by it, once each."""
        key = (product, dtype)
        if key not in self._prepared:
            with self.lock:
                if key not in self._prepared:
                    with on_device_of(self.kernel):
                        self._prepared[key] = self._prepare(product, dtype)
        return self._prepared[key]

    def _prepare(self, product: Product, dtype: np.dtype) -> tuple[Plan, Any]:
        on_cuda = is_cupy(self.kernel)
        if on_cuda:
            _stream(self.kernel).wait_event(self._copied)
        plan = backends.plan(self.backend, product, self.geometry, dtype, self.options)
        plan = plan.specialised(self.kernel, reused=True)
        packed = plan.pack(self.kernel)
        if on_cuda:  # calls may come on any stream, and none of them waits for this one
            _stream(self.kernel).synchronize()
        return plan, packed

    def ready(self, product: Product, x: np.ndarray) -> tuple[Call, Plan, Any]:
        """Return what is known of a call for an array of this form; the last ones are kept.

        It is what the result is checked against, the plan, and the kernel packed by it.
        """
        key = product, x.shape, x.dtype
        return self._ready.get(key, lambda: self._made_ready(product, x))

    def _made_ready(self, product: Product, x: np.ndarray) -> tuple[Call, Plan, Any]:
        dtype = self._check(product, x)
        call = Call(product, self.geometry, dtype, (1 if self.bare else len(x),), self.bare)
        return call, *self.prepared(product, dtype)

    def _check(self, product: Product, x: np.ndarray) -> np.dtype:
        """Check an operand's shape; return the dtype of the result."""
        geometry, forward = self.geometry, product == "forward"
        size = geometry.input_size if forward else geometry.output_size
        if self.bare:
            if x.shape != size:
                raise ValueError(f"x: expected shape {size}, got {x.shape}")
        else:
            if x.ndim != len(size) + 2 or x.shape[1:-1] != size:
                sizes = ", ".join(map(str, size))
                raise ValueError(f"x: expected shape (n, {sizes}, c), got {x.shape}")
            check_channels("x", x, geometry.in_channels if forward else geometry.out_channels)
        return result_type(x=x, kernel=self.kernel) if self.half is None else self.half


def _is_fixed(kernel: Any, native: np.dtype) -> bool:
    """Whether a kernel is as a copy of it would be: of that dtype, in order, and read-only.

    The memory must be NumPy's own and read-only itself: of that of others, as what comes by way
    of DLPack, nobody knows.
    """
    if is_cupy(kernel) or kernel.dtype != native:
        return False
    root = kernel
    while isinstance(root.base, np.ndarray):
        root = root.base
    ours = root.base is None and not root.flags.writeable
    return ours and kernel.flags.c_contiguous and kernel.flags.aligned


def _stream(array: Any) -> Any:
    """Return CuPy's current stream on the current device."""
    return namespace(array).cuda.get_current_stream()
