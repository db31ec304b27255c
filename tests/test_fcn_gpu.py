"""What `fcn` does on a GPU is what it does on the CPU."""

import math

import numpy as np
import pytest

import fcn
from convarith import ConvGeometry
from fcn import blocks, half
from fcn.layers import MaxPool

pytestmark = pytest.mark.cuda

DTYPES = ("float32", "float16", "bfloat16")
rng = np.random.default_rng(0)


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


def rounded(x, name):
    """Return numbers of a dtype as float32, by way of NumPy."""
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes")
    with np.errstate(over="ignore"):
        return x.astype(half.dtype_of(name)).astype(np.float32)


@pytest.mark.parametrize("name", DTYPES)
def test_half_types(cupy, name):
    x = np.concatenate([normal(100_000), [0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-42]])
    x = x.astype(np.float32)
    narrow = half.narrowed(cupy.asarray(x), name)
    assert narrow.dtype.name == name
    np.testing.assert_array_equal(half.widened(narrow).get(), rounded(x, name))


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("outside", [-math.inf, 0.0])
@pytest.mark.parametrize(
    ("size", "window", "strides", "padding"),
    [
        ((8, 8), 2, 2, 0),
        ((9, 13), 3, 2, 1),
        ((7, 5), (3, 2), (1, 3), ((2, 0), (0, 1))),
        ((4, 4), 2, 1, ((3, 3), (0, 0))),  # windows that lie outside
    ],
)
def test_max_pool(cupy, name, outside, size, window, strides, padding):
    geometry = ConvGeometry(size, window, strides=strides, padding=padding)
    x = rounded(normal(2, *size, 5), name)
    x[0, 0, 0, 0], x[1, 1, 1, 1], x[1, 2, 2, 2] = np.nan, np.inf, -np.inf
    expected = np.empty((2, *geometry.output_size, 5), np.float32)
    blocks.max_pool(x, geometry, outside, expected)
    out = half.empty(cupy, expected.shape, name)
    blocks.max_pool(half.narrowed(cupy.asarray(x), name), geometry, outside, out)
    np.testing.assert_array_equal(half.widened(out).get(), expected)


def test_max_pool_in_any_memory_layout(cupy):
    geometry = MaxPool(2, 2, "VALID").geometry((2, 6, 8, 3))
    x = normal(2, 3, 6, 8).transpose(0, 2, 3, 1)
    expected, out = np.empty((2, 3, 4, 3), np.float32), cupy.empty((2, 3, 4, 3), np.float32)
    blocks.max_pool(x, geometry, -math.inf, expected)
    there = cupy.asarray(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).transpose(0, 2, 3, 1)
    blocks.max_pool(there, geometry, -math.inf, out)
    np.testing.assert_array_equal(out.get(), expected)
    apart = cupy.zeros((4, 3, 4, 3), np.float32)
    blocks.max_pool(there, geometry, -math.inf, apart[::2])
    np.testing.assert_array_equal(apart[::2].get(), expected)
    assert not apart[1::2].any()


@pytest.mark.parametrize("channels", [1, 2, 21, 32, 95, 96, 1000])
@pytest.mark.parametrize("scale", [1, 1e4])
def test_softmax(cupy, channels, scale):
    x = scale * normal(3, 7, 11, channels)
    expected = blocks.softmax(x, np.empty_like(x))
    there = cupy.asarray(x)
    beside = blocks.softmax(there, cupy.empty_like(there))
    np.testing.assert_allclose(beside.get(), expected, rtol=1e-5, atol=1e-30)
    np.testing.assert_array_equal(blocks.softmax(there, there).get(), beside.get())
    turned = cupy.asarray(x.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0)
    found = blocks.softmax(turned, cupy.empty(x.shape, np.float32))
    np.testing.assert_array_equal(found.get(), beside.get())


def test_softmax_passes_nan_and_takes_no_pixels(cupy):
    x = np.zeros((1, 1, 3, 4), np.float32)
    x[0, 0, 1, 2] = np.nan
    found = blocks.softmax(cupy.asarray(x), cupy.empty_like(cupy.asarray(x))).get()
    assert np.isnan(found[0, 0, 1]).all() and (found[0, 0, ::2] == 0.25).all()
    nothing = cupy.empty((0, 4, 4, 4), np.float32)
    assert blocks.softmax(nothing, nothing).size == 0


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 1e-4), ({"precision": "tf32"}, 2e-2), ({"dtype": "float16"}, 2e-2)]
    + [({"dtype": "bfloat16"}, 0.2)],
)
@pytest.mark.parametrize(
    ("backbone", "head"), [("vgg16", "8s"), ("resnet50v2", "32s"), ("mobilenet_v2", "16s")]
)
def test_networks(cupy, backbone, head, settings, tolerance):
    """Alone, in a batch, as a CUDA graph: the probabilities that the CPU gives."""
    if settings.get("dtype") == "bfloat16":
        pytest.importorskip("ml_dtypes")
    model = fcn.build(backbone, 5, head)
    arrays, x = model.graph.arrays(), normal(3, 65, 97, 3)
    for score in ("score32", "score16", "score8"):  # all of the order of one
        if f"{score}/kernel" in arrays:
            kernel = arrays[f"{score}/kernel"]
            if not kernel.any():
                kernel[...] = rng.normal(0, 0.02, kernel.shape)
            kernel /= model.graph.forward(x, until=score)[0].std()
    model = model.compiled()
    expected = model(x)
    there = model.to("cuda").compiled(**settings)
    batch = cupy.asarray(x)
    found = there(batch)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    most = np.abs(expected).max()
    np.testing.assert_allclose(found.get(), expected, rtol=0, atol=tolerance * most)
    np.testing.assert_array_equal(there(batch[1:2]).get(), found[1:2].get())
    stream = cupy.cuda.Stream(non_blocking=True)
    with cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc), stream:
        there(batch)
        stream.synchronize()
        stream.begin_capture()
        result = there(batch)
        graph = stream.end_capture()
        batch[...] = cupy.asarray(x[::-1].copy())
        graph.launch()
        stream.synchronize()
        np.testing.assert_array_equal(result.get(), found[::-1].get())
