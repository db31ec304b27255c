"""`argmax_channels`: NumPy's own argmax, on the host and, bit for bit, on a CUDA device."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convarith import argmax_channels
from convarith.testing import small_integers

FLOATS = ("float16", "float32", "float64")
INTEGERS = tuple(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))
#: Pixels and channels: whole blocks of a kernel and parts of one, none, and more channels than the
#: kernel has room for.
SHAPES = ((5,), (1, 1), (128, 21), (2, 129, 3), (3, 100, 7, 2), (0, 4), (7, 0, 300), (9, 2000))


def scores(shape, dtype, seed=0):
    """Return small integers, which tie often, with NaNs and infinities among the floats."""
    rng = np.random.default_rng(seed)
    values = small_integers(rng, shape, dtype)
    if values.dtype.kind == "f":
        odd = rng.choice([np.nan, np.inf, -np.inf, -0.0], shape).astype(dtype)
        values = np.where(rng.random(shape) < 0.05, odd, values)
    return values


@given(
    shape=st.lists(st.integers(0, 4), max_size=3),
    channels=st.integers(1, 40),
    dtype=st.sampled_from(FLOATS + INTEGERS),
    order=st.sampled_from(("C", "F")),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_numpys(shape, channels, dtype, order, seed):
    x = np.asarray(scores((*shape, channels), dtype, seed), order=order)
    before = x.copy()
    for backend in (None, "reference"):
        labels = argmax_channels(x, backend=backend)
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, x.argmax(-1))
    np.testing.assert_array_equal(x, before)


def test_the_first_of_the_largest():
    x = np.array([[1.0, 3.0, 3.0], [-np.inf] * 3, [0.0, np.nan, np.nan], [-0.0, 0.0, -1.0]])
    assert argmax_channels(x).tolist() == [1, 0, 1, 0]
    assert argmax_channels([[2, 7], [9, 9]]).tolist() == [1, 0]


def test_bfloat16():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = scores((50, 21), "float32")
    np.testing.assert_array_equal(argmax_channels(x.astype(bfloat16)), x.argmax(-1))


def test_torch_in_torch_out(torch):
    x = scores((4, 5, 21), "float32")
    labels = argmax_channels(torch.from_numpy(x))
    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(labels.numpy(), x.argmax(-1))


@pytest.mark.parametrize(
    ("x", "keywords", "error", "message"),
    [
        (np.ones((2, 3)) * 1j, {}, TypeError, "^x: expected real numbers, got dtype complex128"),
        (np.ones((2, 3), bool), {}, TypeError, "^x: expected integers, floats or complex"),
        (np.ones(()), {}, ValueError, r"^x: expected channels on the last axis, got shape \(\)"),
        (np.ones((2, 0)), {}, ValueError, r"^x: expected channels on the last .* \(2, 0\)"),
        ("scores", {}, TypeError, "^x: expected a NumPy or CuPy array, got builtins.str"),
        (np.ones(3), {"backend": "gpu"}, ValueError, "^backend: expected one of None, 'cpu'"),
        (np.ones(3), {"backend": "cuda"}, ValueError, "^backend: expected None, 'cpu' or 'ref"),
    ],
)
def test_what_is_refused(x, keywords, error, message):
    with pytest.raises(error, match=message):
        argmax_channels(x, **keywords)


@pytest.fixture(scope="module")
def cupy():
    return pytest.importorskip("cupy")


@pytest.mark.cuda
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_a_device_gives_the_same(cupy, dtype, shape):
    x = scores(shape, dtype, seed=math.prod(shape))
    labels = argmax_channels(cupy.asarray(x))
    assert type(labels) is cupy.ndarray and labels.dtype == np.int64
    np.testing.assert_array_equal(labels.get(), x.argmax(-1))


@pytest.mark.cuda
@pytest.mark.parametrize(
    "view",
    [lambda a: a[::-1], lambda a: a[..., ::2], lambda a: a.T, lambda a: a[1:, 1:]],
    ids=["reversed", "sparse", "transposed", "cropped"],
)
def test_views_on_a_device(cupy, view):
    x = scores((130, 6, 21), "float32")
    np.testing.assert_array_equal(argmax_channels(view(cupy.asarray(x))).get(), view(x).argmax(-1))


@pytest.mark.cuda
def test_bfloat16_on_a_device(cupy):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = scores((150, 21), "float32")
    labels = argmax_channels(cupy.asarray(x).astype(bfloat16))
    np.testing.assert_array_equal(labels.get(), x.argmax(-1))


@pytest.mark.cuda
def test_what_a_device_refuses(cupy):
    x = cupy.ones((2, 3))
    with pytest.raises(ValueError, match="^backend: expected None or 'cuda' for CuPy arrays"):
        argmax_channels(x, backend="reference")
    with pytest.raises(TypeError, match="^x: expected real numbers, got dtype complex128"):
        argmax_channels(x * 1j)
