"""`bilinear_kernel` and `upsample_bilinear`, against TensorFlow's half-pixel resizing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convarith import bilinear_kernel, conv_transpose, upsample_bilinear

shapes = st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))


def resized(x, factor):
    """TensorFlow's half-pixel bilinear resizing, the edge repeated."""
    import tensorflow as tf

    return tf.image.resize(x, (x.shape[1] * factor, x.shape[2] * factor), "bilinear").numpy()


def test_the_textbooks_kernel():
    """The figures of Dive into Deep Learning's bilinear_kernel, written out."""
    kernel = bilinear_kernel(3, 3, 4)
    assert kernel.shape == (4, 4, 3, 3) and kernel.dtype == np.float32
    row = np.array([0.25, 0.75, 0.75, 0.25])
    for c in range(3):
        for d in range(3):
            np.testing.assert_array_equal(
                kernel[:, :, c, d], np.outer(row, row) if c == d else np.zeros((4, 4))
            )


@pytest.mark.parametrize("size", range(1, 12))
def test_the_weights_by_their_definition(size):
    half = (size + 1) // 2
    row = [1 - abs(j - (size - 1) / 2) / half for j in range(size)]
    np.testing.assert_allclose(bilinear_kernel(1, 1, size)[:, :, 0, 0], np.outer(row, row), 1e-6)


@settings(max_examples=60)
@given(shape=shapes, factor=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_zero_border_is_the_transposed_convolution(backend, shape, factor, seed):
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    size = 2 * factor - factor % 2
    kernel = bilinear_kernel(shape[3], shape[3], size)
    plain = conv_transpose(x, kernel, strides=factor, padding=factor // 2, backend=backend)
    y = upsample_bilinear(x, factor, backend=backend)
    assert y.shape == (shape[0], factor * shape[1], factor * shape[2], shape[3])
    if backend == "cuda":  # one call looks for no structure there, and sums in another order
        np.testing.assert_allclose(y, plain, rtol=1e-6, atol=4e-6)
    else:
        np.testing.assert_array_equal(y, plain)


@settings(max_examples=60)
@given(shape=shapes, factor=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_against_tensorflow(backend, shape, factor, seed):
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    expected = resized(x, factor)
    edge = upsample_bilinear(x, factor, border="edge", backend=backend)
    np.testing.assert_allclose(edge, expected, rtol=1e-5, atol=1e-5)
    zero = upsample_bilinear(x, factor, backend=backend)
    inside = tuple(slice(factor // 2, n * factor - factor // 2) for n in shape[1:3])
    np.testing.assert_allclose(zero[:, *inside], expected[:, *inside], rtol=1e-5, atol=1e-5)


def test_zero_border_fades():
    y = upsample_bilinear(np.ones((4, 4), np.float32), 4)
    assert (y[0] < 1).all() and (y[2:-2, 2:-2] == 1).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int32", "complex64"])
def test_dtypes(backend, dtype):
    y = upsample_bilinear(np.full((3, 3), 2, dtype), 2, border="edge", backend=backend)
    expected = np.float16 if dtype == "float16" else np.result_type(dtype, np.float32)
    assert y.dtype == expected
    np.testing.assert_allclose(y.astype(complex), 2, rtol=2e-3)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_types_are_rounded_once(name):
    dtype = np.float16 if name == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    y = upsample_bilinear(np.full((3, 4), 100, dtype), 32, border="edge")
    assert y.dtype == dtype and (y == 100).all()


def test_empty():
    assert upsample_bilinear(np.zeros((0, 3, 4, 2)), 3, border="edge").shape == (0, 9, 12, 2)
    assert upsample_bilinear(np.zeros((1, 0, 4, 2)), 3).shape == (1, 0, 12, 2)
