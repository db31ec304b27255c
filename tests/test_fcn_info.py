"""``python -m fcn info``, and what it reckons with: costs and receptive fields."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fcn
from convarith import CoordinateMap, Window
from fcn import receptive
from fcn.__main__ import main
from fcn.costs import flops, inference_bytes, saved_bytes, training_bytes, training_parts
from fcn.graph import INPUT, Graph, Node
from fcn.inference import Program
from fcn.layers import Add, Conv, ConvTranspose, Crop, MaxPool, ReLU, ZeroPadding
from fcn.model import graph_of
from fcn.receptive import fields, halo, stride


def rows(printed):
    """The table by node: each row's cells."""
    lines = printed.splitlines()
    return {line.split()[0]: line.split() for line in lines[2 : lines.index("")]}


def ones(*shape):
    return np.ones(shape, np.float32)


def test_the_textbooks_network(capsys):
    arguments = ["info", "--backbone", "resnet101v2", "--head", "32s", "--classes", "21"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("resnet101v2, head 32s, 1 x 320 x 480 pixels\n")
    table = rows(printed)
    assert list(table) == list(graph_of("resnet101v2", 21, "32s").nodes)
    assert table["conv1_conv"] == "conv1_conv Conv 160x240x64 9,472 722.5 7 2".split()
    assert table["post_relu"][:3] == ["post_relu", "ReLU", "10x15x2048"]
    assert table["score32"][2:4] == ["10x15x21", "43,029"]
    assert table["upscore"][1:4] == ["ConvTranspose", "320x480x21", "1,806,336"]
    assert table["softmax"][-1] == "1"
    assert "parameters       44,378,261 trained, 97,664 more of batch statistics\n" in printed
    assert "weights          169.7 MiB\n" in printed
    assert "A multiply-add is 2 FLOP." in printed


def test_of_another_size_and_batch(capsys):
    arguments = ["info", "--backbone", "vgg16", "--head", "8s", "--classes", "2"]
    assert main([*arguments, "--size", "33x1", "--batch", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("vgg16, head 8s, 3 x 33 x 1 pixels\n")
    table = rows(printed)
    assert table["pool5"][2] == "2x1x512" and table["softmax"][2] == "33x1x2"
    assert main([*arguments, "--fc"]) == 0
    assert rows(capsys.readouterr().out)["fc6"][3] == "102,764,544"


def test_of_a_file(capsys, tmp_path):
    path = tmp_path / "model.safetensors"
    fcn.build("mobilenet_v2", 3, "16s").save(path)
    assert main(["info", str(path), "--size", "64x96"]) == 0
    ours = capsys.readouterr().out
    options = ["--backbone", "mobilenet_v2", "--head", "16s", "--classes", "3"]
    assert main(["info", *options, "--size", "64x96"]) == 0
    theirs = capsys.readouterr().out
    assert ours.splitlines()[1:] == theirs.splitlines()[1:]
    assert ours.startswith(f"{path}, 1 x 64 x 96 pixels\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected FILE, or --backbone, --head and --classes"),
        (["--backbone", "vgg16", "--head", "8s"], "expected FILE, or --backbone, --head and"),
        (["a.safetensors", "--classes", "2"], "expected FILE, or --backbone, --head and --classes"),
        (["a.safetensors", "--fc"], "expected FILE, or --backbone, --head and --classes, got both"),
        (["no-such-file"], "No such file or directory"),
        (["--backbone", "a", "--head", "8s", "--classes", "2"], "backbone: expected one of vgg16"),
        (["--backbone", "vgg16", "--head", "a", "--classes", "2"], "head: expected one of 32s"),
        (
            ["--backbone", "vgg16", "--head", "8s", "--classes", "999999"],
            "classes: expected an integer from 1 to 4096",
        ),
        (
            ["--backbone", "resnet50v2", "--head", "8s", "--classes", "2", "--fc"],
            "fc: expected False for resnet50v2",
        ),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    assert main(["info", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--size", "3"], ["--size", "0x3"], ["--classes", "-1"]])
def test_arguments_that_are_no_numbers(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["info", *arguments])
    assert caught.value.code == 2 and arguments[0] in capsys.readouterr().err


# Operations.


def test_operations_are_those_published():
    """Of VGG16's convolutions and of ResNet50's at 224x224, in multiply-adds."""
    for backbone, last, published in (
        ("vgg16", "conv5_3", 15.35e9),
        ("resnet50v2", "post_relu", 3.48e9),
        ("mobilenet_v2", "features.18.0", 0.300e9),
    ):
        graph = graph_of(backbone, 2, "32s")
        shapes = {INPUT: (1, 224, 224, 3)} | graph.shapes((1, 224, 224, 3))
        total = 0
        for name, node in graph.nodes.items():
            total += flops(node.layer, shapes[node.inputs[0]], shapes[name])
            if name == last:
                break
        assert total / 2 == pytest.approx(published, rel=0.01)


def test_operations_are_the_matrix_s():
    """2 an entry of the matrix, where nothing is padded."""
    layer = Conv(ones(3, 2, 4, 6), strides=(2, 1), padding="VALID", groups=2)
    source = (3, 9, 8, 8)
    nnz = layer.geometry(source).nnz
    assert flops(layer, source, layer.output_shape(source)) == 2 * 3 * nnz
    layer = ConvTranspose(ones(3, 3, 4, 6), strides=2, padding="VALID")
    source = (3, 5, 6, 6)
    nnz = layer.geometry(source).nnz
    assert flops(layer, source, layer.output_shape(source)) == 2 * 3 * nnz
    assert flops(ReLU(), source, source) == 0


# Memory.


def held_bytes(saved, x):
    """The bytes of the input and of the arrays in what a forward saved, each once."""
    found = {}

    def visit(value):
        if isinstance(value, np.ndarray) and value.ndim == 4:
            found[value.__array_interface__["data"][0]] = value.nbytes
        elif isinstance(value, (tuple, list)):
            for entry in value:
                visit(entry)

    for value in (x, *saved.layers.values()):
        visit(value)
    return sum(found.values())


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50v2", "mobilenet_v2"])
@pytest.mark.parametrize("size", [(64, 96), (33, 40)])
def test_what_a_step_saves(backbone, size):
    graph = graph_of(backbone, 4, "8s")
    x = np.zeros((2, *size, 3), np.float32)
    y, saved = graph.forward(x, train=True)
    expected = saved_bytes(graph, x.shape)
    assert held_bytes(saved, x) == expected
    gradients = 4 * sum(array.size for array in graph.parameters().values())
    most = training_parts(graph, x.shape)["activations"]
    assert max(expected, gradients) < most < 2 * (expected + gradients + 4 * x.size * 64)


def test_what_inference_holds():
    """The program's arrays are as large as was said."""
    model = fcn.build("vgg16", 3, "8s")
    x = np.zeros((2, 64, 96, 3), np.float32)
    y = model.logits(x)
    (plan,) = model.program._plans.values()
    held = sum(buffer.nbytes for buffer in plan._bound.buffers)
    assert inference_bytes(model.program, x.shape) == held + x.nbytes + y.nbytes


def test_a_larger_batch_takes_more():
    graph = graph_of("mobilenet_v2", 3, "8s")
    for count in (training_bytes, lambda g, shape: inference_bytes(Program(g), shape)):
        one, two = (count(graph, (n, 64, 64, 3)) for n in (1, 2))
        assert one < two <= 2 * one


# Receptive fields.


@st.composite
def chains(draw):
    """Layers one after another, and the same as windows."""
    nodes, windows, last = {}, [], INPUT
    for number in range(draw(st.integers(1, 5))):
        k, s, d = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        low, high = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        pair = ((low, high), (high, low))
        kind = draw(st.sampled_from(("conv", "pool", "pad", "up")))
        if kind == "conv":
            layer = Conv(ones(k, k, 1, 1), strides=s, padding=pair, dilations=d)
            window = Window((k, k), s, d, pair)
        elif kind == "pool":
            pair = tuple(tuple(min(side, k - 1) for side in sides) for sides in pair)
            layer, window = MaxPool(k, s, pair), Window((k, k), s, padding=pair)
        elif kind == "pad":
            layer, window = ZeroPadding(pair), Window((1, 1), padding=pair)
        else:
            k = max(k, s)
            layer = ConvTranspose(ones(k, k, 1, 1), strides=s, padding="VALID")
            window = Window((k, k), s, transposed=True)
        nodes[f"n{number}"] = Node(layer, (last,))
        windows.append(window)
        last = f"n{number}"
    return Graph(nodes, 1), windows


@given(chains())
@settings(max_examples=100)
def test_a_chain_s_fields_are_convariths(found):
    graph, windows = found
    seen = fields(graph)
    for count, name in enumerate(graph.nodes, 1):
        expected = CoordinateMap(windows[:count])
        assert seen[name].jump == expected.jump
        assert seen[name].size == expected.receptive_field
    expected = CoordinateMap(windows)
    assert halo(graph) == tuple(map(max, zip(*expected.halo, strict=True)))
    assert stride(graph) == max(
        1,
        *(
            math.ceil(j)
            for at in range(len(windows))
            for j in CoordinateMap(windows[: at + 1]).jump
        ),
    )


def test_branches_see_what_any_of_them_sees():
    nodes = {
        "wide": Node(Conv(ones(7, 7, 1, 1)), (INPUT,)),
        "narrow": Node(Conv(ones(3, 3, 1, 1)), (INPUT,)),
        "sum": Node(Add(), ("narrow", "wide")),
        "down": Node(MaxPool(2, 2, "SAME"), ("sum",)),
        "up": Node(ConvTranspose(ones(4, 4, 1, 1), strides=2), ("down",)),
        "crop": Node(Crop(), ("up", INPUT)),
    }
    seen = fields(Graph(nodes, 1))
    sizes = {name: field.size for name, field in seen.items()}
    assert sizes["wide"] == sizes["sum"] == (7, 7) and sizes["narrow"] == (3, 3)
    assert sizes["down"] == (8, 8) and sizes["up"] == sizes["crop"] == (10, 10)
    assert [str(jump) for jump in seen["up"].jump] == ["1", "1"]


def test_what_lies_outside_of_the_field_changes_nothing():
    """By the derivative: it is zero there but for rounding, and not in most of what is inside."""
    graph = graph_of("vgg16", 2, "32s")
    rng = np.random.default_rng(0)
    for node in graph.nodes.values():
        for name, array in node.layer.arrays().items():
            if name == "kernel":
                array[...] = np.abs(rng.standard_normal(array.shape)) / array[..., 0].size
    size = fields(graph)["score32"].size[0]
    x = np.abs(rng.standard_normal((1, 32, 1024, 3))).astype(np.float32)
    y, saved = graph.forward(x, train=True, until="score32")
    g = np.zeros_like(y)
    g[0, 0, 16, 0] = 1
    gx, _ = graph.backward(saved, g)
    along = np.abs(gx[0]).max(axis=(0, 2))
    reached = np.flatnonzero(along > 1e-6 * along.max())
    assert 0.5 * size < reached[-1] + 1 - reached[0] <= size


def test_graphs_that_take_for_ever_are_refused(monkeypatch):
    ones = np.ones((1, 1, 1, 1), np.float32)
    nodes = {
        "down": Node(Conv(ones, strides=2048), (INPUT,)),
        "up": Node(ConvTranspose(ones, strides=2048), ("down",)),
        "more": Node(ConvTranspose(ones, strides=4096), ("up",)),
    }
    graph = Graph(nodes, 1)
    for function in (fields, halo):
        with pytest.raises(ValueError, match="expected a result that repeats within 4096"):
            function(Graph({**nodes, "most": Node(ConvTranspose(ones, strides=2), ("more",))}, 1))
    monkeypatch.setattr(receptive, "MOST_STEPS", 1000)
    with pytest.raises(ValueError, match="take more than 1000 steps"):
        fields(graph)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
def test_of_a_keras_file_whose_preprocessing_is_unknown(tmp_path, capsys):
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)])
    model.save(tmp_path / "plain.keras")
    assert main(["info", str(tmp_path / "plain.keras"), "--size", "9x9"]) == 0
    assert "7x7x2" in capsys.readouterr().out
