"""What computes a step of fused inference, for one size of its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from convarith import ConvGeometry, ConvOperator

from . import blocks
from .fusion import NO_ZEROS, Step
from .half import dtype_of, narrowed, widened
from .layers import (
    Add,
    Array,
    Conv,
    ConvTranspose,
    Crop,
    MaxPool,
    Shape,
    Softmax,
    ZeroPadding,
    namespace,
)

#: Takes a step's inputs, and where to write its result.
Run = Callable[..., None]


class Settings(NamedTuple):
    """How a program computes, see `fcn.inference.Program`; `xp` is NumPy or CuPy."""

    xp: Any
    algorithm: str | None
    precision: str
    dtype: str
    share: bool

    @property
    def half(self) -> np.dtype | None:
        """The half type that is computed with, if any."""
        return None if self.dtype == "float32" else dtype_of(self.dtype)


def planned(step: Step, shapes: dict[str, Shape], settings: Settings) -> Run:
    """Return what computes a step for inputs of these shapes."""
    sources = [shapes[name] for name in step.inputs]
    match step.layer:
        case MaxPool():
            return _pooling(step, sources[0])
        case Softmax():
            return _softmax
        case ZeroPadding():
            return _padding(step.layer)
        case Crop():
            return _crop
        case Add() if not step.residual:
            return _sum(sources[0], settings)
        case _:
            return _product(step, sources[0], shapes[step.name], settings)


def _product(step: Step, source: Shape, result: Shape, settings: Settings) -> Run:
    """Return a step that is one product: a convolution, transposed or not, or the identity."""
    layer = step.layer
    how = {
        "algorithm": settings.algorithm,
        "precision": settings.precision,
        "dtype": settings.half,
        "compact": settings.share,
    }
    if isinstance(layer, Conv):
        (top, bottom), (left, right) = step.zeros
        n, h, w, c = source
        padding = layer.geometry((n, h + top + bottom, w + left + right, c)).padding
        operator = ConvOperator(
            layer.kernel,
            source[1:3],
            strides=layer.strides,
            padding=tuple(
                (low + before, high + after)
                for (low, high), (before, after) in zip(padding, step.zeros, strict=True)
            ),
            dilations=layer.dilations,
            groups=layer.groups,
            **how,
        )
    elif isinstance(layer, ConvTranspose):
        whole = layer.geometry(source).convolution
        # What a crop behind it takes off is padding of the convolution that it transposes.
        padding = tuple(
            (low, high + full - size)
            for (low, high), full, size in zip(
                whole.padding, whole.input_size, result[1:3], strict=True
            )
        )
        operator = ConvOperator(
            layer.kernel,
            result[1:3],
            strides=layer.strides,
            padding=padding,
            **how,
        ).T
    else:
        operator = _identity(source, settings)
    if settings.share and settings.xp is np and isinstance(layer, Conv | ConvTranspose):
        layer.kernel = operator.kernel
    epilogue = step.epilogue()

    if step.residual:

        def run(x: Array, residual: Array, out: Array) -> None:
            operator(x, residual=residual, out=out, **epilogue)

    else:

        def run(x: Array, out: Array) -> None:
            operator(x, out=out, **epilogue)

    return run


def _identity(shape: Shape, settings: Settings) -> ConvOperator:
    """Return the identity: what scales, shifts, adds and rectifies is the operator's epilogue."""
    ones = settings.xp.ones((1, 1, 1, shape[3]), np.float32)
    return ConvOperator(ones, shape[1:3], groups=shape[3], dtype=settings.half)


def _sum(shape: Shape, settings: Settings) -> Run:
    operator = _identity(shape, settings)

    def run(first: Array, *others: Array) -> None:
        *between, last, out = others
        for other in between:
            first = operator(first, residual=other)
        operator(first, residual=last, out=out)

    return run


def _pooling(step: Step, source: Shape) -> Run:
    geometry, outside = step.layer.geometry(source), -math.inf
    if step.zeros != NO_ZEROS:
        geometry = ConvGeometry(
            source[1:3], step.layer.window, strides=step.layer.strides, padding=step.zeros
        )
        outside = 0.0

    def run(x: Array, out: Array) -> None:
        blocks.max_pool(x, geometry, outside, out)

    return run


def _softmax(x: Array, out: Array) -> None:
    xp = namespace(x)
    direct = out.dtype == np.float32 and out.flags.c_contiguous
    result = out if direct else xp.empty(x.shape, np.float32)
    _copy(blocks.softmax(widened(x) if xp is np else x, result), out)


def _padding(layer: ZeroPadding) -> Run:
    (top, _), (left, _) = layer.padding

    def run(x: Array, out: Array) -> None:
        bits, source = _bits(out), _bits(x)
        bits[...] = 0
        bits[:, top : top + x.shape[1], left : left + x.shape[2]] = source

    return run


def _crop(x: Array, like: Array, out: Array) -> None:
    _bits(out)[...] = _bits(x)[:, : out.shape[1], : out.shape[2]]


def _copy(source: Array, target: Array) -> None:
    if source is not target:
        _bits(target)[...] = _bits(narrowed(source, target.dtype.name))


def _bits(array: Array) -> Array:
    """Return an array as integers, where copying needs to know no more of it."""
    return array.view(f"u{array.itemsize}")
