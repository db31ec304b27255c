"""JAX on the GPU: `lax.conv_general_dilated` and what it is linear in, compiled by XLA."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any

# Read at import: otherwise it takes three quarters of the memory for itself.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import cupy
import jax
import jax.numpy as jnp
from gpu.clocks import Clock, HostClock
from gpu.trials import Trial
from jax import lax
from problem import PRODUCTS, Problem, channelwise

from convarith import ConvGeometry
from peers import Spelling, Spellings

#: So many programs are compiled at a time.
COMPILERS = 8

_precision = lax.Precision.HIGHEST


def use(precision: str) -> None:
    """Multiply float32 as it is; DEFAULT is TF32 on GPUs that have it.

    `lax.Precision.HIGHEST` is what keeps XLA from TF32; of half types nothing depends on it.
    """
    global _precision
    _precision = lax.Precision.HIGHEST if precision == "float32" else lax.Precision.DEFAULT


def clock() -> Clock:
    """Return a clock by the host's time: XLA has streams of its own, which events do not reach."""
    return HostClock(lambda result: result.block_until_ready())


def tensor(array: Any) -> jax.Array:
    """Return JAX's array on the same memory; of bfloat16, which goes as bits, a copy."""
    if array.dtype.name == "bfloat16":
        return lax.bitcast_convert_type(jnp.from_dlpack(array.view("i2")), jnp.bfloat16)
    return jnp.from_dlpack(array)


def spellings(problem: Problem) -> Spellings:
    """Return the compiled product, on NHWC and HWIO."""
    operands = {
        "forward": (problem.x, problem.kernel),
        "transpose": (problem.y, problem.kernel),
        "kernel_gradient": (problem.x, problem.y),
    }[problem.product]
    run = _compiled(
        problem.product, problem.geometry, len(problem.x), problem.x.dtype.name, _precision
    )
    return {"jit": Spelling(partial(run, *map(tensor, operands)), _array)}


def compile_ahead(trials: Sequence[Trial]) -> None:
    """Compile what the trials need, several at a time: one by one it takes most of a run.

    Programs are compiled, and the algorithms in them chosen, but not run. What fails will be met
    again, and told, in the trial itself.
    """
    if jax.default_backend() == "cpu":  # a build without CUDA, as every trial will say
        return
    needs = []
    for trial in trials:
        case = trial.case
        geometries = [case.geometry] + [channelwise(case.geometry)] * case.bilinear
        use(trial.precision)
        needs += [
            (PRODUCTS[case.group], geometry, case.batch, case.dtype, _precision)
            for geometry in geometries
        ]
    with ThreadPoolExecutor(COMPILERS) as pool:
        wait([pool.submit(_compiled, *need) for need in needs])


@functools.cache
def _compiled(
    product: str, g: ConvGeometry, batch: int, dtype: str, precision: lax.Precision
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return a product's program, one for all copies of a problem.

    The transpose and the kernel gradient are `jax.linear_transpose` of the convolution, in `x`
    and in the kernel: what JAX's own gradients, and `lax.conv_transpose` with
    ``transpose_kernel=True``, make of it.
    """
    x, y, kernel = (
        jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
        for shape in ((batch, *g.input_shape), (batch, *g.output_shape), g.kernel_shape)
    )

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            g.strides,
            g.padding,
            rhs_dilation=g.dilations,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=g.groups,
            precision=precision,
        )

    def transpose(y: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: conv(x, kernel), x)(y)[0]

    def gradient(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: conv(x, kernel), kernel)(y)[0]

    function, operands = {
        "forward": (conv, (x, kernel)),
        "transpose": (transpose, (y, kernel)),
        "kernel_gradient": (gradient, (x, y)),
    }[product]
    return jax.jit(function).lower(*operands).compile()


def _array(result: jax.Array) -> Any:
    return cupy.from_dlpack(result.astype(jnp.float32).block_until_ready())
