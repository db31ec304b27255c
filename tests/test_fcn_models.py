"""The networks: backbones as their authors define them, heads as the paper does."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fcn
from convarith import bilinear_kernel
from fcn import backbones, heads
from fcn.graph import INPUT, Graph
from fcn.inference import Program
from fcn.layers import BatchNorm, Conv, ConvTranspose
from fcn.model import MOST_CLASSES, Model, graph_of
from fcn.preprocess import Preprocess

NAMES = pytest.mark.parametrize("backbone", backbones.BACKBONES)
HEADS = pytest.mark.parametrize("head", heads.HEADS)


def randomised(graph, seed=0):
    """Fill all that `build` leaves at zero or one with random numbers; return the graph."""
    rng = np.random.default_rng(seed)
    for node in graph.nodes.values():
        for name, array in node.layer.arrays().items():
            if name in ("gamma", "moving_variance"):
                array[...] = rng.uniform(0.5, 1.5, array.shape)
            elif name != "kernel":
                array[...] = rng.normal(0, 0.1, array.shape)
            elif not array.any():
                array[...] = rng.normal(0, 0.02, array.shape)
    return graph


def assert_close(ours, theirs, tolerance=1e-4):
    """Equal to a tolerance relative to the largest entry."""
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


@pytest.mark.parametrize(
    ("name", "published", "size"),
    [("resnet50v2", "ResNet50V2", (97, 130)), ("resnet101v2", "ResNet101V2", (64, 33))],
)
def test_resnet_is_keras_applications(keras, name, published, size):
    """All arrays by layer name, with random weights and random statistics."""
    theirs = getattr(keras.applications, published)(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    trunk = backbones.nodes(name, np.random.default_rng(1))
    graph = randomised(Graph(trunk.nodes, 3))
    with_arrays = {layer.name: layer for layer in theirs.layers if layer.weights}
    ours = {node: value.layer for node, value in graph.nodes.items() if value.layer.arrays()}
    assert sorted(ours) == sorted(with_arrays)
    for node, layer in ours.items():
        with_arrays[node].set_weights(list(layer.arrays().values()))
    named = {layer.name for layer in theirs.layers} & set(graph.nodes)
    assert len(named) == len(graph.nodes) - 3  # Keras numbers its poolings as it makes them
    x = np.random.default_rng(2).standard_normal((2, *size, 3), np.float32)
    expected = np.asarray(theirs(x, training=False))
    y, _ = graph.forward(x)
    assert_close(y, expected)
    assert_close(Program(graph)(x), expected)


def test_resnet101_with_a_head_is_the_textbooks(keras):
    """Features, scores and output at 320x480, by shapes and by a real run."""
    model = fcn.build("resnet101v2", 21, "32s")
    shapes = model.graph.shapes((1, 320, 480, 3))
    assert shapes["post_relu"] == (1, 10, 15, 2048)
    assert shapes["score32"] == (1, 10, 15, 21)
    assert shapes["upscore"] == shapes["softmax"] == (1, 320, 480, 21)
    up = model.graph.nodes["upscore"].layer
    assert up.kernel.shape == (64, 64, 21, 21) and up.strides == (32, 32)
    np.testing.assert_array_equal(up.kernel, bilinear_kernel(21, 21, 64))
    x = np.random.default_rng(0).standard_normal((1, 320, 480, 3), np.float32)
    y = model(x)
    assert y.shape == (1, 320, 480, 21) and y.dtype == np.float32
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-5)
    score = model.graph.nodes["score32"].layer
    theirs = keras.Sequential(
        [
            keras.layers.Input((10, 15, 2048)),
            keras.layers.Conv2D(21, 1),
            keras.layers.Conv2DTranspose(21, 64, padding="same", strides=32, use_bias=False),
        ]
    )
    theirs.layers[0].set_weights([score.kernel, score.bias])
    theirs.layers[1].set_weights([up.kernel])
    features, _ = model.graph.forward(x, until="post_relu")
    assert_close(model.logits(x), np.asarray(theirs(features)))


@NAMES
@HEADS
def test_the_paper_s_structure(backbone, head):
    graph = graph_of(backbone, 5, head)
    strides = heads.HEADS[head]
    shapes = graph.shapes((2, 200, 300, 3))
    trunk = backbones.nodes(backbone, None)
    for stride, (name, channels) in trunk.stages.items():
        assert shapes[name] == (2, -(-200 // stride), -(-300 // stride), channels)
    scores = [name for name in graph.nodes if name.startswith("score")]
    assert sorted(scores) == sorted(f"score{stride}" for stride in strides)
    ups = [node.layer for node in graph.nodes.values() if isinstance(node.layer, ConvTranspose)]
    factors = [2] * (len(strides) - 1) + [strides[-1]]
    assert [up.strides for up in ups] == [(f, f) for f in factors]
    for up, factor in zip(ups, factors, strict=True):
        assert up.bias is None
        np.testing.assert_array_equal(up.kernel, bilinear_kernel(5, 5, 2 * factor))
    for stride in strides:
        layer = graph.nodes[f"score{stride}"].layer
        assert layer.kernel.shape[:2] == (1, 1) and not layer.bias.any()
        if stride != 32:
            assert not layer.kernel.any()
    kernel = graph.nodes["score32"].layer.kernel
    limit = np.sqrt(6 / (kernel.shape[2] + 5))
    assert 0.9 * limit < np.abs(kernel).max() <= limit and abs(kernel.mean()) < 0.2 * limit
    assert list(graph.nodes)[-1] == "softmax" and graph.nodes["crop"].inputs == ("upscore", INPUT)


@HEADS
@pytest.mark.parametrize("size", [(1, 1), (2, 70), (31, 33), (64, 32)])
def test_any_size(head, size):
    model = fcn.build("mobilenet_v2", 3, head)
    randomised(model.graph)
    x = np.random.default_rng(0).standard_normal((2, *size, 3), np.float32)
    y = model(x)
    assert y.shape == (2, *size, 3)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-5)
    assert_close(y, model.graph.forward(x)[0])


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50v2"])
def test_a_single_pixel(backbone):
    assert fcn.build(backbone, 2, "8s")(np.ones((1, 1, 1, 3), np.float32)).shape == (1, 1, 1, 2)


def test_vgg16():
    """Configuration D of the paper, fc6 and fc7 where they are asked for."""
    graph = graph_of("vgg16", 21, "8s")
    kernels = {
        name: node.layer.kernel.shape
        for name, node in graph.nodes.items()
        if name.startswith(("conv", "fc"))
    }
    widths = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert [shape[3] for shape in kernels.values()] == widths
    assert [shape[:3] for shape in kernels.values()] == [(3, 3, c) for c in [3, *widths[:-1]]]
    assert list(kernels)[:3] == ["conv1_1", "conv1_2", "conv2_1"]
    trunk = {name: array.size for name, array in graph.arrays().items() if name[:4] == "conv"}
    assert sum(trunk.values()) == 14_714_688  # as published for the network without its top
    graph = graph_of("vgg16", 21, "8s", fc=True)
    assert graph.nodes["fc6"].layer.kernel.shape == (7, 7, 512, 4096)
    assert graph.nodes["fc7"].layer.kernel.shape == (1, 1, 4096, 4096)
    assert graph.nodes["score32"].inputs == ("relu7",)
    assert graph.shapes((1, 320, 480, 3))["relu7"] == (1, 10, 15, 4096)


def test_parameters():
    """As Keras counts its networks without the top, and torchvision its features."""
    for name, count in (("resnet50v2", 23_564_800), ("resnet101v2", 42_626_560)):
        arrays = Graph(backbones.nodes(name, None).nodes, 3).arrays()
        assert sum(array.size for array in arrays.values()) == count
    parameters = Graph(backbones.nodes("mobilenet_v2", None).nodes, 3).parameters()
    assert sum(array.size for array in parameters.values()) == 2_223_872


def test_mobilenet_s_names_are_torchvisions():
    graph = Graph(backbones.nodes("mobilenet_v2", None).nodes, 3)
    norms = [name for name, node in graph.nodes.items() if isinstance(node.layer, BatchNorm)]
    convolutions = [name for name, node in graph.nodes.items() if isinstance(node.layer, Conv)]
    assert convolutions[:5] == [
        "features.0.0",
        "features.1.conv.0.0",
        "features.1.conv.1",
        "features.2.conv.0.0",
        "features.2.conv.1.0",
    ]
    assert norms[:4] == [
        "features.0.1",
        "features.1.conv.0.1",
        "features.1.conv.2",
        "features.2.conv.0.1",
    ]
    assert len(convolutions) == len(norms) == 52


def test_a_seed_gives_the_same_network():
    one, two, other = (fcn.build("mobilenet_v2", 3, "32s", seed=seed) for seed in (5, 5, 6))
    for name, array in one.graph.arrays().items():
        np.testing.assert_array_equal(array, two.graph.arrays()[name])
    for name in ("features.0.0/kernel", "score32/kernel"):
        assert (one.graph.arrays()[name] != other.graph.arrays()[name]).any()


def upsampled(head, seed, upsampling=None):
    """A head's nodes on MobileNetV2, by their layers."""
    trunk = backbones.nodes("mobilenet_v2", None)
    rng = np.random.default_rng(seed)
    more = () if upsampling is None else (upsampling,)
    made = heads.nodes(head, trunk, 5, rng, *more)
    return {name: node.layer for name, node in made.items()}, made


@HEADS
def test_xavier_upsampling(head):
    """Uniform within Glorot & Bengio's limit of fan in and fan out, both of kh*kw*c."""
    layers, made = upsampled(head, 0, "xavier")
    plain, plainly_made = upsampled(head, 0)
    assert list(made) == list(plainly_made)
    ups = [name for name, layer in layers.items() if isinstance(layer, ConvTranspose)]
    assert len(ups) == len(heads.HEADS[head])
    for name in made:
        assert made[name].inputs == plainly_made[name].inputs
        assert layers[name].config() == plain[name].config()
        if name not in ups:  # scores do not depend on what upsampling starts as
            for array, theirs in zip(
                layers[name].arrays().values(), plain[name].arrays().values(), strict=True
            ):
                assert array.tobytes() == theirs.tobytes()
    for name in ups:
        kernel = layers[name].kernel
        size = kernel.shape[0]
        limit = np.sqrt(6 / (size * size * (5 + 5)))
        assert kernel.dtype == np.float32 and kernel.shape == (size, size, 5, 5)
        assert 0.9 * limit < kernel.max() <= limit and -limit <= kernel.min() < -0.9 * limit
        # Of a uniform distribution; five deviations of the mean and of the variance.
        n = kernel.size
        assert abs(kernel.mean()) < 5 * limit / np.sqrt(3 * n)
        assert abs(kernel.var() / (limit**2 / 3) - 1) < 5 * np.sqrt(0.8 / n)
        assert layers[name].bias is None
    assert len({layers[name].kernel.tobytes() for name in ups}) == len(ups)


def test_xavier_upsampling_by_seed():
    one, same, other = (upsampled("8s", seed, "xavier")[0] for seed in (1, 1, 2))
    for name in ("upscore16", "upscore8", "upscore"):
        assert one[name].kernel.tobytes() == same[name].kernel.tobytes()
        assert (one[name].kernel != other[name].kernel).any()


def test_bilinear_upsampling_draws_nothing():
    """A seed's network is what it was before there was another upsampling: written out here."""
    model = fcn.build("mobilenet_v2", 5, "8s", seed=7)
    arrays = model.graph.arrays()
    limit = np.sqrt(6 / (1280 + 5))
    drawn = np.random.default_rng((7, 1)).uniform(-limit, limit, (1, 1, 1280, 5))
    np.testing.assert_array_equal(arrays["score32/kernel"], drawn.astype(np.float32))
    given = fcn.build("mobilenet_v2", 5, "8s", seed=7, upsampling="bilinear").graph.arrays()
    xavier = fcn.build("mobilenet_v2", 5, "8s", seed=7, upsampling="xavier").graph.arrays()
    for name, array in arrays.items():
        assert array.tobytes() == given[name].tobytes()
        assert (array.tobytes() == xavier[name].tobytes()) == (not name.startswith("upscore"))


@pytest.mark.parametrize("upsampling", ["nearest", "", None, 3, ["bilinear"], "Xavier"])
def test_upsampling_that_there_is_not(upsampling):
    with pytest.raises(ValueError, match="^upsampling: expected 'bilinear' or 'xavier', got "):
        fcn.build("mobilenet_v2", 2, "32s", upsampling=upsampling)


def test_activations_neither_vanish_nor_explode():
    """What an untrained network starts from: scores of the order of one."""
    x = np.random.default_rng(0).standard_normal((1, 96, 96, 3), np.float32)
    for backbone in ("vgg16", "mobilenet_v2"):
        spread = fcn.build(backbone, 5, "32s").logits(x).std()
        assert 0.01 < spread < 10


def test_classes():
    model = fcn.build("mobilenet_v2", ["road", "sky"], "32s")
    assert model.classes == ("road", "sky") and model.stride == 32
    assert model.architecture == {"backbone": "mobilenet_v2", "head": "32s", "fc": False}
    assert fcn.build("mobilenet_v2", np.int64(2), "32s").classes == ("class 0", "class 1")
    with pytest.raises(ValueError, match="^classes: expected 2 names, as the graph"):
        Model(model.graph, classes=["road"], preprocess=Preprocess.torch())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("vgg19", 2, "32s"), ValueError, "backbone: expected one of vgg16, .*, got 'vgg19'"),
        ((["vgg16"], 2, "32s"), ValueError, r"backbone: expected one of .*, got \['vgg16'\]"),
        (("vgg16", 2, ["8s"]), ValueError, r"head: expected one of .*, got \['8s'\]"),
        (("vgg16", 2, "4s"), ValueError, "head: expected one of 32s, 16s, 8s, got '4s'"),
        (("vgg16", 0, "32s"), ValueError, "classes: expected an integer from 1 to"),
        (("vgg16", MOST_CLASSES + 1, "32s"), ValueError, "classes: expected an integer from 1"),
        (("vgg16", 2.0, "32s"), TypeError, "classes: expected an integer"),
        (("vgg16", "sky", "32s"), TypeError, "classes: expected an integer"),
        (("vgg16", [], "32s"), ValueError, "classes: expected 1 to 4096 names, got 0"),
        (
            ("vgg16", ["a", "a"], "32s"),
            ValueError,
            "classes: expected each name once, got 'a' twice",
        ),
        (("vgg16", ["a", ""], "32s"), TypeError, "classes: expected names"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        fcn.build(*arguments)


def test_an_input_that_is_no_array():
    with pytest.raises(TypeError, match="^x: expected "):
        fcn.build("mobilenet_v2", 2, "32s")([[1.0]])


def test_options_that_do_not_fit():
    with pytest.raises(ValueError, match="^fc: expected False for resnet50v2"):
        fcn.build("resnet50v2", 2, "32s", fc=True)
    with pytest.raises(ValueError, match="^seed: expected an integer from 0"):
        fcn.build("mobilenet_v2", 2, "32s", seed=-1)
    model = fcn.build("mobilenet_v2", 2, "32s")
    with pytest.raises(ValueError, match="^device: expected 'cpu' or 'cuda', got 'tpu'"):
        model.to("tpu")
    assert model.to("cpu") is model


def test_preprocessing():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(Preprocess.torch()(pixels), (pixels / 255 - mean) / std, rtol=1e-5)
    np.testing.assert_allclose(Preprocess.tf()(pixels), pixels / 127.5 - 1, atol=1e-6)
    caffe = Preprocess.caffe()(pixels)
    np.testing.assert_allclose(caffe, pixels[..., ::-1] - [103.939, 116.779, 123.68], rtol=1e-5)
    for each in (Preprocess.torch(), Preprocess.tf(), Preprocess.caffe()):
        assert Preprocess.from_json(each.to_json()) == each
        assert each(pixels).dtype == np.float32 and each(pixels).flags.c_contiguous


@pytest.mark.parametrize(
    "described",
    [
        None,
        {},
        {**Preprocess.tf().to_json(), "more": 1},
        {**Preprocess.tf().to_json(), "order": "GBR"},
        {**Preprocess.tf().to_json(), "divisor": 0},
        {**Preprocess.tf().to_json(), "divisor": float("nan")},
        {**Preprocess.tf().to_json(), "divisor": True},
        {**Preprocess.tf().to_json(), "mean": [1, 2]},
        {**Preprocess.tf().to_json(), "mean": [1, 2, "3"]},
        {**Preprocess.tf().to_json(), "std": [1, 1, -1]},
        {**Preprocess.tf().to_json(), "std": "abc"},
    ],
)
def test_preprocessing_that_no_file_should_hold(described):
    with pytest.raises(ValueError, match="expected"):
        Preprocess.from_json(described)


@pytest.mark.parametrize("pixels", [np.ones((2, 2, 3)), np.ones((2, 2, 4), np.uint8)])
def test_preprocessing_of_what_is_no_picture(pixels):
    with pytest.raises(ValueError, match="^pixels: expected uint8 of shape"):
        Preprocess.tf()(pixels)


def test_preprocessing_is_keras_s(keras):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    for mode, module in (("tf", "resnet_v2"), ("caffe", "vgg16")):
        theirs = getattr(keras.applications, module).preprocess_input(pixels.astype(np.float32))
        np.testing.assert_allclose(getattr(Preprocess, mode)()(pixels), theirs, atol=1e-4)


def test_import_is_light():
    code = "import sys, fcn; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "convarith", "h5py", "PIL"} & set(done.stdout.split())
    assert set(fcn.__all__) <= set(dir(fcn))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fcn.nothing  # noqa: B018


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50v2"])
def test_what_the_benchmark_compares_with_is_the_same_network(keras, backbone, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    networks = importlib.import_module("networks")
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = randomised(graph_of(backbone, 3, "8s"))
    rng = np.random.default_rng(3)
    for name, array in graph.arrays().items():
        if name.endswith("/kernel") and not name.startswith("upscore"):
            array[...] = rng.standard_normal(array.shape) * np.sqrt(2 / array[..., 0].size)
    x = rng.standard_normal((2, 64, 96, 3)).astype(np.float32)
    logits = Graph({name: node for name, node in graph.nodes.items() if name != "softmax"}, 3)
    expected = Program(logits)(x)
    assert np.ptp(expected) > 0.1
    theirs = networks.keras_model(logits, x.shape)
    assert_close(np.asarray(theirs(x, training=False)), expected)
    session = onnxruntime.InferenceSession(
        networks.onnx_model(logits, x.shape).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    (theirs,) = session.run(None, {"x": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    assert_close(theirs.transpose(0, 2, 3, 1), expected)
