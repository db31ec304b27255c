"""The first network: MobileNetV2 made fully convolutional, and the demo around it."""

import sys

import numpy as np
import PIL.Image
import pytest
import skimage.data

from convarith import ConvGeometry
from fcn import pictures
from fcn.__main__ import main
from fcn.backbones import mobilenet_v2
from fcn.layers import Conv
from fcn.segment import ConvolutionalClassifier, to_pixels
from fcn.torch_file import read_state_dict


@pytest.fixture(scope="session")
def tensors(mobilenet_weights):
    return read_state_dict(mobilenet_weights)


@pytest.fixture(scope="session")
def model(tensors):
    return ConvolutionalClassifier(tensors)


@pytest.mark.parametrize(
    ("photograph", "label", "name", "probability"),
    [("cat", 285, "Egyptian cat", 0.7), ("coffee", 967, "espresso", 0.99)],
)
def test_known_classifications(model, photograph, label, name, probability):
    """What torchvision's model is known to say of these photographs."""
    picture = PIL.Image.fromarray(getattr(skimage.data, photograph)())
    probabilities = model.classify(pictures.centre_crop(picture))
    assert probabilities.argmax() == label and model.names[label] == name
    assert abs(probabilities[label] - probability) < 0.02
    assert abs(probabilities.sum() - 1) < 1e-9 and len(model.names) == 1000


def test_the_network_is_torchs(torch, tensors, model):
    """The same state dict through torch's own layers, with batch norms that are not folded."""
    functional = torch.nn.functional
    state = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}

    def norm(x, name, activation=True):
        parts = [state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        x = functional.batch_norm(x, *parts, eps=1e-5)
        return functional.relu6(x) if activation else x

    def forward(x):
        x = functional.conv2d(x, state["features.0.0.weight"], stride=2, padding=1)
        x = norm(x, "features.0.1")
        strides = {2: 2, 4: 2, 7: 2, 14: 2}
        for block in range(1, 18):
            name, y, stride = f"features.{block}.conv", x, strides.get(block, 1)
            at = 0
            if block > 1:
                y = norm(functional.conv2d(y, state[f"{name}.0.0.weight"]), f"{name}.0.1")
                at = 1
            weight = state[f"{name}.{at}.0.weight"]
            y = functional.conv2d(y, weight, stride=stride, padding=1, groups=len(weight))
            y = norm(y, f"{name}.{at}.1")
            y = functional.conv2d(y, state[f"{name}.{at + 1}.weight"])
            y = norm(y, f"{name}.{at + 2}", activation=False)
            x = x + y if stride == 1 and x.shape == y.shape else y
        x = norm(functional.conv2d(x, state["features.18.0.weight"]), "features.18.1")
        weight = state["classifier.1.weight"][:, :, None, None]
        return functional.conv2d(x, weight, state["classifier.1.bias"])

    image = skimage.data.cat()[:97, :130]
    mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((image / 255 - mean) / spread).astype(np.float32).transpose(2, 0, 1)[None]
    with torch.no_grad():
        theirs = forward(torch.from_numpy(x))[0].permute(1, 2, 0).numpy()
    ours = model.logits(image)
    assert ours.shape == theirs.shape == (4, 5, 1000)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1, 31, 32, 33, 224, 300, 451])
def test_feature_positions(model, size):
    """Feature o looks straight at pixel 32*o, which `to_pixels` relies on."""
    layers = [node.layer for node in model.graph.nodes.values()]
    halvings = [layer for layer in layers if isinstance(layer, Conv) and layer.strides == (2, 2)]
    jump = 1
    for layer in halvings:
        geometry = ConvGeometry(size, 3, strides=2, padding=layer.padding[:1])
        (middle,) = (tap for (tap,) in geometry.taps() if tap.k == 1)
        assert (middle.inputs.start, middle.inputs.step) == (0, 2)
        assert middle.outputs == slice(0, -(-size // 2))
        (size,), jump = geometry.output_size, jump * 2
    assert (len(halvings), jump) == (5, mobilenet_v2.STRIDE)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 1), (300, 451)])
def test_to_pixels_interpolates_between_the_features(size):
    cells = tuple(-(-n // 32) for n in size)
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((*cells, 3)).astype(np.float32)
    pixels = to_pixels(scores, size)
    assert pixels.shape == (*size, 3)
    np.testing.assert_allclose(pixels[::32, ::32], scores, atol=1e-6)
    rows, columns = np.arange(size[0]) / 32, np.arange(size[1]) / 32
    for c in range(3):
        down = np.stack([np.interp(rows, range(cells[0]), s) for s in scores[..., c].T], 1)
        both = np.stack([np.interp(columns, range(cells[1]), s) for s in down])
        np.testing.assert_allclose(pixels[..., c], both, atol=1e-5)


def test_segment_is_the_softmax_of_all_classes_at_once(model):
    image = skimage.data.coffee()[100:200, 200:333]
    found = model.segment(image)
    scores = to_pixels(model.logits(image), image.shape[:2]).astype(np.float64)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    softmax = powers / powers.sum(axis=-1, keepdims=True)
    np.testing.assert_array_equal(found.labels, scores.argmax(axis=-1))
    np.testing.assert_allclose(found.probabilities, softmax.max(axis=-1), rtol=1e-4)
    np.testing.assert_allclose(found.heat, softmax[..., found.best], atol=1e-5)
    classes = found.classes()
    assert found.best == classes[0][0]
    assert abs(sum(share for _, _, share in classes) - 1) < 1e-9
    for label, score, share in classes:
        own = found.labels == label
        assert share == pytest.approx(own.mean()) and 0 < score <= 1
        assert score == pytest.approx(softmax[own, label].mean(), rel=1e-4)


def test_the_heat_lies_on_the_cat(model):
    """The cat fills the left and the middle; the top right corner is background."""
    found = model.segment(skimage.data.cat())
    assert found.best in (281, 282, 285)
    cat = np.isin(found.labels, (281, 282, 285))
    assert cat[100:250, 100:350].mean() > 0.8
    assert cat[:30, 410:].mean() < 0.3


@pytest.mark.parametrize(
    "name", ["features.0.0.weight", "classifier.1.bias", "features.3.conv.1.1.bias"]
)
@pytest.mark.parametrize("change", ["missing", "shape", "dtype"])
def test_weights_that_do_not_fit(tensors, name, change):
    wrong = dict(tensors)
    if change == "missing":
        del wrong[name]
    elif change == "shape":
        wrong[name] = wrong[name][:-1]
    else:
        wrong[name] = wrong[name].astype(np.float64)
    with pytest.raises(ValueError, match=f"^{name}: expected float32 of shape"):
        ConvolutionalClassifier(wrong)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (33, 31, 3)])
def test_small_pictures(model, shape):
    found = model.segment(np.full(shape, 128, np.uint8))
    assert found.labels.shape == shape[:2]


def test_demo_with_no_argument(mobilenet_weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.split()[0].isdigit()]
    assert len(rows) == 3 and rows[0][:3] == ["285", "Egyptian", "cat"]
    assert any(line.startswith("took ") for line in lines)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.png"]
    with PIL.Image.open("demo.png") as panel:
        assert panel.width > 2 * panel.height > 400


def test_demo_of_a_file(mobilenet_weights, tmp_path, capsys):
    """A large grey photograph on its side, as a phone writes it."""
    picture = PIL.Image.fromarray(skimage.data.camera()).resize((1200, 900))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "phone.jpg", exif=exif)
    out = tmp_path / "panel.jpg"
    assert main(["demo", str(tmp_path / "phone.jpg"), "--top", "1", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "phone.jpg: 480 x 640 pixels, shrunk from 900 x 1200" in printed
    assert len([line for line in printed.splitlines() if line.split()[0].isdigit()]) == 1
    with PIL.Image.open(out) as panel:
        assert panel.format == "JPEG"


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_demo_of_what_is_no_picture(tmp_path, capsys, content):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    assert main(["demo", str(path), "--out", str(tmp_path / "out.png")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fcn: {path}: not a") and error.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3)])
def test_demo_of_odd_sizes(mobilenet_weights, tmp_path, size):
    """A panel of a strip stays a panel."""
    path, out = tmp_path / "strip.png", tmp_path / "panel.png"
    PIL.Image.new("RGB", size, "orange").save(path)
    assert main(["demo", str(path), "--out", str(out)]) == 0
    with PIL.Image.open(out) as panel:
        assert max(panel.size) < 2000


@pytest.mark.parametrize("name", ["$\\foo$ ^_.png", "\u732b.png", "a b\udcff.png"])
def test_demo_of_odd_names(mobilenet_weights, tmp_path, capsys, name):
    path, out = tmp_path / name, tmp_path / "panel.png"
    try:
        PIL.Image.new("RGB", (40, 30), "orange").save(path)
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    assert main(["demo", str(path), "--out", str(out)]) == 0
    assert out.is_file() and not capsys.readouterr().err


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK", "I;16", "I", "YCbCr"])
def test_every_integer_mode_is_read(tmp_path, mode):
    """In the colours that the mode has; 16 bits are scaled, not clipped."""
    grey = PIL.Image.fromarray(skimage.data.camera()[::8, ::8])
    if mode == "I;16":
        picture = PIL.Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode == "I":
        picture = PIL.Image.fromarray(np.asarray(grey).astype(np.int32) * 257)
    else:
        picture = grey.convert("RGB").convert(mode)
    path = tmp_path / "picture.tif"
    picture.save(path)
    expected = (grey if mode.startswith("I") else picture).convert("RGB")
    np.testing.assert_array_equal(pictures.read(path), expected)


def test_floats_have_no_range(tmp_path):
    PIL.Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(pictures.Unreadable, match="floats of unknown range"):
        pictures.read(tmp_path / "f.tif")
    PIL.Image.fromarray(np.ones((4, 4), np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(pictures.Unreadable, match="32-bit integers of unknown range"):
        pictures.read(tmp_path / "i.tif")


def test_a_tiff_whose_zero_is_white(tmp_path):
    grey = PIL.Image.fromarray(np.arange(0, 65536, 4369, dtype=np.uint16).reshape(4, 4))
    tags = PIL.TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    grey.save(tmp_path / "a.tif", tiffinfo=tags)
    found = np.asarray(pictures.read(tmp_path / "a.tif"))
    np.testing.assert_array_equal(found[..., 0].ravel(), 255 - np.arange(0, 256, 17))


def test_the_photograph_is_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    PIL.Image.new("RGB", (4, 4)).save("demo.png")
    before = (tmp_path / "demo.png").read_bytes()
    assert main(["demo", "demo.png"]) == 2
    assert capsys.readouterr().err == "fcn: --out: demo.png is one of the inputs, demo.png\n"
    assert (tmp_path / "demo.png").read_bytes() == before


def test_without_the_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert main(["demo", "x.png", "--out", str(tmp_path / "out.png")]) == 2
    error = capsys.readouterr().err
    assert 'pip install "convarith[fcn]"' in error and error.count("\n") == 1


def test_demo_of_nothing(tmp_path, capsys):
    assert main(["demo", str(tmp_path / "none.png"), "--out", str(tmp_path / "out.png")]) == 2
    assert capsys.readouterr().err == f"fcn: {tmp_path / 'none.png'}: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments",
    [["--top", "0"], ["--top", "x"], ["--out", "panel.txt"], ["--out", "no/such/a.png"]],
)
def test_demo_with_bad_options(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", *arguments])
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_panel_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(self, path, **_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    old = tmp_path / "panel.png"
    old.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        pictures.save_heat_panel(old, np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), "a", "b")
    assert old.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["panel.png"]
