"""Infinities and NaN: they go where the matrix takes them, and no farther."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convarith import ConvGeometry, conv, conv_as_matmul, conv_kernel_gradient, conv_transpose
from convarith.testing import (
    Guarded,
    quick,
    random_array,
    structured_kernel,
    tile_geometries,
    window,
)


def kinds(array):
    """Return what can be compared of non-finite numbers: which kind each one is."""
    return np.select([np.isnan(array), np.isposinf(array), np.isneginf(array)], [1, 2, 3])


def place(array, rng, values):
    """Put values at random places."""
    for value in values if array.size else ():
        array.flat[rng.integers(array.size)] = value


@pytest.mark.parametrize("product", ["forward", "transpose"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@settings(max_examples=80)
@given(
    geometry=tile_geometries(max_products=30_000),
    structure=st.sampled_from(["random", "constant", "sparse", "diagonal", "bilinear"]),
    of_kernel=st.lists(st.sampled_from([np.inf, -np.inf, np.nan]), max_size=2),
    of_source=st.lists(st.sampled_from([np.inf, -np.inf, np.nan]), max_size=2),
    seed=st.integers(0, 2**32 - 1),
)
def test_non_finite_values_go_where_the_matrix_takes_them(
    backend, product, dtype, geometry, structure, of_kernel, of_source, seed
):
    """A tap in the padding brings nothing; Inf*0 is NaN, or nothing where a zero is skipped."""
    rng = np.random.default_rng(seed)
    kernel = structured_kernel(rng, geometry, dtype, structure)
    shape = geometry.input_shape if product == "forward" else geometry.output_shape
    source = random_array(rng, (1, *shape), dtype)
    place(kernel, rng, of_kernel)
    place(source, rng, of_source)
    options = window(geometry) | {"algorithm": "direct", "backend": backend}
    if product == "forward":
        actual = conv(Guarded(source).array, Guarded(kernel).array, **options)
    else:
        options["output_size"] = geometry.input_size
        actual = conv_transpose(Guarded(source).array, Guarded(kernel).array, **options)
    W = conv_as_matmul(kernel.astype(float), geometry.input_shape, **window(geometry))
    W = W if product == "forward" else W.T.tocsr()
    with np.errstate(invalid="ignore"):
        every = W @ source.astype(float).ravel()
        W.eliminate_zeros()
        without_zeros = W @ source.astype(float).ravel()
    found = kinds(actual.ravel())
    assert ((found == kinds(every)) | (found == kinds(without_zeros))).all()


@settings(max_examples=150)
@given(
    geometry=tile_geometries(max_products=30_000),
    of_x=st.lists(st.sampled_from([np.inf, -np.inf, np.nan]), max_size=2),
    of_g=st.lists(st.sampled_from([np.inf, -np.inf, np.nan]), max_size=2),
    seed=st.integers(0, 2**32 - 1),
)
def test_non_finite_values_in_a_kernel_gradient(backend, geometry, of_x, of_g, seed):
    rng = np.random.default_rng(seed)
    x = random_array(rng, (2, *geometry.input_shape), "float64")
    g = random_array(rng, (2, *geometry.output_shape), "float64")
    place(x, rng, of_x)
    place(g, rng, of_g)
    size, options = geometry.kernel_size, window(geometry) | {"backend": backend}
    actual = conv_kernel_gradient(Guarded(x).array, Guarded(g).array, size, **options)
    expected = quick("kernel_gradient", geometry, x, g)
    np.testing.assert_array_equal(kinds(actual), kinds(expected))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("product", ["forward", "transpose"])
def test_an_infinite_weight_in_the_padding_brings_nothing(backend, product, value):
    """Only the kernel's corner is not finite, and only one window has it inside."""
    kernel = np.ones((3, 3, 16, 16), np.float32)
    kernel[0, 0] = value
    x = np.ones((1, 2, 30, 16), np.float32)
    if product == "forward":
        y = conv(x, kernel, padding=1, algorithm="direct", backend=backend)
        assert np.isfinite(y[:, 0]).all() and np.isfinite(y[:, :, 0]).all()
        assert not np.isfinite(y[:, 1, 1:]).any()
    else:
        y = conv_transpose(x, kernel, padding=1, algorithm="direct", backend=backend)
        assert np.isfinite(y[:, 1]).all() and np.isfinite(y[:, :, -1]).all()
        assert not np.isfinite(y[:, 0, :-1]).any()


def test_parts_that_are_not_finite(backend):
    """Their sums warn of nothing, as all others."""
    geometry = ConvGeometry((520, 510), 3, padding=1)  # cut into several
    x = np.ones((1, *geometry.input_shape), np.float32)
    g = np.ones((1, *geometry.output_shape), np.float32)
    for first, last in ((np.inf, -np.inf), (3e38, 3e38)):
        x[0, 5, 5], x[0, 500, 5] = first, last
        result = conv_kernel_gradient(x, g, 3, padding=1, backend=backend)
        assert not np.isfinite(result).any()
