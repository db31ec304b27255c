"""``activation(scale*(W x) + bias + residual)``, on every backend."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convarith import conv, conv_transpose
from convarith.testing import kernels_and_inputs, random_array


@given(
    case=kernels_and_inputs(dtypes=("float32", "float64", "int32", "uint8", "float16")),
    parts=st.sets(st.sampled_from(["scale", "bias", "residual"])),
    activation=st.sampled_from([None, "relu", "relu6"]),
    transposed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_epilogue_is_what_it_says(backend, case, parts, activation, transposed, seed):
    rng = np.random.default_rng(seed)
    result = case.x if transposed else case.y
    shapes = {
        "scale": result.shape[-1:],
        "bias": result.shape[-1:],
        "residual": result.shape,
    }
    given_parts = {name: random_array(rng, shapes[name], case.x.dtype) for name in sorted(parts)}
    options = {**case.arguments, "backend": backend}
    if transposed:
        options["output_size"] = case.geometry.input_size
    operand, product = (case.y, conv_transpose) if transposed else (case.x, conv)
    # Half types are computed in float32; elsewhere the operands' dtype is the one computed in.
    wide = np.float32 if case.x.dtype == np.float16 else case.x.dtype
    expected = product(operand.astype(wide), case.kernel.astype(wide), **options)
    with np.errstate(over="ignore"):
        if "scale" in parts:
            expected = expected * given_parts["scale"].astype(wide)
        for name in ("bias", "residual"):
            if name in parts:
                expected = expected + given_parts[name].astype(wide)
        if activation is not None:
            expected = np.maximum(expected, 0)
        if activation == "relu6":
            expected = np.minimum(expected, 6)
        expected = expected.astype(case.x.dtype)
    actual = product(operand, case.kernel, **options, **given_parts, activation=activation)
    assert actual.dtype == expected.dtype
    if actual.dtype.kind in "iu":
        np.testing.assert_array_equal(actual, expected)
    else:
        eps = np.finfo(actual.dtype).eps
        np.testing.assert_allclose(actual, expected, rtol=4 * eps, atol=64 * eps)


def test_nan_passes_an_activation(backend):
    x = np.array([np.nan, -1.0, 9.0])
    relu = conv(x, np.ones(1), activation="relu", backend=backend)
    relu6 = conv(x, np.ones(1), activation="relu6", backend=backend)
    np.testing.assert_array_equal(relu, [np.nan, 0, 9])
    np.testing.assert_array_equal(relu6, [np.nan, 0, 6])


def test_the_residual_may_be_the_output(backend):
    x, kernel = np.arange(12.0).reshape(1, 12, 1), np.ones((3, 1, 1))
    out = np.full((1, 12, 1), 100.0)
    expected = conv(x, kernel, padding="SAME", backend=backend) + 100
    conv(x, kernel, padding="SAME", residual=out, out=out, backend=backend)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("size", [0, 1])
def test_an_empty_sum_is_the_bias(backend, size):
    """Where no window fits and where the input is empty, the product is 0 and the rest stays."""
    y = np.zeros((2, 0, 3))
    x = conv_transpose(
        y, np.ones((3, 4, 3)), output_size=size, bias=np.arange(4.0), backend=backend
    )
    np.testing.assert_array_equal(x, np.broadcast_to(np.arange(4.0), (2, size, 4)))
