"""A case's numbers: the arrays that every candidate gets, and what they must make of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from cases import Case

import convarith
from convarith import ConvGeometry, ConvOperator

#: The product of the convolution that a group's cases are.
PRODUCTS = {
    "transposed": "transpose",
    "forward": "forward",
    "kernel_gradient": "kernel_gradient",
}
#: The array that comes out of a product.
RESULTS = {"forward": "y", "transpose": "x", "kernel_gradient": "kernel"}


def shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a case's three arrays, channels last."""
    geometry = case.geometry
    return {
        "x": (case.batch, *geometry.input_shape),
        "y": (case.batch, *geometry.output_shape),
        "kernel": geometry.kernel_shape,
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A product of a convolution, with the arrays that go in.

    Attributes
    ----------
    product : {"forward", "transpose", "kernel_gradient"}
        From ``x`` and ``kernel``, from ``y`` and ``kernel``, or from ``x`` and ``y``; the third
        of them is what comes out.
    geometry : ConvGeometry
    x, y, kernel : ndarray
        ``(n, *input_shape)``, ``(n, *output_shape)``, ``kernel_shape``; zeros where it comes out.
    bilinear : bool
    path : str
        The case's.
    """

    product: str
    geometry: ConvGeometry
    x: np.ndarray
    y: np.ndarray
    kernel: np.ndarray
    bilinear: bool
    path: str

    @classmethod
    def of(cls, case: Case) -> Problem:
        """Return the case's problem, with the same numbers every time."""
        geometry, product = case.geometry, PRODUCTS[case.group]
        rng = np.random.default_rng(0)
        arrays = {
            name: (
                np.zeros(shape, case.dtype)
                if name == RESULTS[product]
                else rng.standard_normal(shape).astype(case.dtype)
            )
            for name, shape in shapes(case).items()
        }
        if case.bilinear:
            channels, (size, *_) = geometry.in_channels, geometry.kernel_size
            arrays["kernel"] = convarith.bilinear_kernel(channels, channels, size)
        return cls(product, geometry, **arrays, bilinear=case.bilinear, path=case.path)

    def copy(self) -> Problem:
        """Return it with arrays of its own."""
        return dataclasses.replace(
            self, x=self.x.copy(), y=self.y.copy(), kernel=self.kernel.copy()
        )

    def grouped(self) -> Problem:
        """Return the same map where channels do not mix, written with a group a channel.

        How others say a bilinear kernel best, since they do not look for its structure.
        """
        assert self.bilinear
        # By the array's own methods, and as bits: it may be CuPy's, of a dtype it cannot compute.
        bits = self.kernel.view(f"u{self.kernel.dtype.itemsize}")
        diagonal = bits.diagonal(axis1=-2, axis2=-1)[..., None, :].copy().view(self.kernel.dtype)
        return dataclasses.replace(self, geometry=channelwise(self.geometry), kernel=diagonal)

    @property
    def result(self) -> np.ndarray:
        """The array that comes out, as zeros."""
        return getattr(self, RESULTS[self.product])

    @property
    def nbytes(self) -> int:
        """What must be moved: each operand and the result once, of a bilinear kernel nothing."""
        return self.x.nbytes + self.y.nbytes + (0 if self.bilinear else self.kernel.nbytes)

    @property
    def flops(self) -> int:
        """Twice the multiply-adds of the direct sum, without those in the padding.

        Of a bilinear kernel only its diagonal counts, as a sum over four neighbours.
        """
        mixed = self.geometry.in_channels // self.geometry.groups if self.bilinear else 1
        return 2 * len(self.x) * self.geometry.nnz // mixed

    @cached_property
    def exact(self) -> np.ndarray:
        """The result in float64, by the reference: NumPy, tap by tap."""
        double = dataclasses.replace(
            self, x=self.x.astype("f8"), y=self.y.astype("f8"), kernel=self.kernel.astype("f8")
        )
        run, _ = ours(double, backend="reference")
        return run()

    def error(self, result: np.ndarray, interior: int = 0) -> float:
        """Return the largest error, relative to the largest entry.

        Parameters
        ----------
        interior : int
            How many entries along each spatial border do not count.
        """
        inside = (slice(None), *(slice(interior, n - interior or None) for n in result.shape[1:3]))
        exact = self.exact
        if result.shape != exact.shape:
            raise ValueError(f"made {result.shape} instead of {exact.shape}")
        if not interior:
            inside = (...,)
        difference = np.abs(result[inside] - exact[inside]).max()
        return float(difference / np.abs(exact).max())


def channelwise(g: ConvGeometry) -> ConvGeometry:
    """Return a geometry with a group a channel."""
    return ConvGeometry(
        g.input_size,
        g.kernel_size,
        strides=g.strides,
        padding=g.padding,
        groups=g.in_channels,
        in_channels=g.in_channels,
        out_channels=g.in_channels,
    )


def ours(
    problem: Problem, out: np.ndarray | None = None, **options: Any
) -> tuple[Callable[[], np.ndarray], str]:
    """Return how the library does it, planned and packed, and the plan in words.

    Parameters
    ----------
    problem : Problem
    out : ndarray, optional
        Where every run writes its result; otherwise the library finds a place for each.
    **options
        What the library is told beside the geometry.
    """
    g = problem.geometry
    arguments = {"strides": g.strides, "padding": g.padding, "groups": g.groups, **options}
    if problem.product == "kernel_gradient":
        x, y, size = problem.x, problem.y, g.kernel_size
        words = ""  # the plan is the function's own
        return lambda: convarith.conv_kernel_gradient(x, y, size, out=out, **arguments), words
    if problem.bilinear and problem.y.dtype.itemsize == 2:
        # In a half type the rounded kernel is no more rows times columns.
        y, factor = problem.y, g.strides[0]
        return lambda: convarith.upsample_bilinear(y, factor), "upsample_bilinear"
    operator = ConvOperator(problem.kernel, g.input_size, **arguments)
    if problem.product == "transpose":
        operator, x = operator.T, problem.y
    else:
        x = problem.x
    words = str(operator.plan)
    return lambda: operator(x, out=out), words
