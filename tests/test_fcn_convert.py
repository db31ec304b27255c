"""``python -m fcn convert`` on bad input: one line, exit code 2, and no half-written file."""

import dataclasses
import io
import json
import os
import zipfile

import h5py
import numpy as np
import pytest

import fcn
from fcn import hdf5_index, keras_config, keras_file, keras_model
from fcn.__main__ import main
from fcn.graph import INPUT

BACKBONE = ("--backbone=vgg16", "--classes=2", "--head=32s")


@pytest.fixture
def here(monkeypatch):
    """Let libhdf5 run in this process, which takes a hundredth of the time."""

    def index(file):
        return hdf5_index.index(file, file.seek(0, 2))

    monkeypatch.setattr(keras_file, "_index", index)


@pytest.fixture
def refused(tmp_path, capsys):
    """Convert a file that must be refused; return the line that says why."""
    folder = tmp_path / "out"
    folder.mkdir()

    def refused(path, *options):
        assert main(["convert", str(path), str(folder / "out.safetensors"), *options]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("fcn: ") and err.count("\n") == 1 and len(err) < 1000
        assert os.listdir(folder) == []
        return err

    return refused


def layer(kind, name, **options):
    return {"class_name": kind, "config": {"name": name} | options}


CONV = {"filters": 2, "kernel_size": [1, 1], "strides": [1, 1], "padding": "valid"}
CONV |= {"use_bias": True, "activation": "linear", "data_format": "channels_last"}


def sequential(*layers):
    first = layer("InputLayer", "in", batch_shape=[None, None, None, 3])
    return {"class_name": "Sequential", "config": {"name": "net", "layers": [first, *layers]}}


NETWORK = sequential(layer("Conv2D", "conv", **CONV))


def hdf5(path, arrays=None, configuration=None):
    """Write a file of Keras 3's layout, or of the legacy one where there is a configuration."""
    if arrays is None:
        arrays = {"kernel": np.ones((1, 1, 3, 2), np.float32), "bias": np.ones(2, np.float32)}
    with h5py.File(path, "w") as file:
        if configuration is not None:
            file.attrs["model_config"] = json.dumps(configuration)
        legacy = configuration is not None
        group = file.create_group("model_weights/conv/conv" if legacy else "layers/conv2d/vars")
        if not legacy:
            group.attrs["name"] = "conv"
        for number, (name, array) in enumerate(arrays.items()):
            group[name if legacy else str(number)] = array
    return path


def keras(path, configuration=NETWORK, arrays=None, compression=zipfile.ZIP_STORED, **members):
    """Write a .keras file."""
    weights = hdf5(io.BytesIO(), arrays).getvalue()
    text = configuration if isinstance(configuration, (bytes, str)) else json.dumps(configuration)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"config.json": text, "model.weights.h5": weights, **members}.items():
            archive.writestr(name, content)
    return path


def test_what_is_good_is_converted(tmp_path):
    """The files that the others are spoilt from, libhdf5 in its own process."""
    out = tmp_path / "out.safetensors"
    for path in (
        keras(tmp_path / "a.keras"),
        keras(tmp_path / "b.keras", compression=zipfile.ZIP_DEFLATED),
        hdf5(tmp_path / "c.h5", configuration=NETWORK),
    ):
        assert main(["convert", str(path), str(out), "--preprocess=tf"]) == 0
        assert list(fcn.load(out).graph.nodes) == ["conv"]


def test_truncated_files(tmp_path, refused, here):
    for path in (keras(tmp_path / "a.keras"), hdf5(tmp_path / "c.h5", configuration=NETWORK)):
        content = path.read_bytes()
        for length in {0, 1, 4, 7, 8, 9, 100, *range(200, len(content), 997), len(content) - 1}:
            path.write_bytes(content[:length])
            try:
                message = refused(path, "--preprocess=tf")
            except AssertionError:
                # HDF5 rounds files up; what is whole but for that may be read.
                assert length == len(content) - 1 and path.suffix == ".h5"
            else:
                assert str(path) in message


def test_damaged_hdf5(tmp_path, here):
    """Bytes of a file's structure changed: refused, or other arrays, never anything else."""
    path = hdf5(tmp_path / "c.h5", configuration=NETWORK)
    content = path.read_bytes()
    (heap,) = (i for i in range(len(content)) if content.startswith(b"GCOL", i))
    rng = np.random.default_rng(0)
    positions = [p for p in range(len(content)) if content[p] and not heap <= p < heap + 4096]
    for position in rng.choice(positions, 300):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            file = keras_file.read(path)
            keras_config.graph(file)
        except ValueError as error:
            assert "\n" not in str(error)


def test_a_file_that_libhdf5_never_finishes(tmp_path, refused, monkeypatch):
    path = hdf5(tmp_path / "a.weights.h5")
    content = bytearray(path.read_bytes())
    heap = content.find(b"GCOL")
    content[heap + 48 : heap + 56] = bytes(8)  # free space that goes on for 0 bytes
    path.write_bytes(content)
    monkeypatch.setattr(keras_file, "DEADLINE", 2)
    assert "libhdf5 has not read it in 2 s" in refused(path, *BACKBONE)


def test_a_file_that_libhdf5_ends_on(tmp_path, refused, monkeypatch):
    script = tmp_path / "ends.py"
    script.write_text("import os; os.abort()", encoding="utf-8")
    monkeypatch.setattr(hdf5_index, "__file__", str(script))
    assert "libhdf5 fails on it" in refused(hdf5(tmp_path / "a.weights.h5"), *BACKBONE)


ELSEWHERE = "/model_weights/conv/conv/kernel"


def soft_link(file, path):
    file[ELSEWHERE] = h5py.SoftLink("/elsewhere")


def external_link(file, path):
    file[ELSEWHERE] = h5py.ExternalLink(str(path), "/elsewhere")


def external_storage(file, path):
    file.create_dataset(ELSEWHERE, (1, 1, 3, 2), "f4", external=[(str(path), 0, 24)])


def virtual(file, path):
    layout = h5py.VirtualLayout((1, 1, 3, 2), "f4")
    layout[:] = h5py.VirtualSource(str(path), "elsewhere", (1, 1, 3, 2))
    file.create_virtual_dataset(ELSEWHERE, layout)


def compressed(file, path):
    file.create_dataset(ELSEWHERE, (1 << 14, 1 << 14, 3, 2), "f4", compression="gzip")


def absurd(file, path):
    file.create_dataset(ELSEWHERE, (1 << 40, 1, 3, 2), "f4", chunks=(1, 1, 3, 2))


def never_written(file, path):
    file.create_dataset(ELSEWHERE, (1 << 30, 1, 3, 2), "f4")


def again_and_again(file, path):
    file[ELSEWHERE] = np.ones((1, 1, 3, 2), np.float32)
    for number in range(1000):
        file[f"model_weights/conv/{number}"] = file[ELSEWHERE]


def in_itself(file, path):
    file["model_weights/conv/conv/conv"] = file["model_weights"]


def a_type(file, path):
    file[ELSEWHERE] = np.dtype("f4")


def strings(file, path):
    file.create_dataset(ELSEWHERE, (1, 1, 3, 2), h5py.string_dtype())


def integers(file, path):
    file[ELSEWHERE] = np.ones((1, 1, 3, 2), np.int32)


def a_scalar(file, path):
    file[ELSEWHERE] = np.float32(1)


def missing(file, path):
    pass


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (soft_link, "kernel is a link elsewhere"),
        (external_link, "kernel is a link elsewhere"),
        (external_storage, "its values are in another file"),
        (virtual, "its values are in another file"),
        (compressed, "compressed or in chunks"),
        (absurd, "compressed or in chunks"),
        (never_written, "is more than is stored"),
        (again_and_again, "two names for one object"),
        (in_itself, "two names for one object"),
        (a_type, "no group and no dataset"),
        (strings, "expected an array of float16, float32 or float64"),
        (integers, "expected an array of float16, float32 or float64"),
        (a_scalar, "expected an array of float16, float32 or float64"),
        (missing, "no kernel in the file"),
    ],
)
def test_hostile_hdf5(tmp_path, refused, here, spoil, message):
    path, secret = tmp_path / "a.h5", tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["elsewhere"] = np.ones((1, 1, 3, 2), np.float32)
    hdf5(path, configuration=NETWORK)
    with h5py.File(path, "r+") as file:
        file["elsewhere"] = np.ones((1, 1, 3, 2), np.float32)
        del file[ELSEWHERE]
        spoil(file, secret)
    assert message in refused(path, "--preprocess=tf")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"kernel": np.ones((3, 3, 3, 2), np.float32)}, "expected size [1, 1]"),
        ({"kernel": np.ones((1, 1, 3, 5), np.float32)}, "expected 2 filters, got 5"),
        ({"kernel": np.ones((1, 1, 4, 2), np.float32)}, "expected 4 channels, got 3"),
        ({"kernel": np.ones((1, 1), np.float32)}, "got shape (1, 1)"),
        ({"bias": np.ones(3, np.float32)}, "bias: expected shape (2,)"),
        ({"more": np.ones(3, np.float32)}, "arrays that no layer of the configuration has"),
    ],
)
def test_arrays_of_other_shapes(tmp_path, refused, here, arrays, message):
    good = {"kernel": np.ones((1, 1, 3, 2), np.float32), "bias": np.ones(2, np.float32)}
    for path in (
        keras(tmp_path / "a.keras", arrays=good | arrays),
        hdf5(tmp_path / "a.h5", good | arrays, NETWORK),
    ):
        assert message in refused(path, "--preprocess=tf")


def functional(*layers, end="conv"):
    first = layer("InputLayer", "in", batch_shape=[None, None, None, 3]) | {"inbound_nodes": []}
    config = {"name": "net", "layers": [first, *layers]}
    config |= {"input_layers": ["in", 0, 0], "output_layers": [end, 0, 0]}
    return {"class_name": "Functional", "config": config}


def reading(*names, node=0, **options):
    return {"inbound_nodes": [[[name, node, 0, options] for name in names]]}


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        (b"[" * 100_000, "a configuration that is no JSON"),
        (b"\xff\xfe", "a configuration that is no JSON"),
        (b"9" * 10_000, "a configuration that is no JSON"),
        (b"[]", "a configuration that is no JSON object"),
        (b"[" + b"[]," * 8_000_000 + b"[]]", "member config.json of 24000004 bytes"),
        (b"{}", "expected a model"),
        ({"class_name": "Sequential", "config": {"layers": 3}}, "no list of layers"),
        ({"class_name": "Sequential", "config": {"name": "net", "layers": []}}, "without layers"),
        ({"class_name": "net>Evil", "config": {"layers": []}}, "'net>Evil'"),
        (sequential({"class_name": "Conv2D"}), "no class and configuration"),
        (sequential(layer("Lambda", "evil", function="gASVKw==")), "'evil' of class 'Lambda'"),
        (sequential(layer("TFOpLambda", "evil", function="math.add")), "class 'TFOpLambda'"),
        (
            sequential(layer("Conv2D", "conv", **CONV) | {"module": "os"}),
            "layer 'conv' is 'os.Conv2D', expected one of Keras's own",
        ),
        (
            sequential(layer("Conv2D", "conv", **CONV) | {"registered_name": "evil>Conv2D"}),
            "layer 'conv' is 'evil>Conv2D'",
        ),
        (
            sequential(
                layer("Conv2D", "conv", **CONV | {"activation": {"class_name": "function"}})
            ),
            "'conv' of class 'Conv2D': activation: expected",
        ),
        (sequential(layer("Conv2D", "conv", **CONV, lora_rank=4)), "option 'lora_rank'"),
        (sequential(layer("Conv2D", "conv", **CONV | {"strides": [1 << 70, 1]})), "strides"),
        (sequential(layer("Conv2D", "conv", **CONV | {"strides": 1.5})), "expected an integer"),
        (sequential(layer("Conv2D", "conv", **CONV | {"groups": True})), "groups"),
        (sequential(layer("Conv2D", "conv", **CONV | {"padding": "causal"})), "padding"),
        (sequential(layer("Conv2D", "", **CONV)), "has no name"),
        (sequential(layer("Conv2D", "a/b", **CONV)), "has no name"),
        (sequential(*[layer("Conv2D", "conv", **CONV)] * 2), "two layers of one name"),
        (sequential(layer("ZeroPadding2D", "pad", padding=[[1 << 40, 0]] * 2)), "padding"),
        (sequential(*[layer("ReLU", f"r{i}") for i in range(20_000)]), "more than 10000 layers"),
        (
            functional(layer("Conv2D", "conv", **CONV) | reading("conv")),
            "reads 'conv', which is no layer before it",
        ),
        (
            functional(layer("Conv2D", "conv", **CONV) | reading("in", training=True)),
            "called with 'training': True",
        ),
        (functional(layer("Conv2D", "conv", **CONV) | reading("in", "in")), "1 inputs, got 2"),
        (functional(layer("Conv2D", "conv", **CONV)), "no inbound_nodes"),
        (functional(layer("Conv2D", "conv", **CONV) | reading("in"), end="in"), "between"),
        (functional(layer("Conv2D", "conv", **CONV) | reading("in"), end="x"), "output_layers"),
    ],
)
def test_hostile_configurations(tmp_path, refused, here, configuration, message):
    path = keras(tmp_path / "a.keras", configuration)
    assert message in refused(path, "--preprocess=tf")


def test_forged_configurations(here, tmp_path):
    """Anything in place of anything: refused in one line, or another network, never a crash."""
    conv = layer("Conv2D", "conv", **CONV) | reading("in")
    more = [layer("ReLU", "relu", max_value=6.0), layer("Softmax", "soft", axis=-1)]
    more[0] |= reading("conv")
    more[1] |= reading("relu")
    file = keras_file.read(keras(tmp_path / "a.keras"))
    values = [None, True, -1, 0, 2, 1.5, 1e999, 1 << 80, "", "x" * 99, "conv", [], {}, [[1, 2]]]
    rng, taken, refused = np.random.default_rng(0), 0, 0
    for _ in range(1500):
        forged = json.loads(json.dumps(functional(conv, *more, end="soft")))
        places = [
            (o, key) for o in walked(forged) for key in (o if type(o) is dict else range(len(o)))
        ]
        for _ in range(rng.integers(1, 3)):
            owner, key = places[rng.integers(len(places))]
            owner[key] = [*values, conv][rng.integers(len(values) + 1)]
        forged_file = dataclasses.replace(file, configuration=forged)
        try:
            assert not keras_model.is_backbone(forged_file)
            keras_model.from_keras(forged_file, preprocess="tf")
            taken += 1
        except ValueError as error:
            assert "\n" not in str(error) and str(error).startswith(f"{file.path}: ")
            refused += 1
    assert taken > 50 and refused > 500


def walked(value):
    """Yield the lists and dicts in a value of JSON's."""
    if isinstance(value, (list, dict)):
        yield value
        for entry in value.values() if isinstance(value, dict) else value:
            yield from walked(entry)


def test_models_nested_without_an_end(tmp_path, refused, here):
    configuration = NETWORK
    for number in range(100):
        configuration["config"]["name"] = f"net{number}"
        configuration = sequential(configuration)
    assert "more than 16 deep" in refused(keras(tmp_path / "a.keras", configuration))


def test_zip_bombs(tmp_path, refused, here):
    path = tmp_path / "a.keras"
    for name in ("config.json", "model.weights.h5"):
        keras(path, compression=zipfile.ZIP_DEFLATED, **{name: bytes(50_000_000)})
        assert path.stat().st_size < 100_000
        assert f"member {name} of 50000000 bytes" in refused(path)


def test_other_archives(tmp_path, refused, here):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(NETWORK))
    assert "no member model.weights.h5" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", b"")
    assert "not a torch state dict" in refused(path, *BACKBONE)
    content = bytearray(keras(path).read_bytes())
    content[content.find(b"GCOL") + 40] ^= 1  # a flipped bit, which the archive's sum finds
    path.write_bytes(content)
    assert "CRC" in refused(path)


def test_missing_and_unwanted_options(tmp_path, refused, here):
    path = keras(tmp_path / "a.keras")
    assert "--preprocess" in refused(path)
    assert "--head: expected none" in refused(path, "--head=32s", "--preprocess=tf")
    assert "--classes" in refused(path, "--classes=3", "--preprocess=tf")
    names = tmp_path / "classes.txt"
    names.write_text("a\nb\nc\n", encoding="utf-8")
    message = refused(path, f"--names={names}", "--preprocess=tf")
    assert "--classes" in message or "names of 2 classes" in message
    assert "--names: expected 2 names" in refused(path, f"--names={names}", "--classes=2")
    weights = hdf5(tmp_path / "a.weights.h5")
    assert "--backbone: needed" in refused(weights)
    assert "--head: needed" in refused(weights, *BACKBONE[:2])
    assert "--activation" in refused(weights, *BACKBONE, "--activation=relu")
    assert "expected torchvision's weights of vgg16" in refused(weights, *BACKBONE)
    assert "--fc: expected none" in refused(
        weights, "--backbone=resnet50v2", "--classes=2", "--head=32s", "--fc"
    )
    assert "No such file" in refused(tmp_path / "nothing.keras")
    assert "not a file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # which would never end
    assert "not a file" in refused(tmp_path / "pipe")
    assert "not a file" in refused(tmp_path / "pipe", *BACKBONE)


def test_names_of_the_output(tmp_path, capsys):
    path = keras(tmp_path / "a.keras")
    for name in ("out.h5", "nowhere/out.safetensors"):
        with pytest.raises(SystemExit) as caught:
            main(["convert", str(path), str(tmp_path / name)])
        assert caught.value.code == 2 and "OUT.safetensors" in capsys.readouterr().err
    same = tmp_path / "same.safetensors"
    same.write_bytes(path.read_bytes())
    before = same.read_bytes()
    assert main(["convert", str(same), str(same)]) == 2
    assert "is one of the inputs" in capsys.readouterr().err and same.read_bytes() == before


def test_the_textbooks_crop_is_where_it_is_needed(tmp_path, here):
    """In front of the softmax where the map is larger for some sizes; nowhere else."""
    up = {"filters": 2, "kernel_size": [4, 4], "strides": [2, 2], "padding": "same"}
    up |= {"use_bias": False, "activation": "linear"}
    arrays = {"kernel": np.ones((4, 4, 2, 3), np.float32)}
    pool = layer("MaxPooling2D", "pool", pool_size=2, strides=2, padding="same")
    path = tmp_path / "a.h5"

    def nodes(*layers):
        transpose = layer("Conv2DTranspose", "conv", **up)
        hdf5(path, arrays, sequential(*layers, transpose, layer("Softmax", "softmax", axis=-1)))
        return keras_config.graph(keras_file.read(path)).nodes

    found = nodes(pool)
    assert list(found) == ["pool", "conv", "crop", "softmax"]
    assert found["crop"].inputs == ("conv", INPUT) and found["softmax"].inputs == ("crop",)
    assert "crop" not in nodes()  # twice as large, as the file says
    more = layer("MaxPooling2D", "more", pool_size=2, strides=2, padding="same")
    assert "crop" not in nodes(pool, more)  # half as large
