"""Training as torch trains: the same losses step by step, and the benchmark that compares them."""

import importlib
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import fcn
from fcn.graph import INPUT, Graph, Node
from fcn.layers import Add, BatchNorm, Conv, ConvTranspose, Crop, MaxPool, ReLU, ZeroPadding
from fcn.optimizers import SGD, Adam
from fcn.preprocess import Preprocess

CLASSES = 11


@pytest.fixture
def compared(torch, monkeypatch):
    """Return the benchmark, which is no package."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    return importlib.import_module("train_torch")


def batches(count, height, width, classes=CLASSES):
    """Return batches of two pictures of patches, whose colours tell the classes up to noise.

    Each has rows that are void, the fifth has nothing else.
    """
    rng = np.random.default_rng(1)
    colours, made = rng.standard_normal((classes, 3)), []
    for number in range(count):
        patches = rng.integers(0, classes, (2, height // 8, width // 8))
        labels = patches.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
        x = colours[labels] + rng.normal(0, 0.3, (*labels.shape, 3))
        labels[:, -5 if number != 4 else 0 :] = 255
        made.append((x.astype(np.float32), labels))
    return made


def losses(side, data):
    return np.array([float(side.step(x, labels)) for x, labels in data])


@pytest.mark.parametrize(
    ("optimizer", "rate", "decay"), [(Adam(), 1e-5, 0.0), (SGD(momentum=0.9), 5e-4, 1.0)]
)
def test_ten_steps_of_vgg16_are_torch_s(compared, optimizer, rate, decay):
    """A height of 48 is halved to 3 rows, which pooling pads and upsampling exceeds."""
    model = fcn.build("vgg16", CLASSES, "8s", seed=3)
    data = batches(10, 48, 32)
    # torch's copies the weights before ours trains them.
    theirs = compared.Theirs(model, optimizer, rate, decay)
    ours = compared.Ours(model, optimizer, rate, decay)
    found, expected = losses(ours, data), losses(theirs, data)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert found[4] == 0 and np.isfinite(found).all()
    assert found[-1] < found[0] - 0.25
    pixels = np.random.default_rng(2).integers(0, 256, (35, 75, 3), np.uint8)
    same = ours.segmenter()(pixels) == theirs.segmenter()(pixels)
    assert same.shape == (35, 75) and same.mean() > 0.98


def test_steps_of_mobilenet_v2_are_torch_s(compared):
    """Batch norms by the batch, ReLU6 and depthwise convolutions; not their moving statistics.

    torch moves its variances by the unbiased one. The rate is small: an entry that rounding takes
    over a bend of ReLU6 is felt in all gradients, of a network with fresh weights the more so.
    """
    model = fcn.build("mobilenet_v2", CLASSES, "8s", seed=3)
    data = batches(1, 64, 96) * 3
    theirs, ours = (side(model, Adam(), 1e-5) for side in (compared.Theirs, compared.Ours))
    found, expected = losses(ours, data), losses(theirs, data)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert (np.diff(found) < -0.01).all()


def uneven(rng):
    """Return a network of all layers, with padding that torch's own arguments cannot say."""

    def kernel(*shape):
        return rng.normal(0, 0.3, shape).astype(np.float32)

    ones, zeros = np.ones(6, np.float32), np.zeros(6, np.float32)
    nodes = {
        "pad": Node(ZeroPadding(((0, 1), (2, 0))), (INPUT,)),
        "conv": Node(Conv(kernel(3, 4, 3, 6), strides=(2, 1)), ("pad",)),
        "norm": Node(BatchNorm(None, kernel(6), zeros, ones), ("conv",)),
        "relu": Node(ReLU(6), ("norm",)),
        "grouped": Node(Conv(kernel(2, 2, 2, 6), strides=2, groups=3), ("relu",)),
        "pool": Node(MaxPool((3, 2), (2, 1), "SAME"), ("grouped",)),
        "up": Node(ConvTranspose(kernel(3, 4, 6, 6), kernel(6), strides=(2, 1)), ("pool",)),
        "gaps": Node(ConvTranspose(kernel(2, 1, 4, 6), kernel(4), (4, 2), "VALID"), ("up",)),
        "cut": Node(ConvTranspose(kernel(3, 3, 4, 6), None, 2, ((0, 1), (1, 0))), ("relu",)),
        "crop": Node(Crop(), ("gaps", INPUT)),
        "wide": Node(Crop(), ("cut", INPUT)),
        "sum": Node(Add(), ("crop", "wide")),
    }
    return fcn.Model(Graph(nodes, 3), classes=list("abcd"), preprocess=Preprocess())


def test_every_layer_is_the_same_there(compared):
    rng = np.random.default_rng(0)
    model = uneven(rng)
    x = rng.standard_normal((2, 9, 14, 3)).astype(np.float32)
    labels = rng.integers(0, 4, (2, 9, 14)).astype(np.uint8)
    theirs = compared.Theirs(model, SGD(0.9), 0.1, 0.01, layout="channels_last")
    ours = compared.Ours(model, SGD(0.9), 0.1, 0.01)
    begun = {name: array.copy() for name, array in model.graph.parameters().items()}
    data = [(x, labels)] * 3
    np.testing.assert_allclose(losses(ours, data), losses(theirs, data), rtol=0, atol=1e-5)
    for name, array in model.graph.parameters().items():
        tensor = theirs.tensors[name].detach().numpy()
        there = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
        np.testing.assert_allclose(array, there, rtol=0, atol=1e-5, err_msg=name)
        assert np.abs(array - begun[name]).max() > 1e-4, name


def test_what_is_not_mapped_is_named(compared):
    nodes = {"far": Node(Conv(np.ones((3, 3, 3, 2), np.float32), dilations=2), (INPUT,))}
    model = fcn.Model(Graph(nodes, 3), classes=["a", "b"], preprocess=Preprocess())
    with pytest.raises(ValueError, match=r"node far: expected dilations of 1, got \(2, 2\)"):
        compared.Theirs(model, Adam(), 1e-4)


@pytest.fixture
def folder(tmp_path):
    """Return a data set of five pictures to train on and two to validate on."""
    rng = np.random.default_rng(0)
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "data" / part).mkdir(parents=True)
    (tmp_path / "data" / "classes.txt").write_text("a\nb\nc\nd\n")
    for split, names in (("train", "01234"), ("val", "56")):
        for name in names:
            pixels = rng.integers(0, 256, (18, 30, 3), np.uint8)
            labels = rng.choice([0, 1, 2, 3, 255], (18, 30)).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(tmp_path / "data" / "JPEGImages" / f"{name}.png")
            PIL.Image.fromarray(labels).save(
                tmp_path / "data" / "SegmentationClass" / f"{name}.png"
            )
        listing = tmp_path / "data" / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.write_text("\n".join(names))
    return tmp_path / "data"


def test_what_the_command_writes(compared, folder, tmp_path, monkeypatch, capsys):
    """With a small network in VGG16's place, and the test's own threads."""
    asked = []

    def build(*arguments, **options):
        asked.append((arguments, options))
        return uneven(np.random.default_rng(0))

    monkeypatch.setattr(compared.fcn, "build", build)
    monkeypatch.setattr(compared.hardware, "use_threads", lambda threads: None)
    arguments = ["--data", str(folder), "--weights", "none", "--batch", "2", "--crop", "20x32"]
    written = tmp_path / "figures.json"
    assert compared.main([*arguments, "--epochs", "2", "--json", str(written)]) == 0
    assert asked == [(("vgg16", ("a", "b", "c", "d"), "8s"), {"weights": None, "seed": 0})]
    result = json.loads(written.read_text())
    assert result["pictures"] == {"train": 5, "val": 2} and result["data"] == "data"
    assert result["recipe"]["lr"] == 1e-4 and result["recipe"]["crop"] == [20, 32]
    assert {"numpy", "torch", "numba"} <= result["machine"]["versions"].keys()
    assert len(result["epochs"]) == 2
    for epoch in result["epochs"]:
        ours, theirs = epoch["convarith"], epoch["torch"]
        np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=0, atol=1e-3)
        assert len(ours["losses"]) == 3 and len(ours["ius"]) == 4
        assert ours["pixel_accuracy"] == pytest.approx(theirs["pixel_accuracy"], abs=0.02)
        assert ours["mean_iu"] == pytest.approx(theirs["mean_iu"], abs=0.02)
        assert min(ours["training_seconds"], theirs["validation_seconds"]) > 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1: convarith ") and second.startswith("epoch 2: ")
    assert "x torch's speed in training" in last

    assert compared.main([*arguments, "--epochs", "1", "--steps", "1", "--sides", "ours"]) == 0
    (only,) = capsys.readouterr().out.splitlines()
    assert "torch" not in only


def test_what_the_command_refuses(compared, tmp_path, capsys):
    assert compared.main(["--data", str(tmp_path)]) == 2
    assert "expected Pascal VOC's layout" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compared.main(["--data", str(tmp_path), "--json", str(tmp_path / "no" / "file.json")])
    assert "--json: cannot write" in capsys.readouterr().err
