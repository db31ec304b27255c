"""Arrays of torch's and JAX's, seen through DLPack: the same library out as in, nothing copied."""

import subprocess
import sys

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
from convarith.testing import random_array

rng = np.random.default_rng(0)
X, KERNEL = random_array(rng, (2, 6, 5, 2), "float32"), random_array(rng, (3, 3, 2, 4), "float32")
Y = random_array(rng, (2, 4, 3, 4), "float32")


def calls(take):
    """Every way to compute with arrays, each taken from NumPy's by `take`."""
    x, kernel, y = map(take, (X, KERNEL, Y))
    op = ConvOperator(kernel, (6, 5))
    bias, residual = take(np.arange(4, dtype="float32")), take(np.ones_like(Y))
    return {
        "conv": conv(x, kernel),
        "conv by keywords": conv(kernel=kernel, x=x),
        "conv with an epilogue": conv(x, kernel, scale=bias, bias=bias, residual=residual),
        "conv_transpose": conv_transpose(y, kernel),
        "conv_kernel_gradient": conv_kernel_gradient(x, y, 3),
        "upsample_bilinear": upsample_bilinear(x, 2, border="edge"),
        "an operator": op(x),
        "its transpose": op.T(y),
        "another kernel": op.with_kernel(kernel)(x),
        "an empty batch": conv(x[:0], kernel),
    }


def assert_alike(take, kind):
    for (name, ours), theirs in zip(calls(np.asarray).items(), calls(take).values(), strict=True):
        assert isinstance(theirs, kind), name
        np.testing.assert_array_equal(np.asarray(theirs), ours, err_msg=name)


def test_torch_in_torch_out(torch):
    assert_alike(torch.from_numpy, torch.Tensor)
    strided = torch.from_numpy(X).permute(0, 2, 1, 3)
    assert (conv(strided, torch.from_numpy(KERNEL)).shape) == (2, 3, 4, 4)


def test_jax_in_jax_out():
    jax = pytest.importorskip("jax")
    assert_alike(jax.numpy.asarray, jax.Array)


def test_the_memory_is_the_tensors(torch):
    x = torch.from_numpy(X.copy())
    op, out = ConvOperator(KERNEL, (6, 5)), torch.zeros(2, 4, 3, 4)
    assert op(x, out=out) is out
    np.testing.assert_array_equal(out.numpy(), op(X))
    bare = torch.tensor([1.0, 2.0, 3.0])
    assert conv(bare, torch.tensor([2.0]), out=bare) is bare
    assert bare.tolist() == [2.0, 4.0, 6.0]


def test_an_operator_of_their_kernel(torch):
    op = ConvOperator(torch.from_numpy(KERNEL), (6, 5))
    np.testing.assert_array_equal(op(X), conv(X, KERNEL))
    assert isinstance(op(X), np.ndarray) and isinstance(op.kernel, np.ndarray)
    W = conv_as_matmul(torch.from_numpy(KERNEL), (6, 5, 2))
    np.testing.assert_array_equal(W.toarray(), op.as_matmul().toarray())


def test_torchs_bfloat16(torch):
    """NumPy imports none through DLPack: its bits are viewed, with ml_dtypes."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    y = conv(torch.from_numpy(X).bfloat16(), torch.from_numpy(KERNEL).bfloat16())
    assert y.dtype == torch.bfloat16
    expected = conv(X.astype(bfloat16), KERNEL.astype(bfloat16))
    np.testing.assert_array_equal(y.float().numpy(), expected.astype("float32"))


def test_jax_arrays_are_no_outputs():
    jax = pytest.importorskip("jax")
    x, kernel, y = map(jax.numpy.asarray, (X, KERNEL, Y))
    with pytest.raises(ValueError, match="^out: expected a writeable array, got jax"):
        conv(x, kernel, out=y)


@pytest.mark.parametrize("name", ["kernel", "bias", "residual", "out"])
def test_every_array_is_of_one_library(torch, name):
    arrays = {"x": X, "kernel": KERNEL, "bias": np.ones(4, "f"), "residual": Y, "out": Y.copy()}
    tensors = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
    with pytest.raises(TypeError, match=f"^{name}: expected an array of the library of x"):
        conv(**tensors | {name: arrays[name]})
    with pytest.raises(TypeError, match=f"^{name}: expected a NumPy or CuPy array, got .*Tensor"):
        conv(**arrays | {name: tensors[name]})


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (lambda x: x.clone().requires_grad_(), "require gradient"),
        (lambda x: x.to("meta"), "meta"),
        (lambda x: x.to_sparse(), "layout"),
        (lambda x: x.cfloat().conj(), "conjugate"),
        (lambda x: x.cfloat().conj().imag, "negative"),
        (lambda x: x > 0, "got dtype bool"),
    ],
)
def test_what_cannot_be_handed_over(torch, spoilt, reason):
    x, kernel = torch.from_numpy(X.copy()), torch.from_numpy(KERNEL.copy())
    with pytest.raises(TypeError, match=f"^x: expected .*{reason}"):
        conv(spoilt(x), kernel)
    with pytest.raises(TypeError, match=f"^kernel: expected .*{reason}"):
        conv(x, spoilt(kernel))


def test_bfloat16_of_jax_is_refused():
    """NumPy cannot import it, and JAX has no view of it that is no copy."""
    jax = pytest.importorskip("jax")
    x, kernel = (jax.numpy.asarray(array, "bfloat16") for array in (X, KERNEL))
    with pytest.raises(TypeError, match="^x: expected an array that DLPack hands over"):
        conv(x, kernel)


def test_a_library_without_a_way_back():
    class OneWay:
        def __dlpack__(self, **arguments):
            return X.__dlpack__(**arguments)

        def __dlpack_device__(self):
            return X.__dlpack_device__()

    with pytest.raises(TypeError, match="^x: expected an array of a library with from_dlpack"):
        conv(OneWay(), KERNEL)


def test_tensors_on_the_host_load_no_cupy(torch):
    code = (
        "import sys, torch, convarith\n"
        "convarith.conv(torch.ones(5, 5), torch.ones(3, 3))\n"
        "print('cupy' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.cuda
def test_torch_on_the_gpu(torch):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    x, kernel = (torch.from_numpy(array).cuda() for array in (X, KERNEL))
    y = conv(x, kernel)
    assert y.is_cuda and y.dtype == torch.float32
    np.testing.assert_allclose(y.cpu().numpy(), conv(X, KERNEL), rtol=1e-5, atol=1e-5)
    out = torch.zeros_like(y)
    assert conv(x, kernel, out=out) is out
    np.testing.assert_array_equal(out.cpu().numpy(), y.cpu().numpy())
    with pytest.raises(TypeError, match="^kernel: expected a CuPy array"):
        conv(x, kernel.cpu())
    half = conv(x.bfloat16(), kernel.bfloat16())
    assert half.is_cuda and half.dtype == torch.bfloat16
    expected = conv(torch.from_numpy(X).bfloat16(), torch.from_numpy(KERNEL).bfloat16())
    torch.testing.assert_close(half.cpu(), expected, rtol=2**-7, atol=2**-7)


@pytest.mark.cuda
def test_jax_on_the_gpu():
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX sees no GPU")
    y = conv(jax.numpy.asarray(X), jax.numpy.asarray(KERNEL))
    assert isinstance(y, jax.Array) and y.devices() == {jax.devices()[0]}
    np.testing.assert_allclose(np.asarray(y), conv(X, KERNEL), rtol=1e-5, atol=1e-5)
