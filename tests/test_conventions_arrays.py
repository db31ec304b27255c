"""Whose arrays `convarith.conventions` takes: CuPy's, and torch's and JAX's through DLPack.

The results are the same library's; their values are those of NumPy's arrays, to the bit.
"""

import numpy as np
import pytest

from convarith.conventions import jax as lax
from convarith.conventions import keras, onnx, tensorflow, torch
from convarith.testing import small_integers

rng = np.random.default_rng(0)
#: By the number of axes, channels first: inputs of 4 channels, and kernels that give as many.
INPUTS = {axes: small_integers(rng, (2, 4, 7, 6, 5)[:axes], "float32") for axes in (3, 4, 5)}
KERNELS = {axes: small_integers(rng, (4, 4, 3, 2, 2)[:axes], "float32") for axes in (3, 4, 5)}
BIAS = small_integers(rng, (4,), "float32")


def last(array):
    """The channels last, as a view."""
    return np.moveaxis(array, 1, -1)


def calls(take):
    """A call of every function, by position and by name, its arrays taken from NumPy's."""
    found = {}
    for axes in (3, 4, 5):
        rank = axes - 2
        x, weight, bias = map(take, (INPUTS[axes], KERNELS[axes], BIAS))
        y, kernel = take(last(INPUTS[axes])), take(np.ascontiguousarray(KERNELS[axes].T))
        size = (2, *(2 * length for length in y.shape[1:-1]), 4)
        steps = [1] * (rank == 3), [2] * rank, [1] * (rank == 3)
        plain = getattr(tensorflow, f"conv{rank}d")
        found |= {
            f"torch conv{rank}d": getattr(torch, f"conv{rank}d")(x, weight, bias, padding=1),
            f"torch conv_transpose{rank}d": getattr(torch, f"conv_transpose{rank}d")(
                weight=weight, input=x, bias=bias, stride=2
            ),
            f"tensorflow conv{rank}d": plain(y, kernel, sum(steps, []), "SAME"),
            f"tensorflow conv{rank}d_transpose": getattr(tensorflow, f"conv{rank}d_transpose")(
                y, kernel, size, 2
            ),
            f"keras conv {rank}": keras.conv(y, kernel, 2, "same"),
            f"keras conv_transpose {rank}": keras.conv_transpose(kernel=kernel, inputs=y),
            f"jax conv_general_dilated {rank}": lax.conv_general_dilated(
                x, weight, (1,) * rank, [(1, 2)] * rank, lhs_dilation=(2,) * rank
            ),
            f"jax conv_transpose {rank}": lax.conv_transpose(y, kernel, (2,) * rank, "SAME"),
            f"onnx Conv {rank}": onnx.conv(x, weight, bias, strides=[2] * rank),
            f"onnx ConvTranspose {rank}": onnx.conv_transpose(x, weight, B=bias),
        }
    x, weight = take(INPUTS[4]), take(KERNELS[4])
    channelwise = take(np.ascontiguousarray(KERNELS[4][:, :2].transpose(2, 3, 0, 1)))
    y = take(last(INPUTS[4]))
    found |= {
        "torch without a batch": torch.conv2d(x[0], weight),
        "tensorflow depthwise_conv2d": tensorflow.depthwise_conv2d(
            y, channelwise, (1, 1, 1, 1), "VALID"
        ),
        "tensorflow with more batch axes": tensorflow.conv2d(
            y[None], take(np.ascontiguousarray(KERNELS[4].T)), 1, "VALID"
        ),
        "keras depthwise_conv": keras.depthwise_conv(y, channelwise),
        "jax conv": lax.conv(x, weight, (1, 1), "VALID"),
        "jax conv_with_general_padding": lax.conv_with_general_padding(
            x, weight, (1, 1), [(0, 1)] * 2, None, (1, 2)
        ),
        "jax's batch groups": lax.conv_general_dilated(
            x, weight, (1, 1), "VALID", batch_group_count=2
        ),
        "jax's feature groups, stretched": lax.conv_general_dilated(
            x, weight[:, :2], (1, 1), [(2, 1)] * 2, lhs_dilation=(2, 1), feature_group_count=2
        ),
        "jax in a wider dtype": lax.conv(x, weight, (1, 1), "SAME", preferred_element_type="f8"),
    }
    return found


def assert_alike(take, kind, host, leave_out=()):
    expected = calls(np.asarray)
    for name, theirs in calls(take).items():
        if name in leave_out:
            continue
        assert isinstance(theirs, kind), name
        ours = expected[name]
        assert tuple(theirs.shape) == ours.shape, name
        np.testing.assert_array_equal(host(theirs), ours, err_msg=name)
        assert host(theirs).dtype == ours.dtype, name


def test_every_function_is_called():
    called = " ".join(calls(np.asarray))
    for module in (torch, tensorflow, keras, lax):
        for name in set(module.__all__) - {"arguments", "geometry_of", "spelling", "words"}:
            assert name in called, f"{module.__name__}.{name}"


def test_torchs_tensors(request):
    theirs = request.getfixturevalue("torch")
    assert_alike(theirs.from_numpy, theirs.Tensor, lambda tensor: tensor.numpy())


def test_jaxs_arrays():
    jax = pytest.importorskip("jax")
    wide = {"jax in a wider dtype"}  # which JAX has not by default
    assert_alike(jax.numpy.asarray, jax.Array, np.asarray, leave_out=wide)


@pytest.mark.cuda
def test_cupys_arrays():
    cupy = pytest.importorskip("cupy")
    assert_alike(cupy.asarray, cupy.ndarray, cupy.asnumpy)


@pytest.mark.cuda
def test_operands_on_the_host_and_on_the_device():
    cupy = pytest.importorskip("cupy")
    x, weight = INPUTS[4], KERNELS[4]
    with pytest.raises(TypeError, match="^weight: expected a NumPy array, .* got a CuPy array"):
        torch.conv2d(x, cupy.asarray(weight))
    with pytest.raises(TypeError, match="^B: expected a CuPy array, .* got a NumPy array"):
        onnx.conv(cupy.asarray(x), cupy.asarray(weight), BIAS)
    with pytest.raises(ValueError, match="^backend: 'cuda' has no kernel .* complex64"):
        torch.conv2d(cupy.asarray(x.astype("c8")), cupy.asarray(weight.astype("c8")))


def test_operands_of_two_libraries(request):
    theirs = request.getfixturevalue("torch")
    x, weight = INPUTS[4], KERNELS[4]
    with pytest.raises(TypeError, match="^weight: expected an array of the library of input"):
        torch.conv2d(theirs.from_numpy(x), weight)
    with pytest.raises(TypeError, match="^rhs: expected a NumPy or CuPy array, got torch.Tensor"):
        lax.conv(x, theirs.from_numpy(weight), (1, 1), "SAME")
    with pytest.raises(TypeError, match="^W: expected an array that DLPack .* require gradient"):
        onnx.conv(theirs.from_numpy(x), theirs.nn.Parameter(theirs.from_numpy(weight)))
    with pytest.raises(TypeError, match="^weight: expected the dtype of input, float32, got float"):
        torch.conv2d(theirs.from_numpy(x), theirs.from_numpy(weight).double())


def test_torchs_bfloat16(request):
    theirs = request.getfixturevalue("torch")
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    y = torch.conv2d(*(theirs.from_numpy(a).bfloat16() for a in (INPUTS[4], KERNELS[4])))
    assert y.dtype == theirs.bfloat16
    expected = torch.conv2d(INPUTS[4].astype(bfloat16), KERNELS[4].astype(bfloat16))
    np.testing.assert_array_equal(y.float().numpy(), expected.astype("float32"))
