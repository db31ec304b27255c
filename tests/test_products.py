"""The laws of the products, on every backend: each against W and against the naive loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convarith import conv, conv_as_matmul, conv_kernel_gradient, conv_transpose
from convarith.testing import assert_adjoint, assert_close, kernels_and_inputs

integer_cases = kernels_and_inputs(dtypes=("int64", "int32", "uint8"))


@given(case=kernels_and_inputs())
def test_forward_equals_the_naive_loops(backend, case):
    assert_close(conv(case.x, case.kernel, **case.arguments, backend=backend), "forward", case)


@given(case=kernels_and_inputs())
def test_transpose_equals_the_naive_loops(backend, case):
    x = conv_transpose(
        case.y,
        case.kernel,
        **case.arguments,
        output_size=case.geometry.input_size if 0 not in case.geometry.output_size else None,
        backend=backend,
    )
    if 0 not in case.geometry.output_size:
        assert_close(x, "transpose", case)
    assert not x.any() or x.size
