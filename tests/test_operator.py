"""`ConvOperator`: its forms agree, its pairs are pairs, and SciPy's solvers run on it."""

import copy
import gc
import math
import pickle
import threading
import weakref

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings

from convarith import ConvOperator, bilinear_kernel, conv, conv_transpose
from convarith.testing import assert_adjoint, assert_close, kernels_and_inputs


def operator(case, backend="reference"):
    arguments = case.arguments
    return ConvOperator(case.kernel, case.geometry.input_size, **arguments, backend=backend)


@given(case=kernels_and_inputs())
def test_the_three_forms_agree(backend, case):
    op = operator(case, backend)
    assert op.geometry == case.geometry and op.shape == case.geometry.matrix_shape
    size = case.geometry.input_size
    y = conv(case.x, case.kernel, **case.arguments, backend=backend)
    x = conv_transpose(case.y, case.kernel, **case.arguments, output_size=size, backend=backend)
    if backend == "cuda":  # one call looks for no structure there, and sums in another order
        y, x = op(case.x), op.T(case.y)
        assert_close(y, "forward", case)
        assert_close(x, "transpose", case)
    np.testing.assert_array_equal(op(case.x), y)
    np.testing.assert_array_equal(op.T(case.y), x)
    A = op.as_linear_operator()
    n = len(case.x)
    columns = case.x.reshape(n, op.shape[1]).T
    np.testing.assert_array_equal(A @ columns, y.reshape(n, op.shape[0]).T)
    if n:
        np.testing.assert_array_equal(A @ columns[:, 0], y[0].ravel())
    if case.x.dtype.kind in "iu":
        np.testing.assert_array_equal(op.as_matmul() @ columns, y.reshape(n, op.shape[0]).T)
        W, rows = op.as_matmul().toarray(), slice(1, 4)
        np.testing.assert_array_equal(op.as_matmul(rows=rows).toarray(), W[rows])
        np.testing.assert_array_equal(op.T.as_matmul().toarray(), W.T)


@given(case=kernels_and_inputs(dtypes=("float32", "float64", "complex64", "complex128", "int32")))
def test_adjoint(backend, case):
    op = operator(case, backend)
    assert_adjoint(op, op.H, case.x.shape, case.y.shape, dtype=op.dtype)
    A = op.as_linear_operator()
    assert_adjoint(A.matvec, A.rmatvec, (op.shape[1],), (op.shape[0],), dtype=op.dtype)


@pytest.mark.parametrize("dtype", [float, complex])
def test_pairs(dtype):
    op = ConvOperator(np.arange(3, dtype=dtype), 9)
    transpose, adjoint = op.T, op.H
    assert op.T is transpose and op.T.T is op and transpose.T.T is transpose
    assert op.H is adjoint and op.H.H is op and adjoint.H.H is adjoint
    assert (op.H is op.T) == (dtype is float)
    assert transpose.shape == adjoint.shape == op.shape[::-1]


def test_a_compact_operator_copies_no_kernel_that_is_read_only():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 4, 5)).astype(np.float32)
    plain, compact = (ConvOperator(kernel, (7, 8), compact=compact) for compact in (False, True))
    x, y = np.ones((2, 7, 8, 4), np.float32), np.ones((2, 5, 6, 5), np.float32)
    for op in (compact, ConvOperator(plain.kernel, (7, 8), compact=True), copy.copy(compact)):
        np.testing.assert_array_equal(op(x), plain(x))
        np.testing.assert_array_equal(op.T(y), plain.T(y))
        np.testing.assert_array_equal(op.as_matmul().toarray(), plain.as_matmul().toarray())
    assert ConvOperator(compact.kernel, (9, 9), compact=True).kernel is compact.kernel
    view = kernel.view()
    view.flags.writeable = False  # what it is a view of is not
    foreign = np.frombuffer(kernel.tobytes(), np.float32).reshape(kernel.shape)
    swapped = plain.kernel.astype(">f4")
    swapped.flags.writeable = False
    for other in (kernel, view, foreign, swapped, plain.kernel[..., ::-1], plain.kernel[:, :, :2]):
        op = ConvOperator(other, (7, 8), compact=True)
        assert not np.shares_memory(op.kernel, other) and not op.kernel.flags.writeable
        np.testing.assert_array_equal(op.kernel, other)
    assert ConvOperator(plain.kernel, (7, 8)).kernel is not plain.kernel
    with pytest.raises(TypeError, match="^compact: expected a bool, got 1$"):
        ConvOperator(kernel, (7, 8), compact=1)


def test_transposing_makes_no_cycle():
    """An operator that goes out of use goes at once, packed kernels and all."""
    gc.disable()
    try:
        op = ConvOperator(np.ones(3, complex), 9)
        op.T(np.ones(7)), op.H(np.ones(7))
        gone = weakref.ref(op)
        del op
        assert gone() is None
    finally:
        gc.enable()


def test_t_is_not_h():
    kernel = np.array([1 + 2j, 3 - 1j])
    op = ConvOperator(kernel, 2)
    np.testing.assert_array_equal(op.T(np.ones(1)), kernel)
    np.testing.assert_array_equal(op.H(np.ones(1)), kernel.conj())
    np.testing.assert_array_equal(conv_transpose(np.ones(1), kernel), kernel)


def test_the_kernel_is_the_operators_own(backend):
    kernel = np.ones((3, 3))
    op = ConvOperator(kernel, (5, 5), backend=backend)
    kernel[...] = 0
    np.testing.assert_array_equal(op(np.ones((5, 5))), np.full((3, 3), 9.0))
    with pytest.raises(ValueError):
        op.kernel[0, 0] = 7


def test_with_kernel(backend):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 3, 3, 2, 4))
    op = ConvOperator(first, (6, 5), strides=2, padding="SAME", backend=backend)
    x = rng.standard_normal((2, 6, 5, 2))
    other = op.with_kernel(second)
    options = {"strides": 2, "padding": "SAME", "backend": backend}
    np.testing.assert_array_equal(other(x), conv(x, second, **options))
    np.testing.assert_array_equal(op(x), conv(x, first, **options))
    assert other.plan is op.plan
    assert op.T.with_kernel(second).shape == op.T.shape


def test_epilogue_and_out(backend):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 6, 5, 2)), rng.standard_normal((3, 3, 2, 4))
    op = ConvOperator(kernel, (6, 5), padding="SAME", backend=backend)
    parts = {
        "scale": rng.standard_normal(4),
        "bias": rng.standard_normal(4),
        "residual": rng.standard_normal((2, 6, 5, 4)),
        "activation": "relu6",
    }
    out = np.empty((2, 6, 5, 4))
    assert op(x, **parts, out=out) is out
    expected = conv(x, kernel, padding="SAME", backend=backend, **parts)
    np.testing.assert_array_equal(out, expected)


def test_the_plan_speaks(backend):
    assert "direct" in str(ConvOperator(np.ones(3), 9, backend=backend).plan)


def test_eight_threads_at_once(backend):
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((1, 20, 20, 3)), rng.standard_normal((3, 3, 3, 5))
    op = ConvOperator(kernel, (20, 20), backend=backend)
    y = conv(x, kernel, backend=backend)
    wrong = []

    def work():
        for _ in range(20):
            if not (op(x) == y).all() or op.T(y).shape != x.shape:
                wrong.append(threading.current_thread().name)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@settings(max_examples=100)
@given(case=kernels_and_inputs(dtypes=("float32", "int8", "complex64", "float64")))
def test_norm_of_small_operators(case):
    op = operator(case)
    W = op.as_matmul().toarray().astype(complex)
    expected = np.linalg.norm(W, 2) if W.size else 0.0
    assert math.isclose(op.norm(), expected, rel_tol=1e-6, abs_tol=1e-300)
    assert math.isclose(op.T.norm(), expected, rel_tol=1e-6, abs_tol=1e-300)


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_norm_of_large_operators(rtol):
    """The tridiagonal Toeplitz matrix's eigenvalues are known, and products of such are too."""
    second = np.array([1.0, -2.0, 1.0])
    exact = 2 + 2 * math.cos(math.pi / 5001)
    assert math.isclose(ConvOperator(second, 5000, padding=1).norm(rtol=rtol), exact, rel_tol=rtol)
    exact = math.prod(1 + 2 * math.cos(math.pi / (n + 1)) for n in (60, 90))
    op = ConvOperator(np.ones((3, 3), np.int8), (60, 90), padding=1)
    assert math.isclose(op.norm(rtol=rtol), exact, rel_tol=rtol)


def test_norm_of_a_strided_operator_with_channels():
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 4, 3, 5)) + 1j * rng.standard_normal((4, 4, 3, 5))
    op = ConvOperator(kernel, (24, 20), strides=2, padding="SAME")
    assert math.prod(op.shape) > 2**18, "large enough for the iteration"
    expected = np.linalg.norm(op.as_matmul().toarray(), 2)
    for form in (op, op.T, op.H):
        assert math.isclose(form.norm(), expected, rel_tol=1e-6)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("dtype", [float, complex])
def test_norm_of_far_magnitudes(scale, dtype):
    kernel = np.array([1.0, -2.0, 1.0], dtype) * scale * (1 if dtype is float else 0.6 + 0.8j)
    for size in (20, 700):
        exact = scale * (2 + 2 * math.cos(math.pi / (size + 1)))
        op = ConvOperator(kernel, size, padding=1)
        assert math.isclose(op.norm(), exact, rel_tol=1e-6)


def test_a_norm_beyond_the_largest_float_is_infinite():
    assert ConvOperator(np.array([1.7e308 * (1 + 1j)]), 3).norm() == math.inf


@pytest.mark.parametrize("size", [1, 2])
def test_norm_of_flat_operators(size):
    """One or two outputs of a large input: their Gram matrix has as many rows."""
    taps = 3000
    n = taps + size - 1
    for dtype in (float, complex):
        op = ConvOperator(np.ones(taps, dtype), n)
        gram = np.full((size, size), float(taps)) - np.abs(np.subtract.outer(*2 * (range(size),)))
        exact = math.sqrt(np.linalg.eigvalsh(gram)[-1])
        assert math.isclose(op.norm(), exact, rel_tol=1e-9)
        assert math.isclose(op.T.norm(), exact, rel_tol=1e-9)


def test_one_size_for_every_axis():
    op = ConvOperator(np.ones((3, 3)), 8)
    assert op.geometry.input_size == (8, 8)
    assert ConvOperator(np.ones((3, 3, 2, 1)), 8).geometry.input_size == (8, 8)


def test_pickles_and_copies(backend):
    rng = np.random.default_rng(0)
    op = ConvOperator(rng.standard_normal((3, 2, 4)), 9, strides=2, backend=backend)
    x, y = rng.standard_normal((1, 9, 2)), rng.standard_normal((1, 4, 4))
    for again in (pickle.loads(pickle.dumps(op)), copy.deepcopy(op), copy.deepcopy(op.T).T):
        np.testing.assert_array_equal(again(x), op(x))
        np.testing.assert_array_equal(again.T(y), op.T(y))


def test_a_linear_operators_adjoint_of_a_matrix():
    kernel = np.array([1 + 2j, 3 - 1j, 0.5j])
    op = ConvOperator(kernel, 6)
    A, W = op.as_linear_operator(), op.as_matmul().toarray()
    B = np.eye(4) + 1j
    np.testing.assert_allclose(A.H @ B, W.conj().T @ B)
    np.testing.assert_allclose(A.H @ B[:, 0], W.conj().T @ B[:, 0])
    np.testing.assert_allclose(A.T @ B, W.T @ B)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_lsqr_in_small_floats(dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    op = ConvOperator(np.array([1, 4, 1], dtype), 12, padding=1)
    A = op.as_linear_operator()
    assert A.dtype == np.float32
    x = np.arange(12.0)
    np.testing.assert_allclose(scipy.sparse.linalg.lsqr(A, A @ x)[0], x, atol=1e-3)
    (value,) = scipy.sparse.linalg.svds(A, k=1, return_singular_vectors=False)
    assert math.isclose(value, op.norm(), rel_tol=1e-4)


def photograph():
    from skimage import data

    return data.camera()[100:196, 180:276] / 255.0


def test_lsqr_deblurs_a_photograph(backend):
    image = photograph()
    t = np.arange(-4, 5)
    blur = np.exp(-(t[:, None] ** 2 + t**2) / 4.0)
    op = ConvOperator(blur / blur.sum(), image.shape, padding="SAME", backend=backend)
    blurred = op(image)
    solution = scipy.sparse.linalg.lsqr(op.as_linear_operator(), blurred.ravel(), iter_lim=200)[0]
    before, after = (
        np.sqrt(np.mean((x - image) ** 2)) for x in (blurred, solution.reshape(96, 96))
    )
    assert after < before / 3, (before, after)


def test_cg_and_svds_run_on_it(backend):
    op = ConvOperator(np.array([-1.0, 2.0, -1.0]), 50, padding=1, backend=backend)
    A, W = op.as_linear_operator(), op.as_matmul()
    b = np.sin(np.arange(50.0))
    x, info = scipy.sparse.linalg.cg(A, b, rtol=1e-10)
    assert info == 0
    np.testing.assert_allclose(W @ x, b, atol=1e-8)
    values = scipy.sparse.linalg.svds(A, k=3, return_singular_vectors=False)
    np.testing.assert_allclose(
        np.sort(values), np.sort(np.linalg.svd(W.toarray())[1])[-3:], rtol=1e-8
    )


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_results_in_a_half_type(name):
    """Those of the kernel rounded to it, and of its structure before that."""
    half = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name, name))
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 4, 5)).astype(np.float32)
    op = ConvOperator(kernel, (7, 9), padding="SAME", dtype=half)
    x = rng.normal(size=(2, 7, 9, 4)).astype(half)
    y = op(x)
    assert op.dtype == op.T.dtype == y.dtype == half and op.kernel.dtype == np.float32
    exact = conv(x.astype(np.float64), kernel.astype(np.float64), padding="SAME")
    eps = 2.0**-10 if name == "float16" else 2.0**-7
    size = conv(np.abs(x.astype(np.float64)), np.abs(kernel.astype(np.float64)), padding="SAME")
    assert (np.abs(y.astype(np.float64) - exact) <= eps * size).all()
    wide = rng.normal(size=x.shape).astype(np.float32)
    np.testing.assert_array_equal(op(wide).view(np.uint16), op(wide.astype(half)).view(np.uint16))
    back = op.T(y, bias=np.ones(4, np.float32))
    assert back.dtype == half and back.shape == x.shape
    again = pickle.loads(pickle.dumps(op))
    np.testing.assert_array_equal(again(x).view(np.uint16), y.view(np.uint16))
    weights = bilinear_kernel(3, 3, 64)
    up = ConvOperator(weights, (320, 480), strides=32, padding=16, dtype=half).T
    assert "rows times columns" in str(up.plan)


def test_half_types_that_cannot_be_had():
    kernel = np.ones((3, 3), np.float32)
    for dtype in ("float32", "int8", np.float64):
        with pytest.raises(TypeError, match="^dtype: expected float16 or bfloat16, got"):
            ConvOperator(kernel, (4, 4), dtype=dtype)
    with pytest.raises(TypeError, match="^dtype: expected float16 or bfloat16, got 'no dtype'"):
        ConvOperator(kernel, (4, 4), dtype="no dtype")
    with pytest.raises(TypeError, match="^kernel: expected float32 for .* float16, got float64"):
        ConvOperator(kernel.astype(np.float64), (4, 4), dtype="float16")
    op = ConvOperator(kernel.astype(">f4"), (4, 4), dtype=">f2")
    assert op.dtype == op(np.ones((4, 4))).dtype == np.dtype("=f2")
    with pytest.raises(TypeError, match="^x: expected real numbers for results in float16"):
        op(np.ones((4, 4), complex))
    with pytest.raises(TypeError, match="^kernel: expected float32 for .* got int8"):
        op.with_kernel(kernel.astype(np.int8))
    assert op.as_matmul().dtype == op.T.as_matmul().dtype == np.float32
