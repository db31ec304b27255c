"""Assertions: a result is right to a strict bound, a map is the adjoint of another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import computed_in
from ..backends.protocol import Epilogue, Product
from ..geometry import ConvGeometry
from .oracles import exact as exactly
from .values import random_array

if TYPE_CHECKING:
    from .strategies import Case


def assert_close(
    actual: np.ndarray,
    product: Product,
    case: Case,
    *,
    constant: float | None = None,
    algorithm: str = "direct",
    **epilogue: Any,
) -> None:
    """Assert that `actual` is `product` of `case`: shape, dtype, and values to a strict bound.

    Integers must be equal. For floats ``|actual - exact| <= constant * eps * (|W| |x|)``,
    entry by entry, with ``eps`` of the dtype computed in (float32 for half types, whose results
    are rounded once more); `constant` defaults to one more than the terms of the longest sum.

    Parameters
    ----------
    actual : ndarray
        With batch and channel axes.
    product : {"forward", "transpose", "kernel_gradient"}
    case : Case
    constant : float, optional
        A tighter or wider bound.
    algorithm : {"direct", "winograd"}
        For "winograd", whose error spreads over its tile, the bound is that of the entry where
        it is largest; a kernel gradient's transforms may round more than a short sum, and are
        allowed 32 terms more.
    scale, bias, residual, activation
        What the result was finished with, as `convarith.conv` takes them; each step may round.
    """
    assert_product(
        actual,
        product,
        case.geometry,
        *case.operands(product),
        constant=constant,
        algorithm=algorithm,
        **epilogue,
    )


def assert_product(
    actual: np.ndarray,
    product: Product,
    geometry: ConvGeometry,
    source: np.ndarray,
    operand: np.ndarray,
    *,
    constant: float | None = None,
    algorithm: str = "direct",
    **epilogue: Any,
) -> None:
    """Assert what `assert_close` does, of the two operands by themselves.

    Examples
    --------
    >>> import convarith
    >>> x, kernel = np.ones((1, 5, 2), np.float32), np.ones((3, 2, 4), np.float32)
    >>> y = convarith.conv(x, kernel, activation="relu6")
    >>> g = convarith.ConvGeometry(5, 3, in_channels=2, out_channels=4)
    >>> assert_product(y, "forward", g, x, kernel, activation="relu6")
    """
    dtype = np.result_type(source, operand)
    exact = exactly(product, geometry, source, operand)
    assert actual.shape == exact.shape, f"expected shape {exact.shape}, got {actual.shape}"
    assert actual.dtype == dtype, f"expected dtype {dtype}, got {actual.dtype}"
    ending = Epilogue(**epilogue)
    if dtype.kind in "iu":
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(actual, _finish(exact, ending))
        return
    taps = math.prod(geometry.kernel_size)
    terms = {
        "forward": taps * geometry.in_channels // geometry.groups,
        "transpose": taps * geometry.out_channels // geometry.groups,
        "kernel_gradient": len(source) * math.prod(geometry.output_size),
    }[product]
    magnitude = exactly(product, geometry, *(np.abs(each) for each in (source, operand)))
    if algorithm == "winograd":
        if product == "kernel_gradient":
            terms += 32  # as `convarith.backends.cpu.winograd.STEPS`
        magnitude = np.full_like(magnitude, magnitude.max(initial=0))
    bound = (terms + 1 if constant is None else constant) * magnitude
    bound *= _eps(computed_in(dtype))
    bound += terms * np.finfo(computed_in(dtype)).smallest_subnormal  # products that underflow
    if ending:
        bound = _bound_finished(bound, exact, ending, _eps(computed_in(dtype)))
        exact = _finish(exact, ending)
    if computed_in(dtype) != dtype:  # rounded once more, near zero to the subnormals' spacing
        bound += np.maximum(_eps(dtype) * np.abs(exact), 2.0**-24)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the largest half lies infinity
        error = np.abs(actual.astype(exact.dtype) - exact)
        error[actual == exact.astype(dtype)] = 0
        worst = int(np.argmax(error - bound)) if error.size else 0
    assert (error <= bound).all(), (
        f"{product} of {geometry!r} in {dtype}: error {error.flat[worst]:.3g} at "
        f"{tuple(map(int, np.unravel_index(worst, error.shape)))}, "
        f"allowed {bound.flat[worst]:.3g}"
    )


def _finish(exact: np.ndarray, epilogue: Epilogue) -> np.ndarray:
    """Return ``activation(scale*exact + bias + residual)`` in the dtype of `exact`."""
    result = exact
    if epilogue.scale is not None:
        result = result * epilogue.scale.astype(exact.dtype)
    for term in (epilogue.bias, epilogue.residual):
        if term is not None:
            result = result + term.astype(exact.dtype)
    if epilogue.activation is not None:
        result = np.maximum(result, 0)
    return np.minimum(result, 6) if epilogue.activation == "relu6" else result


def _bound_finished(
    bound: np.ndarray, exact: np.ndarray, epilogue: Epilogue, eps: float
) -> np.ndarray:
    """Return the bound of a result after its epilogue, from that of the product before it.

    There are three steps at most, each of which rounds at most the sum of all magnitudes; a
    fourth for good measure. An activation spreads no error.
    """
    scale, bias, residual = (
        unit if part is None else np.abs(part).astype(bound.dtype)
        for part, unit in ((epilogue.scale, 1), (epilogue.bias, 0), (epilogue.residual, 0))
    )
    return bound * scale + 4 * eps * ((np.abs(exact) + bound) * scale + bias + residual)


def _eps(dtype: np.dtype) -> float:
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)


def assert_adjoint(
    forward: Callable[[np.ndarray], np.ndarray],
    adjoint: Callable[[np.ndarray], np.ndarray],
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    *,
    dtype: Any = np.float64,
    seed: int = 0,
    rtol: float | None = None,
) -> None:
    """Assert ``<forward(x), y> == <x, adjoint(y)>`` for random x and y.

    Parameters
    ----------
    forward, adjoint : callable
        Maps between arrays of the two shapes.
    input_shape, output_shape : tuple of int
    dtype : dtype
        Of x and y. Integers must agree exactly; the inner product conjugates its first
        argument, as an adjoint of complex maps has it.
    seed : int
    rtol : float, optional
        Allowed relative to ``|forward(x)| |y| + |x| |adjoint(y)|``. Default: 64 eps.

    Examples
    --------
    >>> import convarith
    >>> kernel = np.arange(6.0).reshape(3, 2)
    >>> assert_adjoint(
    ...     lambda x: convarith.conv(x, kernel, strides=2),
    ...     lambda y: convarith.conv_transpose(y, kernel, strides=2, output_size=(8, 5)),
    ...     (8, 5), (3, 2))
    """
    rng = np.random.default_rng(seed)
    x, y = random_array(rng, input_shape, dtype), random_array(rng, output_shape, dtype)
    fx, ay = forward(x), adjoint(y)
    assert fx.shape == y.shape, f"forward: expected shape {y.shape}, got {fx.shape}"
    assert ay.shape == x.shape, f"adjoint: expected shape {x.shape}, got {ay.shape}"
    left, right = np.vdot(y, fx), np.vdot(ay, x)
    if left.dtype.kind in "iu":
        assert left == right, f"<y, forward(x)> = {left}, but <adjoint(y), x> = {right}"
        return
    size = np.linalg.norm(fx) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(ay)
    allowed = (64 * _eps(left.dtype) if rtol is None else rtol) * size
    assert abs(left - right) <= allowed, (
        f"<y, forward(x)> = {left}, but <adjoint(y), x> = {right}: "
        f"they differ by {abs(left - right):.3g}, allowed {allowed:.3g}"
    )
