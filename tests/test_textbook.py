"""The textbook's example, to the digit (Dive into Deep Learning, transposed convolution)."""

import numpy as np

from convarith import ConvOperator, conv, conv_as_matmul, conv_transpose

X = np.arange(1.0, 17.0).reshape(4, 4)
K = np.arange(1.0, 10.0).reshape(3, 3)
W = np.array(
    [
        [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0],
        [0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0],
        [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9],
    ]
)


def test_the_convolution(backend):
    np.testing.assert_array_equal(conv(X, K, backend=backend), [[348, 393], [528, 573]])


def test_the_matrix():
    matrix = conv_as_matmul(K, (4, 4))
    assert matrix.shape == (4, 16)
    np.testing.assert_array_equal(matrix.toarray(), W)
    np.testing.assert_array_equal(matrix @ X.ravel(), [348, 393, 528, 573])
    np.testing.assert_array_equal(ConvOperator(K, (4, 4)).as_matmul().toarray(), W)


def test_the_transposed_convolution(backend):
    y = np.array([[0.0, 1.0], [2.0, 3.0]])
    np.testing.assert_array_equal(
        conv_transpose(y, K, backend=backend), (W.T @ y.ravel()).reshape(4, 4)
    )


def test_the_shapes(backend):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((1, 64, 64, 3)), rng.standard_normal((4, 4, 3, 10))
    y = conv(x, kernel, strides=2, padding="SAME", backend=backend)
    assert y.shape == (1, 32, 32, 10)
    back = conv_transpose(y, kernel, strides=2, padding="SAME", backend=backend)
    assert back.shape == (1, 64, 64, 3)
