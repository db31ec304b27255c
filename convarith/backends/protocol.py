"""What a backend is: one function, ``plan(product, geometry, dtype, options) -> Plan | None``."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from ..geometry import ConvGeometry
from ..namespace import namespace
from ..validate import one_of

#: ``forward`` is x -> W x, ``transpose`` y -> W^T y, ``kernel_gradient`` the map whose result
#: k' satisfies <g, W(k) x> = <k', k> for every kernel k.
Product: TypeAlias = Literal["forward", "transpose", "kernel_gradient"]


def result_shape(product: Product, geometry: ConvGeometry) -> tuple[int, ...]:
    """Return the shape of a product's result, without the batch that the two maps have.

    >>> result_shape("transpose", ConvGeometry((9, 9), 3, in_channels=2, out_channels=4))
    (9, 9, 2)
    """
    shapes = {
        "forward": geometry.output_shape,
        "transpose": geometry.input_shape,
        "kernel_gradient": geometry.kernel_shape,
    }
    return shapes[product]


ALGORITHMS = (None, "direct", "winograd")
PRECISIONS = ("float32", "tf32")
ACTIVATIONS = (None, "relu", "relu6")


@dataclasses.dataclass(frozen=True)
class Options:
    """How to compute, as far as the caller decides it; part of a plan's identity."""

    algorithm: str | None = None
    precision: str = "float32"
    compact: bool = False

    def __post_init__(self) -> None:
        one_of("algorithm", self.algorithm, ALGORITHMS)
        one_of("precision", self.precision, PRECISIONS)
        if not isinstance(self.compact, bool):
            raise TypeError(f"compact: expected a bool, got {self.compact!r}")


@dataclasses.dataclass(frozen=True, eq=False)
class Epilogue:
    """What one call adds to the product: ``activation(scale*(W x) + bias + residual)``.

    `scale` and `bias` have one entry a channel of the result, `residual` its shape (with batch
    and channel axes); all are of dtypes that cast safely to what the result is computed in.
    """

    scale: np.ndarray | None = None
    bias: np.ndarray | None = None
    residual: np.ndarray | None = None
    activation: str | None = None

    def __bool__(self) -> bool:
        return any(part is not None for part in vars(self).values())

    def applied(self, result: np.ndarray) -> np.ndarray:
        """Return ``activation(scale*result + bias + residual)``, in place, in its dtype."""
        xp = namespace(result)
        with np.errstate(all="ignore"):
            if self.scale is not None:
                result *= self.scale.astype(result.dtype)
            for term in (self.bias, self.residual):
                if term is not None:
                    result += term.astype(result.dtype)
            if self.activation is not None:
                xp.maximum(result, 0, out=result)  # NaN passes
            if self.activation == "relu6":
                xp.minimum(result, 6, out=result)
        return result


#: The epilogue of a call without one.
PLAIN = Epilogue()


class Plan(Protocol):
    """One product of one geometry in one dtype: everything known without the numbers.

    ``str(plan)`` says in words what was chosen. Plans are cached and shared by threads, so
    they hold nothing that a run changes.
    """

    def specialised(self, operand: Any, *, reused: bool) -> Plan:
        """Return the plan for what `operand` turns out to be, or this one.

        A kernel may be diagonal, or rows times columns. Like the plan, the answer holds nothing of
        the operand, and is the same for operands of the same structure. `reused` tells whether
        the operand serves many calls: on a GPU, to look at a kernel is to wait for it.
        """

    def pack(self, operand: Any) -> Any:
        """Lay out the operand that is reused: the kernel, or g for the kernel gradient.

        It comes channels-last, ``geometry.kernel_shape`` or ``(n, *output_shape)``, and may
        be a view of the caller's memory.
        """

    def nbytes(self, source: Any) -> int:
        """Return an upper bound of what `run` allocates for `source`, the result included.

        It is asked before every run, and what would not fit is refused.
        """

    def run(self, source: Any, packed: Any, out: Any, epilogue: Epilogue) -> Any:
        """Compute into `out` (or a new array where it is None) and return it.

        `source` is ``(n, *input_shape)``, or ``(n, *output_shape)`` for the transpose; `out`
        has the result's shape and dtype and shares no memory with any operand.
        """
