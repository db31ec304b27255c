"""CuPy's arrays in and out: on one device, in any layout, queued and never waited for."""

import copy
import math
import pickle

import numpy as np
import pytest

from convarith import (
    ConvOperator,
    conv,
    conv_as_matmul,
    conv_kernel_gradient,
    conv_transpose,
    upsample_bilinear,
)
from convarith.testing import small_integers

pytestmark = pytest.mark.cuda

rng = np.random.default_rng(0)
# Whole numbers, whose sums are exact in any order.
X, KERNEL = small_integers(rng, (2, 6, 5, 2), "float32"), small_integers(rng, (3, 3, 2, 4), "f4")
Y = small_integers(rng, (2, 4, 3, 4), "float32")
EPILOGUE = {
    "scale": small_integers(rng, (4,), "float32"),
    "bias": small_integers(rng, (4,), "float32"),
    "residual": small_integers(rng, (2, 4, 3, 4), "float32"),
}


@pytest.fixture(scope="module")
def cupy():
    return pytest.importorskip("cupy")


@pytest.fixture
def two_devices(cupy):
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two CUDA devices")


def calls(take):
    """Every way to compute with arrays, each taken from NumPy's by `take`."""
    x, kernel, y = map(take, (X, KERNEL, Y))
    op = ConvOperator(kernel, (6, 5))
    parts = {name: take(part) for name, part in EPILOGUE.items()}
    return {
        "conv": conv(x, kernel),
        "conv with an epilogue": conv(x, kernel, **parts, activation="relu6"),
        "conv_transpose": conv_transpose(y, kernel),
        "conv_kernel_gradient": conv_kernel_gradient(x, y, 3),
        "bare": conv(x[0, :, :, 0], kernel[:, :, 0, 0]),
        "upsample_bilinear": upsample_bilinear(x, 2, border="edge"),
        "an operator": op(x, **parts),
        "its transpose": op.T(y),
        "another kernel": op.with_kernel(kernel)(x),
        "no batch": conv(x[:0], kernel),
        "no batch's gradient": conv_kernel_gradient(x[:0], y[:0], 3),
        "nothing but a bias": conv_transpose(y[:, :0, :0], kernel, output_size=1, bias=x[0, 0, 0]),
        "nothing but padding": conv(x[:, :0], kernel, padding=2, bias=parts["bias"]),
    }


def assert_alike(take, kind):
    for (name, ours), theirs in zip(calls(np.asarray).items(), calls(take).values(), strict=True):
        assert type(theirs) is kind, name
        assert (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype), name
        np.testing.assert_allclose(theirs.get(), ours, rtol=1e-6, atol=1e-6, err_msg=name)


def test_arrays_are_cupys(cupy):
    assert_alike(cupy.asarray, cupy.ndarray)


@pytest.mark.parametrize(
    "view",
    [
        lambda a, xp: xp.asfortranarray(a),
        lambda a, xp: xp.repeat(a, 2, -1)[..., ::2],
        lambda a, xp: a[..., ::-1].copy()[..., ::-1],
        lambda a, xp: xp.concatenate([a.ravel()[:1], a.ravel()])[1:].reshape(a.shape),
    ],
    ids=["F", "sparse", "reversed", "one element off"],
)
def test_views(cupy, view):
    assert_alike(lambda array: view(cupy.asarray(array), cupy), cupy.ndarray)


def test_a_broadcast_view(cupy):
    x = cupy.broadcast_to(cupy.ones(2, "f"), X.shape)
    expected = conv(np.ones_like(X), KERNEL)
    np.testing.assert_array_equal(conv(x, cupy.asarray(KERNEL)).get(), expected)


@pytest.mark.parametrize("name", ["x", "kernel", "bias", "residual", "out"])
def test_elements_between_their_addresses_are_refused(cupy, name):
    arrays = {"x": X, "kernel": KERNEL, **EPILOGUE, "out": Y}
    arrays = {key: cupy.asarray(array) for key, array in arrays.items()}
    there = arrays[name]
    memory = cupy.zeros(there.nbytes + 1, "uint8")
    arrays[name] = cupy.ndarray(there.shape, there.dtype, memory.data + 1)
    with pytest.raises(ValueError, match=f"^{name}: expected elements at multiples of 4 bytes"):
        conv(**arrays)


@pytest.mark.parametrize("name", ["kernel", "scale", "bias", "residual", "out"])
def test_every_array_is_of_one_library(cupy, name):
    arrays = {"x": X, "kernel": KERNEL, **EPILOGUE, "out": Y.copy()}
    on_device = {key: cupy.asarray(array) for key, array in arrays.items()}
    with pytest.raises(TypeError, match=f"^{name}: expected a CuPy array, .* got a NumPy array"):
        conv(**on_device | {name: arrays[name]})
    with pytest.raises(TypeError, match=f"^{name}: expected a NumPy array, .* got a CuPy array"):
        conv(**arrays | {name: on_device[name]})


def test_an_operator_takes_arrays_of_its_kernels_library(cupy):
    for kernel, x in ((KERNEL, cupy.asarray(X)), (cupy.asarray(KERNEL), X)):
        with pytest.raises(TypeError, match="^x: expected a (NumPy|CuPy) array"):
            ConvOperator(kernel, (6, 5))(x)
        with pytest.raises(TypeError, match="^kernel: expected a (NumPy|CuPy) array"):
            ConvOperator(kernel, (6, 5)).with_kernel(
                cupy.asarray(KERNEL) if kernel is KERNEL else KERNEL
            )


def test_lists_are_numpys(cupy):
    with pytest.raises(TypeError, match="^bias: expected a CuPy array"):
        conv(cupy.asarray(X), cupy.asarray(KERNEL), bias=[1.0, 2.0, 3.0, 4.0])


def test_every_array_is_on_one_device(cupy, two_devices):
    x = cupy.asarray(X)
    with cupy.cuda.Device(1):
        kernel = cupy.asarray(KERNEL)
    with pytest.raises(ValueError, match="^kernel: expected an array on CUDA device 0, .* 1$"):
        conv(x, kernel)
    with pytest.raises(ValueError, match="^x: expected an array on CUDA device 1, .* 0$"):
        ConvOperator(kernel, (6, 5))(x)


def test_on_a_device_that_is_not_the_current_one(cupy, two_devices):
    def take(array):
        with cupy.cuda.Device(1):
            return cupy.asarray(array)

    assert_alike(take, cupy.ndarray)
    assert conv(take(X), take(KERNEL)).device.id == 1
    op = ConvOperator(take(KERNEL), (6, 5))
    assert op.as_matmul().data.device.id == 1
    assert (op.as_linear_operator() @ take(X[0].ravel())).device.id == 1


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_no_backend_copies_to_where_it_computes(cupy, name):
    x, kernel = cupy.asarray(X), cupy.asarray(KERNEL)
    for call in (
        lambda: conv(x, kernel, backend=name),
        lambda: ConvOperator(kernel, (6, 5), backend=name),
        lambda: upsample_bilinear(x, 2, backend=name),
    ):
        with pytest.raises(ValueError, match="^backend: expected None or 'cuda' for CuPy arrays"):
            call()
    with pytest.raises(ValueError, match="^backend: .* 'reference' for NumPy arrays, got 'cuda'"):
        conv(X, KERNEL, backend="cuda")


@pytest.mark.parametrize(
    ("x", "kernel"),
    [
        (np.ones((1, 5, 1), "complex64"), np.ones((3, 1, 1), "complex64")),
        (np.ones((1, 3, 3, 3, 3, 1), "f"), np.ones((2, 2, 2, 2, 1, 1), "f")),
    ],
    ids=["complex", "four axes"],
)
def test_what_no_kernel_computes_is_refused(cupy, x, kernel):
    with pytest.raises(ValueError, match="^backend: 'cuda' has no kernel .*cupy.asnumpy"):
        conv(cupy.asarray(x), cupy.asarray(kernel))


def test_truth_is_no_number(cupy):
    with pytest.raises(TypeError, match="^x: expected integers, floats or complex numbers"):
        conv(cupy.zeros(X.shape, bool), cupy.asarray(KERNEL))


def test_absurd_sizes_are_refused_before_allocation(cupy):
    x, kernel = cupy.ones(3, "f"), cupy.ones(2, "f")
    with pytest.raises(ValueError, match="would take [0-9]+ bytes, more than the [0-9]+ of memory"):
        conv(x, kernel, padding=2**40)
    with pytest.raises(ValueError, match="would take [0-9]+ bytes, more than"):
        conv_as_matmul(kernel, 2**40)


def test_what_ran_out_of_memory_says_what_it_asked_for(cupy):
    x, kernel = cupy.ones((1, 2**20, 8), "f"), cupy.ones((3, 8, 8), "f")
    conv(x[:, :9], kernel)
    pool = cupy.cuda.MemoryPool()
    pool.set_limit(2**20)
    with cupy.cuda.using_allocator(pool.malloc):
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError) as caught:
            conv(x, kernel)
    message = str(caught.value)
    assert message.startswith("Out of memory allocating")
    assert f"result of shape (1, {2**20 - 2}, 8) and dtype float32" in message
    assert f"{32 * (2**20 - 2)} bytes" in message


def test_out_may_overlap_an_operand(cupy):
    x, kernel = cupy.asarray(X), cupy.asarray(KERNEL[..., :2])
    expected = conv(X, KERNEL[..., :2], padding=1)
    assert conv(x, kernel, padding=1, out=x) is x
    np.testing.assert_array_equal(x.get(), expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_matrix_is_numpys(cupy, dtype, groups):
    import cupyx.scipy.sparse

    kernel = small_integers(np.random.default_rng(1), (3, 2, 2, 4), dtype)
    window = {"strides": (2, 1), "padding": "SAME", "dilations": (1, 2), "groups": groups}
    shape = (9, 8, 2 * groups)
    W = conv_as_matmul(kernel, shape, **window)
    on_device = conv_as_matmul(cupy.asarray(kernel), shape, **window)
    assert isinstance(on_device, cupyx.scipy.sparse.csr_array)
    for name in ("data", "indices", "indptr"):
        ours, theirs = getattr(W, name), getattr(on_device, name)
        assert theirs.dtype == ours.dtype
        np.testing.assert_array_equal(theirs.get(), ours)
    part = conv_as_matmul(cupy.asarray(kernel), shape, **window, rows=slice(5, 77))
    np.testing.assert_array_equal(part.get().toarray(), W[5:77].toarray())
    op = ConvOperator(cupy.asarray(kernel), shape[:2], **window)
    np.testing.assert_array_equal(op.T.as_matmul().get().toarray(), W.T.toarray())
    x = cupy.asarray(small_integers(rng, (1, *shape), on_device.dtype))
    np.testing.assert_array_equal((on_device @ x.ravel()).get(), W @ x.get().ravel())


def test_cupy_has_no_sparse_integers(cupy):
    with pytest.raises(TypeError, match="^kernel: expected floats for a matrix of CuPy's"):
        conv_as_matmul(cupy.ones(3, "int32"), 9)


def test_a_linear_operator(cupy):
    import cupyx.scipy.sparse.linalg as linalg

    op = ConvOperator(cupy.asarray([-1.0, 2.0, -1.0]), 50, padding=1)
    A, W = op.as_linear_operator(), op.as_matmul().get()
    assert isinstance(A, linalg.LinearOperator)
    b = cupy.sin(cupy.arange(50.0))
    np.testing.assert_allclose((A @ b).get(), W @ b.get())
    np.testing.assert_allclose(A.rmatvec(b).get(), W.T @ b.get())
    columns = cupy.asarray(np.random.default_rng(0).standard_normal((50, 3)))
    np.testing.assert_allclose((A @ columns).get(), W @ columns.get())
    x, info = linalg.cg(A, b, rtol=1e-10)
    assert info == 0
    np.testing.assert_allclose(W @ x.get(), b.get(), atol=1e-8)


@pytest.mark.parametrize("size", [12, 5000])
def test_norm(cupy, size):
    op = ConvOperator(cupy.asarray([1.0, -2.0, 1.0]), size, padding=1)
    exact = 2 + 2 * math.cos(math.pi / (size + 1))
    assert math.isclose(op.norm(), exact, rel_tol=1e-6)


def test_an_operator_keeps_its_own_kernel(cupy):
    kernel = cupy.asarray(KERNEL)
    op = ConvOperator(kernel, (6, 5))
    kernel[...] = 0
    op.kernel[...] = 0  # a copy: CuPy has no read-only arrays
    x, expected = cupy.asarray(X), conv(X, KERNEL)
    for again in (op, pickle.loads(pickle.dumps(op)), copy.deepcopy(op)):
        np.testing.assert_array_equal(again(x).get(), expected)


def test_another_stream_need_not_wait_for_the_kernel(cupy):
    """What an operator packed on one stream is there for every other."""
    op, x = ConvOperator(cupy.asarray(KERNEL), (6, 5)), cupy.asarray(X)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        op(x)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        y = op(x)
        stream.synchronize()
    np.testing.assert_array_equal(y.get(), conv(X, KERNEL))


def test_nothing_in_a_call_waits(cupy):
    """A graph can be captured of it, which a synchronisation would end with an error."""
    x, kernel = cupy.asarray(X), cupy.asarray(KERNEL)
    op, big = ConvOperator(kernel, (6, 5)), cupy.zeros((2, 12, 10, 2), "f")
    outs = [cupy.zeros(Y.shape, "f") for _ in range(2)]

    def work():
        op(x, out=outs[0])
        conv(x, kernel, out=outs[1])
        big[...] = upsample_bilinear(x, 2, border="edge")

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        work()  # compiles, packs, and fills the memory pool
        stream.synchronize()
        stream.begin_capture()
        work()
        graph = stream.end_capture()
        x *= 2
        graph.launch(stream)
        stream.synchronize()
    for out in outs:
        np.testing.assert_array_equal(out.get(), conv(2 * X, KERNEL))
    np.testing.assert_allclose(
        big.get(), upsample_bilinear(2 * X, 2, border="edge"), rtol=1e-6, atol=1e-6
    )


def test_more_than_2_to_the_31_elements(cupy):
    """Offsets beyond 32 bits, of the result and of what is read for it."""
    free, _ = cupy.cuda.runtime.memGetInfo()
    length = 2**31 + 2**10
    if free < 3 * length:
        pytest.skip(f"needs {3 * length} bytes of free memory on the GPU")
    x = cupy.zeros((1, length, 1), "int8")
    x[0, -2:, 0] = cupy.asarray([3, 5], "int8")
    y = conv(x, cupy.asarray(np.array([1, 2], "int8").reshape(2, 1, 1)))
    assert y.shape == (1, length - 1, 1)
    assert y[0, -2:, 0].get().tolist() == [6, 13] and int(y[0, :-2].any()) == 0
