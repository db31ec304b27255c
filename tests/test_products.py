"""The laws of the three products, on every backend: naive loops, W, adjointness, determinism."""

import numpy as np
import pytest
from hypothesis import given

from convarith import backends, conv, conv_as_matmul, conv_kernel_gradient, conv_transpose
from convarith.testing import (
    assert_adjoint,
    assert_close,
    geometries,
    kernels_and_inputs,
    random_array,
    window,
)

INTEGERS = ("int8", "uint8", "int32", "int64")


def forward(case, backend, **more):
    return conv(case.x, case.kernel, **case.arguments, backend=backend, **more)


def transpose(case, backend, **more):
    size = case.geometry.input_size
    return conv_transpose(
        case.y, case.kernel, **case.arguments, output_size=size, backend=backend, **more
    )


def kernel_gradient(case, backend, **more):
    size = case.geometry.kernel_size
    return conv_kernel_gradient(case.x, case.y, size, **case.arguments, backend=backend, **more)


PRODUCTS = {"forward": forward, "transpose": transpose, "kernel_gradient": kernel_gradient}
every_product = pytest.mark.parametrize("product", PRODUCTS)


@every_product
@given(case=kernels_and_inputs())
def test_naive_loops(backend, product, case):
    assert_close(PRODUCTS[product](case, backend), product, case)


@given(case=kernels_and_inputs(dtypes=INTEGERS))
def test_matrix(backend, case):
    W = conv_as_matmul(case.kernel, case.geometry.input_shape, **case.arguments)
    n = len(case.x)
    y = W @ case.x.reshape(n, W.shape[1]).T
    x = W.T @ case.y.reshape(n, W.shape[0]).T
    np.testing.assert_array_equal(forward(case, backend), y.T.reshape(case.y.shape))
    np.testing.assert_array_equal(transpose(case, backend), x.T.reshape(case.x.shape))


@given(case=kernels_and_inputs())
def test_adjoint(backend, case):
    def adjoint(y):
        conjugate = np.conj(case.kernel)
        return conv_transpose(
            y, conjugate, **case.arguments, output_size=case.geometry.input_size, backend=backend
        )

    assert_adjoint(
        lambda x: conv(x, case.kernel, **case.arguments, backend=backend),
        adjoint,
        case.x.shape,
        case.y.shape,
        dtype=case.x.dtype,
        # What half a ulp of every entry comes to; the sums are float32.
        rtol=4e-3 if case.x.dtype == np.float16 else None,
    )


@given(case=kernels_and_inputs(dtypes=INTEGERS))
def test_kernel_gradient_is_the_derivative(backend, case):
    """``<g, W(k) x> == <k', k>``: the product is bilinear, so this is the whole definition."""
    gradient = kernel_gradient(case, backend)
    left = (forward(case, backend) * case.y).sum(dtype=case.x.dtype)
    right = (gradient * case.kernel).sum(dtype=case.x.dtype)
    assert left == right


@every_product
@given(case=kernels_and_inputs(layouts=("F", "sparse", "reversed")))
def test_memory_layout_changes_no_bit(backend, product, case):
    plain = type(case)(
        case.geometry, *(np.ascontiguousarray(a) for a in (case.x, case.kernel, case.y))
    )
    before = [a.copy() for a in (case.x, case.kernel, case.y)]
    here, there = PRODUCTS[product](case, backend), PRODUCTS[product](plain, backend)
    np.testing.assert_array_equal(here, there)
    for array, copy in zip((case.x, case.kernel, case.y), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("product", ["forward", "transpose"])
@given(case=kernels_and_inputs(dtypes=("float32", "float64", "float16", "complex64")))
def test_batch_and_group_change_no_bit(backend, product, case):
    """Each entry of the batch, and each group, is computed as if it were alone."""
    whole = PRODUCTS[product](case, backend)
    geometry = case.geometry
    arguments = {**case.arguments, "groups": 1}
    for n in range(len(case.x)):
        for group in range(geometry.groups):
            ins, outs = (
                slice(group * width, (group + 1) * width)
                for width in (
                    geometry.in_channels // geometry.groups,
                    geometry.out_channels // geometry.groups,
                )
            )
            kernel = case.kernel[..., outs]
            if product == "forward":
                alone = conv(case.x[n : n + 1, ..., ins], kernel, **arguments, backend=backend)
                np.testing.assert_array_equal(alone[0], whole[n, ..., outs])
            else:
                y, size = case.y[n : n + 1, ..., outs], geometry.input_size
                alone = conv_transpose(y, kernel, **arguments, output_size=size, backend=backend)
                np.testing.assert_array_equal(alone[0], whole[n, ..., ins])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_tiles_and_wholes_agree_bit_for_bit(backend, dtype):
    rng = np.random.default_rng(0)
    x, kernel = random_array(rng, (1, 23, 31, 5), dtype), random_array(rng, (3, 4, 5, 7), dtype)
    whole = conv(x, kernel, strides=(2, 1), backend=backend)
    for rows, columns in [(slice(2, 5), slice(0, 1)), (slice(0, 11), slice(20, 28))]:
        halo = x[:, rows.start * 2 : (rows.stop - 1) * 2 + 3, columns.start : columns.stop + 3]
        tile = conv(halo, kernel, strides=(2, 1), backend=backend)
        np.testing.assert_array_equal(tile, whole[:, rows, columns])


@every_product
@given(case=kernels_and_inputs(dtypes=("float32", "int32", "float16")))
def test_out_receives_the_result(backend, product, case):
    expected = PRODUCTS[product](case, backend)
    guarded = np.full(tuple(n + 2 for n in expected.shape), 77, expected.dtype)
    out = guarded[(slice(1, -1),) * expected.ndim]
    assert PRODUCTS[product](case, backend, out=out) is out
    np.testing.assert_array_equal(out, expected)
    out[...] = 77
    assert (guarded == 77).all(), "something was written outside of out"


@given(case=kernels_and_inputs(dtypes=("float32",)))
def test_kernel_gradients_of_the_reference_sum_in_float64(case):
    gradient = kernel_gradient(case, "reference")
    assert_close(gradient, "kernel_gradient", case, constant=2)


class WritesEarly:
    """A backend whose kernels write `out` before they have read anything, as fast ones may."""

    def __init__(self, inner):
        self.inner = inner
        self.pack, self.nbytes = inner.pack, inner.nbytes

    def specialised(self, operand, *, reused):
        return self

    def run(self, source, packed, out, epilogue):
        if out is not None:
            out[...] = 123
        return self.inner.run(source, packed, out, epilogue)


@pytest.mark.parametrize("shared", ["x", "kernel", "bias", "residual"])
def test_out_may_overlap_anything(monkeypatch, shared):
    """Whatever a backend does with `out`, the result is as if it lay elsewhere."""
    plan = backends.plan
    memory = np.arange(1.0, 100.0)
    arrays = {
        "x": memory[:12].reshape(1, 6, 2),
        "kernel": memory[20:24].reshape(1, 2, 2),
        "bias": memory[30:32],
        "residual": memory[40:52].reshape(1, 6, 2),
    }
    expected = conv(**arrays)
    monkeypatch.setattr(backends, "plan", lambda *arguments: WritesEarly(plan(*arguments)))
    start = arrays[shared].__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    out = memory[start // 8 : start // 8 + 12].reshape(1, 6, 2)
    apart = np.empty((1, 6, 2))
    np.testing.assert_array_equal(conv(**arrays, out=apart), expected)
    assert conv(**arrays, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_out_may_be_an_operand(backend):
    x = np.arange(20.0).reshape(1, 5, 4, 1)
    kernel = np.arange(9.0).reshape(3, 3, 1, 1)
    expected = conv(x, kernel, padding="SAME", backend=backend)
    assert conv(x, kernel, padding="SAME", out=x, backend=backend) is x
    np.testing.assert_array_equal(x, expected)


@given(geometry=geometries())
def test_non_finite_values(backend, geometry):
    """A tap in the padding contributes nothing, even an infinite one, as in W."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, *geometry.input_shape))
    kernel = rng.standard_normal(geometry.kernel_shape)
    kernel.flat[0], kernel.flat[-1] = np.inf, np.nan
    arguments = window(geometry)
    W = conv_as_matmul(kernel, geometry.input_shape, **arguments)
    y = conv(x, kernel, **arguments, backend=backend).ravel()
    expected = W @ x.ravel()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(np.isposinf(y), np.isposinf(expected))
    np.testing.assert_array_equal(np.isneginf(y), np.isneginf(expected))


def test_bare_arrays_are_one_channel(backend):
    rng = np.random.default_rng(0)
    for shape, size in [((9,), (4,)), ((9, 8), (4, 3))]:
        x, kernel = rng.standard_normal(shape), rng.standard_normal(size)
        full_x, full_kernel = x[None, ..., None], kernel[..., None, None]
        options = {"strides": 2, "padding": 1, "backend": backend}
        y = conv(x, kernel, **options)
        full_y = conv(full_x, full_kernel, **options)
        np.testing.assert_array_equal(y, full_y[0, ..., 0])
        np.testing.assert_array_equal(
            conv_transpose(y, kernel, **options),
            conv_transpose(full_y, full_kernel, **options)[0, ..., 0],
        )
        np.testing.assert_array_equal(
            conv_kernel_gradient(x, y, size, **options),
            conv_kernel_gradient(full_x, full_y, size, **options)[..., 0, 0],
        )
        out = np.empty(y.shape)
        assert conv(x, kernel, **options, out=out) is out
        np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("pair", [("float32", "float64"), ("int8", "float32"), ("int32", "uint8")])
def test_dtypes_promote_as_numpy_promotes_them(backend, pair):
    rng = np.random.default_rng(0)
    x, kernel = random_array(rng, (1, 5, 2), pair[0]), random_array(rng, (3, 2, 3), pair[1])
    y = conv(x, kernel, backend=backend)
    dtype = np.result_type(*pair)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, conv(x.astype(dtype), kernel.astype(dtype), backend=backend))


@every_product
def test_bfloat16(backend, product):
    ml_dtypes = pytest.importorskip("ml_dtypes")

    @given(case=kernels_and_inputs(dtypes=[ml_dtypes.bfloat16]))
    def check(case):
        assert_close(PRODUCTS[product](case, backend), product, case)

    check()


@pytest.mark.parametrize("axes", [4, 5])
def test_any_number_of_axes(axes):
    """More than three spatial axes are the reference's own."""
    rng = np.random.default_rng(0)
    x, kernel = rng.integers(-9, 9, (1, *(3,) * axes, 2)), rng.integers(-9, 9, (*(2,) * axes, 2, 1))
    W = conv_as_matmul(kernel, x.shape[1:], padding="SAME")
    y = conv(x, kernel, padding="SAME", backend="reference")
    np.testing.assert_array_equal(W @ x.ravel(), y.ravel())
