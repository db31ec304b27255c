"""`python -m fcn evaluate`, on a small data set made here."""

import re

import numpy as np
import PIL.Image
import pytest
import skimage.data

import fcn.model
from fcn import tiling
from fcn.__main__ import main
from fcn.evaluate import predictions, table
from fcn.graph import INPUT, Graph, Node
from fcn.layers import Conv
from fcn.metrics import Confusion
from fcn.model import Model, build
from fcn.palette import Classes
from fcn.preprocess import Preprocess
from fcn.voc import Dataset

NAMES = ("dark", "red", "green", "blue", "nowhere")


def by_colour(names=NAMES):
    """Return a network of one 1x1 convolution: the strongest colour, or class 0 if dark."""
    kernel, bias = np.zeros((1, 1, 3, len(names)), np.float32), np.full(len(names), -1, np.float32)
    kernel[0, 0, :, 1:4] = np.eye(3)
    bias[:4] = [0.3, 0, 0.001, 0]
    graph = Graph({"scores": Node(Conv(kernel, bias), (INPUT,))}, 3)
    return Model(graph, classes=names, preprocess=Preprocess(divisor=255.0))


@pytest.fixture
def data(tmp_path):
    """Photographs of three sizes, whose masks are what the network finds, but for a tenth."""
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(NAMES))
    names, model, palette = [], by_colour(), Classes.of(NAMES).table().tobytes()
    for size in ((40, 33), (50, 61), (64, 64)):
        name = names.append(f"a{len(names)}") or names[-1]
        path = root / "JPEGImages" / f"{name}.jpg"
        PIL.Image.fromarray(skimage.data.astronaut()).resize(size).save(path)
        with PIL.Image.open(path) as picture:
            labels = tiling.segment(model, np.asarray(picture))
        wrong = rng.random(labels.shape) < 0.1
        labels[wrong] = rng.choice([0, 1, 2, 3, 255], size=wrong.sum())
        mask = PIL.Image.fromarray(labels)
        mask.putpalette(palette)
        mask.save(root / "SegmentationClass" / f"{name}.png")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(names))
    return root


@pytest.fixture
def run(monkeypatch, data, tmp_path):
    def run(*arguments, model=None):
        monkeypatch.setattr(fcn.model, "load", lambda path: model or by_colour())
        weights = str(tmp_path / "weights.safetensors")
        return main(["evaluate", "--data", str(data), "--weights", weights, *arguments])

    return run


def test_the_figures_are_the_confusions(run, data, capsys):
    """Counted here pixel by pixel, from the files."""
    counts = np.zeros((5, 5), int)
    for name in ("a0", "a1", "a2"):
        with PIL.Image.open(data / "JPEGImages" / f"{name}.jpg") as picture:
            rgb = np.asarray(picture) / np.float32(255)
        scores = np.concatenate([np.full_like(rgb[..., :1], 0.3), rgb + [0, 0.001, 0]], -1)
        with PIL.Image.open(data / "SegmentationClass" / f"{name}.png") as mask:
            labels = np.asarray(mask)
        kept = labels != 255
        np.add.at(counts, (labels[kept], scores.argmax(-1)[kept]), 1)
    confusion = Confusion(5)
    for sample, found in predictions(by_colour(), Dataset(data, "val", None)):
        confusion.add(sample.labels, found)
    np.testing.assert_array_equal(confusion.matrix, counts)

    assert run() == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0].startswith(f"{data}, val: 3 pictures, ")
    assert lines[1:] == table(confusion, NAMES)
    figures = dict(re.findall(r"^(.*\S) +(0\.\d{4})$", printed.out, re.MULTILINE))
    there = counts[:4, :4]  # the fifth class is nowhere
    right, true = there.diagonal(), there.sum(1)
    ius = right / (true + there.sum(0) - right)
    assert figures == {
        "pixel accuracy": f"{right.sum() / true.sum():.4f}",
        "mean accuracy": f"{(right / true).mean():.4f}",
        "mean IU": f"{ius.mean():.4f}",
        "frequency weighted IU": f"{(true * ius).sum() / true.sum():.4f}",
    }
    assert 0.9 < float(figures["pixel accuracy"]) < 1
    assert re.search(r"^nowhere +- +- +0\.00%$", printed.out, re.MULTILINE)
    assert lines[-1] == f"{true.sum()} pixels counted, {confusion.void_pixels} void"


def test_pictures_at_fault(run, data, capsys):
    path = data / "JPEGImages" / "a1.jpg"
    path.write_bytes(path.read_bytes()[:200])
    assert run() == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(f"fcn: skipped {path}: not a whole picture")
    assert printed.err.count("\n") == 1 and "val: 2 pictures, 1 skipped, " in printed.out
    assert run("--strict") == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"fcn: {path}: not a whole picture") and not printed.out


def test_weights_for_other_classes(run, data, capsys):
    assert run(model=by_colour(NAMES[:4])) == 2
    assert f"expected 5 classes as {data} has, got 4" in capsys.readouterr().err
    assert run(model=by_colour(("dark", "green", "red", "blue", "nowhere"))) == 2
    error = capsys.readouterr().err
    assert f"expected 'red' as class 1, as {data} has, got 'green'" in error


@pytest.mark.parametrize(
    "names", [tuple(f"class {i}" for i in range(5)), ("Dark", "RED", "g-reen", "blue ", "no where")]
)
def test_names_that_tell_nothing_else(run, names, capsys):
    assert run(model=by_colour(names)) == 0
    assert re.search(r"^dark ", capsys.readouterr().out, re.MULTILINE)


def test_weights_that_are_no_numbers(run, capsys):
    model = by_colour()
    model.graph.arrays()["scores/kernel"][0, 0, 0, 0] = np.nan
    assert run(model=model) == 2
    error = capsys.readouterr().err
    assert "weights.safetensors: scores/kernel: expected finite numbers, got NaN" in error


def test_a_split_that_is_not_there(run, data, capsys):
    assert run("--split", "test") == 2
    expected = f"fcn: {data}: expected a split of val, got 'test'\n"
    assert capsys.readouterr().err == expected


def test_a_real_network(run, capsys):
    model = build("mobilenet_v2", NAMES, "32s")
    assert run(model=model) == 0
    assert "mean IU" in capsys.readouterr().out


def test_the_panel(run, data, tmp_path, capsys):
    path = tmp_path / "panel.png"
    assert run("--panel", str(path), "--pictures", "2") == 0
    assert capsys.readouterr().out.endswith(f"wrote {path}\n")
    with PIL.Image.open(path) as panel:
        pixels = np.asarray(panel)
    heights = [round(400 * h / w) for h, w in ((33, 40), (61, 50))]
    assert pixels.shape[1] == 3 * 408 + 8 and pixels.shape[0] > sum(heights)
    # The first label, in the data's colours, below the heading.
    with PIL.Image.open(data / "SegmentationClass" / "a0.png") as mask:
        label = np.asarray(mask.convert("RGB").resize((400, heights[0]), 0))
    top = next(y for y in range(99) if np.array_equal(pixels[y, 416:816], label[0]))
    np.testing.assert_array_equal(pixels[top : top + heights[0], 416:816], label)
    assert run("--panel", str(tmp_path / "all.png"), "--pictures", "99") == 0
    with pytest.raises(SystemExit):
        run("--panel", str(tmp_path / "panel.txt"))


@pytest.mark.parametrize("name", ["JPEGImages/a1.jpg", "SegmentationClass/a0.png"])
def test_the_panel_overwrites_nothing_that_is_read(run, data, capsys, name):
    path = data / name
    before = path.read_bytes()
    assert run("--panel", str(path)) == 2
    assert capsys.readouterr().err.startswith(f"fcn: --panel: {path} is one of the inputs")
    assert path.read_bytes() == before


def test_a_table_of_nothing():
    lines = table(Confusion(2), ["a", "b"])
    assert lines[1].split() == ["a", "-", "-", "0.00%"]
    assert lines[-2].split() == ["frequency", "weighted", "IU", "-"]
