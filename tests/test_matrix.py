"""W itself: its entries, its form, its row slices, and what it costs to make."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from convarith import ConvGeometry, ConvOperator, conv_as_matmul
from convarith.testing import geometries, kernels_and_inputs, naive


@given(case=kernels_and_inputs(dtypes=("int64",), max_batch=0))
def test_every_entry(case):
    """Column j of W is the convolution of the j-th unit vector, by the naive loops."""
    W = conv_as_matmul(case.kernel, case.geometry.input_shape, **case.arguments)
    units = np.eye(W.shape[1], dtype=np.int64).reshape(W.shape[1], *case.geometry.input_shape)
    columns = naive("forward", case.geometry, units, case.kernel)
    np.testing.assert_array_equal(W.toarray(), columns.reshape(W.shape[::-1]).T)


@given(geometry=geometries(), dtype=st.sampled_from(["float32", "float64", "int8", "complex64"]))
def test_form(geometry, dtype):
    kernel = np.ones(geometry.kernel_shape, dtype)
    W = ConvOperator(
        kernel,
        geometry.input_size,
        strides=geometry.strides,
        dilations=geometry.dilations,
        padding=geometry.padding,
        groups=geometry.groups,
    ).as_matmul()
    assert isinstance(W, scipy.sparse.csr_array)
    assert W.shape == geometry.matrix_shape
    assert W.dtype == dtype
    assert W.indices.dtype == W.indptr.dtype == np.int32
    assert W.nnz == len(W.data) == geometry.nnz
    assert (W.data != 0).all()
    W.check_format(full_check=True)
    for row in range(W.shape[0]):
        columns = W.indices[W.indptr[row] : W.indptr[row + 1]]
        assert (np.diff(columns) > 0).all(), "sorted, no duplicates"
    stored = W.data.nbytes + W.indices.nbytes + W.indptr.nbytes
    assert geometry.matrix_nbytes(W.dtype.itemsize) == stored


def test_stored_zeros_are_the_kernels():
    W = conv_as_matmul(np.array([[1, 0], [0, 2]]), (3, 3), padding=1)
    assert W.nnz == ConvGeometry((3, 3), 2, padding=1).nnz
    assert np.count_nonzero(W.data == 0) == 2 * 9  # each zero of the kernel meets every input


@given(case=kernels_and_inputs(dtypes=("int32",), max_batch=0), data=st.data())
def test_row_slices(case, data):
    W = conv_as_matmul(case.kernel, case.geometry.input_shape, **case.arguments)
    bound = st.none() | st.integers(-W.shape[0] - 2, W.shape[0] + 2)
    rows = slice(data.draw(bound), data.draw(bound))
    part = conv_as_matmul(case.kernel, case.geometry.input_shape, **case.arguments, rows=rows)
    expected = W[rows]
    assert part.shape == expected.shape
    np.testing.assert_array_equal(part.toarray(), expected.toarray())


def test_a_slice_of_a_matrix_that_would_not_fit():
    kernel = np.arange(1, 10).reshape(3, 3)
    size = (10**6, 10**6)
    with pytest.raises(ValueError, match=r"W of shape .* bytes.*ConvOperator"):
        conv_as_matmul(kernel, size, padding=1)
    part = conv_as_matmul(kernel, size, padding=1, rows=slice(10**6 + 5, 10**6 + 7))
    assert part.shape == (2, 10**12) and part.indices.dtype == np.int64
    np.testing.assert_array_equal(part.data, np.tile(kernel.ravel(), 2))
    first = [row * 10**6 + column for row in range(3) for column in range(4, 7)]
    np.testing.assert_array_equal(part.indices, first + [i + 1 for i in first])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_become_float32(dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    kernel = np.array([1.5, -2.25], dtype)
    W = conv_as_matmul(kernel, 3)
    assert W.dtype == np.float32
    np.testing.assert_array_equal(W.toarray(), [[1.5, -2.25, 0], [0, 1.5, -2.25]])


def test_values_are_copied_as_they_are():
    """The sign of a zero, a NaN: nothing is added to them on the way."""
    W = conv_as_matmul(np.array([-0.0, np.nan, 1.0]), 500, padding="SAME")
    assert np.signbit(W.data[W.data == 0]).all() and np.isnan(W.data).sum() == 500


def test_scipy_need_not_look_again():
    W = conv_as_matmul(np.ones((3, 3)), (5, 5))
    assert W.__dict__.get("_has_canonical_format") is True
    assert W.has_sorted_indices


def test_another_byte_order():
    kernel = np.arange(6.0).reshape(3, 2)
    swapped = kernel.astype(kernel.dtype.newbyteorder())
    W = conv_as_matmul(swapped, (4, 4))
    assert W.dtype == np.float64 and W.dtype.isnative
    np.testing.assert_array_equal(W.toarray(), conv_as_matmul(kernel, (4, 4)).toarray())
    assert ConvOperator(swapped, (4, 4)).dtype.isnative


def test_max_bytes():
    kernel = np.ones((3, 3))
    size = ConvGeometry((64, 64), 3).matrix_nbytes(8)
    assert conv_as_matmul(kernel, (64, 64), max_bytes=size).shape == (62 * 62, 64 * 64)
    with pytest.raises(ValueError, match=f"{size} bytes, more than the {size - 1} allowed"):
        conv_as_matmul(kernel, (64, 64), max_bytes=size - 1)


@pytest.mark.parametrize(
    "geometry",
    [
        ConvGeometry((320, 480), 3, padding="SAME"),
        ConvGeometry((32, 32), 3, padding="SAME", in_channels=16, out_channels=16),
        ConvGeometry(1_000_000, 3),
        ConvGeometry((512, 512), 1),
    ],
    ids=["image", "channels", "signal", "pointwise"],
)
def test_the_peak_is_little_more_than_the_matrix(geometry):
    kernel = np.ones(geometry.kernel_shape, np.float32)
    shape = geometry.input_shape
    tracemalloc.start()
    try:
        W = conv_as_matmul(kernel, shape, padding=geometry.padding)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 1.3 * geometry.matrix_nbytes(4), f"{peak} bytes for {W.nnz} entries"
