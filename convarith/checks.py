"""What the arrays and arguments of a product must be, found out once for each form of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from . import backends
from .arrays import check_channels, checked_kernel, is_bare, result_type
from .backends import Options, Plan, Product
from .call import Call
from .geometry import ConvGeometry
from .padding import Padding
from .remembered import Remembered
from .validate import PerAxis

#: A call, and what its plan is asked for with.
Checked: TypeAlias = tuple[Call, tuple[str, Product, ConvGeometry, np.dtype, Options]]

#: What `planned` has checked, by what it depends on.
_checked = Remembered(1024)
_PLAIN_TYPES = frozenset((int, str, type(None)))


def planned(
    check: Callable[..., Checked], first: Any, second: Any, *arguments: Any
) -> tuple[Call, Plan]:
    """Return the call that `check` makes of two arrays and arguments, and its plan.

    A small product would take as long as its checks, so they are made once for all arrays of the
    same shapes and dtypes: none looks at their values. What only equals an argument seen before,
    as 1.0 does 1, is checked by itself.
    """
    call, asked = _once(check, first, second, arguments)
    return call, backends.plan(*asked)


def _once(
    check: Callable[..., Checked], first: Any, second: Any, given: tuple[Any, ...]
) -> Checked:
    plain = given
    if not _plain(plain):
        plain = _frozen(plain)
        if not _plain(plain):
            return check(first, second, *given)
    # The type of the first array tells its library, which is that of the other too.
    key = check, type(first), first.shape, first.dtype, second.shape, second.dtype, plain
    if plain is given:
        return _checked.get(key, lambda: check(first, second, *given))
    with contextlib.suppress(TypeError, ValueError):  # raised below, naming the lists given
        return _checked.get(key, lambda: check(first, second, *plain))
    return check(first, second, *given)


def _frozen(value: Any, depth: int = 3) -> Any:
    """Return lists as tuples: of arguments, of axes, of pairs."""
    if depth and type(value) in (list, tuple):
        return tuple(_frozen(each, depth - 1) for each in value)
    return value


def _plain(values: tuple[Any, ...]) -> bool:
    """Whether all are integers, words, None, or tuples of these: equal only to their like."""
    for value in values:  # in half the time of sets and generators
        kind = type(value)
        if kind is tuple:
            if not _plain(value):
                return False
        elif kind not in _PLAIN_TYPES:
            return False
    return True


def forward(
    x: np.ndarray,
    kernel: np.ndarray,
    strides: PerAxis,
    padding: Padding,
    dilations: PerAxis,
    groups: int,
    algorithm: str | None,
    precision: str,
    backend: str | None,
) -> Checked:
    """Check what `conv` takes but its epilogue and `out`."""
    options = Options(algorithm, precision)
    how = {"strides": strides, "padding": padding, "dilations": dilations, "groups": groups}
    return _of_kernel("forward", "x", x, kernel, backend, options, how)


def transpose(
    y: np.ndarray,
    kernel: np.ndarray,
    strides: PerAxis,
    padding: Padding,
    dilations: PerAxis,
    groups: int,
    output_size: PerAxis | None,
    algorithm: str | None,
    precision: str,
    backend: str | None,
) -> Checked:
    """Check what `conv_transpose` takes, as `forward` does."""
    options = Options(algorithm, precision)
    how = {"strides": strides, "padding": padding, "dilations": dilations, "groups": groups}
    return _of_kernel(
        "transpose", "y", y, kernel, backend, options, how | {"output_size": output_size}
    )


def _of_kernel(
    product: Product,
    name: str,
    array: np.ndarray,
    kernel: np.ndarray,
    backend: str | None,
    options: Options,
    how: dict[str, Any],
) -> Checked:
    """Check the array of that name and a kernel; `how` is what the geometry is told."""
    bare = is_bare(name, array, kernel)
    kernel, c_in, c_out = checked_kernel(kernel, bare=bare, groups=how["groups"])
    if bare:
        array = array[None, ..., None]
    make: Callable[..., ConvGeometry] = ConvGeometry
    if product == "transpose":
        make, c_in, c_out = ConvGeometry.of_transpose, c_out, c_in
    check_channels(name, array, c_in)
    sizes = array.shape[1:-1], kernel.shape[:-2]
    geometry = make(*sizes, in_channels=c_in, out_channels=c_out, **how)
    dtype = result_type(**{name: array, "kernel": kernel})
    asked = backends.choose(backend, array), product, geometry, dtype, options
    return Call(product, geometry, dtype, (len(array),), bare), asked


def kernel_gradient(
    x: np.ndarray,
    g: np.ndarray,
    kernel_size: PerAxis,
    strides: PerAxis,
    padding: Padding,
    dilations: PerAxis,
    groups: int,
    algorithm: str | None,
    precision: str,
    backend: str | None,
) -> Checked:
    """Check what `conv_kernel_gradient` takes, as `forward` does."""
    options = Options(algorithm, precision)
    bare = x.ndim <= 2
    if x.ndim == 0 or g.ndim != x.ndim:
        raise ValueError(
            f"g: expected as many axes as x, at least 1, got shapes {g.shape} and {x.shape}"
        )
    if bare:
        x, g = x[None, ..., None], g[None, ..., None]
    for name, array in (("x", x), ("g", g)):
        if array.shape[-1] == 0:
            raise ValueError(f"{name}: expected channels on the last axis, got shape {array.shape}")
    geometry = ConvGeometry(
        x.shape[1:-1],
        kernel_size,
        strides=strides,
        dilations=dilations,
        padding=padding,
        groups=groups,
        in_channels=x.shape[-1],
        out_channels=g.shape[-1],
    )
    expected = (len(x), *geometry.output_shape)
    if g.shape != expected:
        if bare:
            expected, g = expected[1:-1], g[0, ..., 0]
        raise ValueError(f"g: expected the convolution's shape {expected}, got {g.shape}")
    dtype = result_type(x=x, g=g)
    asked = backends.choose(backend, x), "kernel_gradient", geometry, dtype, options
    return Call("kernel_gradient", geometry, dtype, (), bare), asked
