"""What Keras saves: read without Keras, and giving Keras's own outputs."""

import dataclasses
import json
import os

import h5py
import numpy as np
import pytest

import fcn
from fcn import hdf5_index, keras_config, keras_file, keras_model, pretrained
from fcn.__main__ import main
from fcn.model import build

# Keras's variables, as NumPy sees them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

#: What the issue asks for; Keras's own two ways of running a network differ by as much.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """Keras as it is without a configuration of the user's."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    import keras

    return keras


@pytest.fixture
def here(monkeypatch):
    """Let libhdf5 run in this process, which takes a hundredth of the time."""

    def index(file):
        return hdf5_index.index(file, file.seek(0, 2))

    monkeypatch.setattr(keras_file, "_index", index)


def randomise(keras, model, seed=0):
    """Set every array of a model to random numbers, those of batch norms too; return it."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model):
            continue
        values = []
        for variable in layer.weights:
            shape = variable.shape
            if variable.path.endswith(("gamma", "variance")):
                values.append(rng.uniform(0.5, 1.5, shape))
            elif len(shape) == 4:
                values.append(rng.normal(size=shape) * np.sqrt(1.5 / np.prod(shape[:3])))
            elif variable.dtype == "float32":
                values.append(rng.normal(size=shape) * 0.2)
            else:  # the state of a random generator
                values.append(np.zeros(shape))
        if values:
            layer.set_weights(values)
    return model


def textbook(keras, backbone):
    layers = keras.layers
    model = keras.Sequential(
        [
            getattr(keras.applications, backbone)(
                include_top=False, weights=None, input_shape=(None, None, 3)
            ),
            layers.Conv2D(21, 1, activation="relu"),
            layers.Conv2DTranspose(21, 64, padding="same", strides=32),
            layers.Softmax(axis=-1),
        ]
    )
    return randomise(keras, model)


def picture(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE * max(1, np.abs(theirs).max())


@pytest.fixture(scope="module")
def fcn50(keras, tmp_path_factory):
    """The textbook's network on ResNet50V2: its files, a picture, and what Keras makes of it."""
    folder = tmp_path_factory.mktemp("textbook")
    model = textbook(keras, "ResNet50V2")
    model.save(folder / "whole.keras")
    model.save(folder / "whole.h5")
    model.save_weights(folder / "whole.weights.h5")
    backbone = model.layers[0]
    backbone.save_weights(folder / "backbone.weights.h5")
    as_published(backbone, folder / "published.h5")
    x = picture(1, 64, 96, 3)
    return folder, x, np.asarray(model(x)), np.asarray(backbone(x))


def as_published(model, path):
    """Write weights as Keras Applications publishes them, by Keras 2: names and order."""
    with h5py.File(path, "w") as file:
        layers = model.layers
        file.attrs["layer_names"] = np.array([layer.name.encode() for layer in layers])
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.2.4"
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{variable.name}:0" for variable in layer.weights]
            group.attrs["weight_names"] = np.array([name.encode() for name in names])
            for name, value in zip(names, layer.get_weights(), strict=True):
                group[name] = value


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("whole.keras", ()),
        ("whole.h5", ()),
        ("whole.weights.h5", ("--backbone=resnet50v2", "--classes=21", "--head=32s")),
    ],
)
def test_the_textbooks_network_by_the_command(fcn50, name, options, tmp_path, capsys):
    folder, x, expected, _ = fcn50
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(folder / name), str(out), *options]) == 0
    assert "25,414,186 numbers" in capsys.readouterr().out
    model = fcn.load(out)
    assert_close(model(x), expected)
    assert expected.std() > 1e-3  # not the uniform scores of dead features
    assert_close(np.log(model(x)), np.log(expected))
    assert len(model.classes) == 21 and model.stride == 32
    assert model.preprocess == model.preprocess.tf()
    # Keras's map is a multiple of 32; ours is cropped to the picture.
    assert model(x[:, :50, :33]).shape == (1, 50, 33, 21)


def test_resnet101(keras, tmp_path):
    model = textbook(keras, "ResNet101V2")
    model.save(tmp_path / "model.keras")
    x = picture(1, 32, 64, 3)
    expected = np.asarray(model(x))
    assert expected.std() > 1e-3
    assert_close(fcn.load(tmp_path / "model.keras")(x), expected)


def test_no_activation_where_the_file_has_none(fcn50, here):
    """A .weights.h5 says nothing of activations; --activation does."""
    folder, x, expected, _ = fcn50
    file = keras_file.read(folder / "whole.weights.h5")
    model = keras_model.textbook(file, "resnet50v2", 21, activation="linear")
    assert "score32:relu" not in model.graph.nodes
    assert np.abs(model(x) - expected).max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", ["published.h5", "backbone.weights.h5", "whole.keras"])
def test_a_backbone_alone(fcn50, here, name):
    folder, x, _, features = fcn50
    model = build("resnet50v2", 3, "8s", weights=folder / name)
    assert_close(model.graph.forward(x, until="post_relu")[0], features)


def test_a_backbone_by_the_command(fcn50, tmp_path, capsys):
    folder, x, _, features = fcn50
    out = tmp_path / "out.safetensors"
    command = ["convert", str(folder / "published.h5"), str(out), "--backbone=resnet50v2"]
    assert main([*command, "--classes=3", "--head=16s"]) == 0
    assert "untrained" in capsys.readouterr().out
    assert_close(fcn.load(out).graph.forward(x, until="post_relu")[0], features)


def test_layers_that_have_no_names(fcn50, here, tmp_path):
    """Before 3.10 Keras numbered layers by class, and wrote no more."""
    folder, x, expected, features = fcn50
    whole = keras_file.read(folder / "whole.weights.h5")
    whole = dataclasses.replace(whole, names={})
    assert_close(keras_model.textbook(whole, "resnet50v2", 21)(x), expected)
    path = tmp_path / "old.weights.h5"
    path.write_bytes((folder / "backbone.weights.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        for group in file["layers"].values():
            group["vars"].attrs.pop("name", None)
    assert keras_file.read(path).names == {}
    model = build("resnet50v2", 21, "32s", weights=path)
    assert_close(model.graph.forward(x, until="post_relu")[0], features)


def test_another_backbones_weights(fcn50, here):
    folder, *_ = fcn50
    with pytest.raises(ValueError, match="no layer 'conv4_block7_preact_bn' in the file"):
        build("resnet101v2", 3, "32s", weights=folder / "published.h5")
    with pytest.raises(ValueError, match="expected torchvision's weights of vgg16"):
        build("vgg16", 3, "32s", weights=folder / "published.h5")


def test_a_failure_leaves_the_graph_as_it_was(fcn50, here, tmp_path):
    folder, *_ = fcn50
    path = tmp_path / "short.h5"
    path.write_bytes((folder / "published.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        del file["post_bn/post_bn/beta:0"]
        file["post_bn/post_bn/beta:0"] = np.ones(3, np.float32)
    graph = build("resnet50v2", 3, "32s").graph
    before = {name: array.copy() for name, array in graph.arrays().items()}
    with pytest.raises(ValueError, match=r"'post_bn': beta: expected floats of shape \(2048,\)"):
        pretrained.load_into(graph, path, "resnet50v2")
    for name, array in graph.arrays().items():
        np.testing.assert_array_equal(array, before[name])


def everything(keras):
    """A small network of every supported layer and most of their options."""
    layers, inputs = keras.layers, keras.Input((None, None, 3))
    a = layers.ZeroPadding2D(((1, 2), (0, 3)), name="pad")(inputs)
    a = layers.Conv2D(8, (3, 2), strides=2, padding="same", activation="relu", name="stem")(a)
    b = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False)(a)
    b = layers.BatchNormalization(scale=False, epsilon=0.01, momentum=0.9)(b)
    b = layers.ReLU(6.0)(b)
    b = layers.Conv2D(8, 1, activation="linear", use_bias=False)(b)
    c = layers.Conv2D(8, 3, dilation_rate=(2, 1), groups=4, padding="same", activation="relu6")(a)
    c = layers.BatchNormalization(center=False)(c)
    c = layers.Dropout(0.5, seed=1)(c)
    d = layers.Add(name="sum")([a, b, c])
    d = layers.Activation("relu")(d)
    e = layers.MaxPooling2D(3, strides=2, padding="same")(d)
    e = layers.Conv2DTranspose(8, (4, 2), strides=2, padding="same", use_bias=False)(e)
    d = layers.Add()([d, e])
    d = layers.DepthwiseConv2D(2, activation="relu")(d)
    d = layers.MaxPooling2D((2, 1))(d)
    d = layers.Conv2DTranspose(5, 3, strides=(2, 1), activation="softmax", name="out")(d)
    return keras.Model(inputs, d, name="everything")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_every_layer(keras, here, suffix, tmp_path):
    model = randomise(keras, everything(keras))
    model.save(tmp_path / f"model{suffix}")
    graph = keras_config.graph(keras_file.read(tmp_path / f"model{suffix}"))
    for size in ((16, 16), (12, 25)):
        x = picture(2, *size, 3)
        assert_close(graph.forward(x)[0], np.asarray(model(x)))
    assert list(graph.nodes)[-1] == "out:softmax"
    assert {"pad", "stem", "stem:relu", "sum"} <= graph.nodes.keys()


def as_before_keras_3(keras, model, path):
    """Write a whole model as Keras 2 does, in its own dialect of configurations and names."""
    config = json.loads(json.dumps(model.get_config()))
    for entry in config["layers"]:
        entry.pop("module"), entry.pop("registered_name"), entry.pop("build_config", None)
        options, calls = entry["config"], entry["inbound_nodes"]
        options["dtype"] = "float32"
        if entry["class_name"] == "InputLayer":
            options["batch_input_shape"] = options.pop("batch_shape")
        if entry["class_name"] == "BatchNormalization":
            options["axis"] = [3]
        if entry["class_name"] == "Conv2DTranspose":
            options["groups"] = 1
        if calls:
            (tensors,) = calls[0]["args"]
            tensors = tensors if isinstance(tensors, list) else [tensors]
            entry["inbound_nodes"] = [[[*t["config"]["keras_history"], {}] for t in tensors]]
    for key in ("input_layers", "output_layers"):
        config[key] = [config[key]]
    as_published(model, path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        weights = file.create_group("model_weights")
        for layer in model.layers:
            file.move(layer.name, f"model_weights/{layer.name}")
            weights[layer.name].attrs["trainable"] = True
            own = f"model_weights/{layer.name}/{layer.name}"
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                file.move(f"{own}/kernel:0", f"{own}/depthwise_kernel:0")


def test_a_whole_model_of_keras_2(keras, here, tmp_path):
    model = randomise(keras, everything(keras))
    as_before_keras_3(keras, model, tmp_path / "model.h5")
    graph = keras_config.graph(keras_file.read(tmp_path / "model.h5"))
    x = picture(2, 16, 16, 3)
    assert_close(graph.forward(x)[0], np.asarray(model(x)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_models_in_models(keras, here, suffix, tmp_path):
    """Two of them with layers of the same names, a sequential one and a functional one."""
    layers = keras.layers

    def inner(kind):
        if kind == "sequential":
            return keras.Sequential(
                [
                    keras.Input((None, None, 4)),
                    layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
                    layers.BatchNormalization(name=f"{kind}_norm"),
                ],
                name=kind,
            )
        x = keras.Input((None, None, 4))
        return keras.Model(x, layers.Conv2D(4, 1, name="conv")(x), name=kind)

    inputs = keras.Input((None, None, 4))
    first, second = inner("sequential")(inputs), inner("functional")(inputs)
    outputs = layers.Add()([first, second])
    model = randomise(keras, keras.Model(inputs, outputs))
    outermost = keras.Sequential([model, layers.Conv2D(2, 1)])
    outermost.build((None, None, None, 4))
    outermost.save(tmp_path / f"model{suffix}")
    graph = keras_config.graph(keras_file.read(tmp_path / f"model{suffix}"))
    x = picture(1, 8, 9, 4)
    assert_close(graph.forward(x)[0], np.asarray(outermost(x)))
    assert "conv" in graph.nodes and sum(name.endswith(".conv") for name in graph.nodes) == 1


@pytest.mark.parametrize(
    ("name", "options", "preprocess"),
    [
        ("MobileNetV2", {"alpha": 0.35}, "tf"),
        ("VGG16", {}, "caffe"),
    ],
)
def test_other_networks_of_keras_applications(keras, here, name, options, preprocess, tmp_path):
    made = getattr(keras.applications, name)
    model = made(include_top=False, weights=None, input_shape=(64, 64, 3), **options)
    randomise(keras, model).save(tmp_path / "model.keras")
    loaded = fcn.load(tmp_path / "model.keras")
    x = picture(1, 64, 64, 3)
    assert_close(loaded.logits(x), np.asarray(model(x)))
    assert loaded.preprocess == getattr(loaded.preprocess, preprocess)()


def test_what_training_leaves_in_a_file(keras, here, tmp_path):
    """Frozen layers, mixed precision's policy and an optimizer's arrays."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(4, 3, padding="same", name="frozen", trainable=False),
            layers.BatchNormalization(trainable=False),
            layers.Dropout(0.2),
            layers.SpatialDropout2D(0.2),
            layers.GaussianNoise(0.1, seed=3),
            layers.GaussianDropout(0.1),
            layers.AlphaDropout(0.1),
            layers.ActivityRegularization(l2=0.1),
            layers.Identity(),
            layers.Conv2D(2, 1, dtype="mixed_float16", kernel_regularizer="l2"),
        ]
    )
    randomise(keras, model)
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    x = picture(1, 5, 6, 3)
    expected = np.asarray(model(x)).astype(np.float32)
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"model{suffix}")
        graph = keras_config.graph(keras_file.read(tmp_path / f"model{suffix}"))
        np.testing.assert_allclose(graph.forward(x)[0], expected, atol=0.01)


def test_no_preprocessing_is_guessed(keras, here, tmp_path, capsys):
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 1)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="--preprocess"):
        fcn.load(tmp_path / "model.keras")
    out = tmp_path / "out.safetensors"
    (tmp_path / "classes.txt").write_text("road\nsky\n", encoding="utf-8")
    command = ["convert", str(tmp_path / "model.keras"), str(out)]
    command += ["--preprocess=torch", "--names", str(tmp_path / "classes.txt")]
    assert main(command) == 0
    loaded = fcn.load(out)
    assert loaded.classes == ("road", "sky") and loaded.preprocess == loaded.preprocess.torch()
    # What is ours is taken as it is, but for what is said otherwise.
    again = tmp_path / "again.safetensors"
    assert main(["convert", str(out), str(again), "--preprocess=caffe"]) == 0
    assert fcn.load(again).preprocess == loaded.preprocess.caffe()
    assert fcn.load(again).classes == ("road", "sky")


def refusals(keras):
    """Networks that are not supported, each with what the message names."""
    layers = keras.layers

    def sequential(*made):
        return keras.Sequential([keras.Input((8, 8, 4)), *made])

    def functional(outputs):
        inputs = keras.Input((8, 8, 4))
        return keras.Model(inputs, outputs(inputs))

    shared = layers.Conv2D(4, 1, name="shared")
    conv = layers.Conv2D(4, 1, name="conv")
    return {
        "LeakyReLU": (sequential(layers.LeakyReLU(name="leaky")), "'leaky'.*LeakyReLU"),
        "Dense": (sequential(layers.Dense(3, name="dense")), "'dense' of class 'Dense'"),
        "Lambda": (sequential(layers.Lambda(lambda x: x, name="evil")), "'evil'.*Lambda"),
        "Concatenate": (
            functional(lambda x: layers.Concatenate(name="joined")([x, x])),
            "'joined'",
        ),
        "activation": (
            sequential(layers.Conv2D(2, 1, activation="gelu", name="odd")),
            "'odd'.*activation: .*'gelu'",
        ),
        "slope": (sequential(layers.ReLU(negative_slope=0.1, name="odd")), "negative_slope"),
        "maximum": (sequential(layers.ReLU(max_value=2.0, name="odd")), "max_value"),
        "axis": (sequential(layers.BatchNormalization(axis=1, name="odd")), "'odd'.*axis"),
        "softmax axis": (sequential(layers.Softmax(axis=1, name="odd")), "'odd'.*axis"),
        "output_padding": (
            sequential(layers.Conv2DTranspose(2, 3, strides=2, output_padding=1, name="odd")),
            "output_padding",
        ),
        "dilated transpose": (
            sequential(layers.Conv2DTranspose(2, 3, dilation_rate=2, name="odd")),
            "dilation_rate",
        ),
        "channels first": (
            sequential(layers.ZeroPadding2D(1, data_format="channels_first", name="odd")),
            "'odd'.*data_format: expected 'channels_last', got 'channels_first'",
        ),
        "shared": (functional(lambda x: shared(shared(x))), "'shared'.*called 2 times"),
        "training": (
            functional(lambda x: layers.BatchNormalization(name="live")(x, training=True)),
            "'live'.*training",
        ),
        "two outputs": (functional(lambda x: [conv(x), layers.ReLU()(x)]), "output_layers: 2"),
        "an operation": (functional(lambda x: layers.ReLU(name="a")(x) * 2.0), "multiply"),
        "one dimension": (
            keras.Sequential([keras.Input((8, 4)), layers.ReLU()]),
            "shape",
        ),
        "float64": (sequential(layers.Conv2D(2, 1, dtype="float64", name="odd")), "dtype"),
    }


def test_what_is_not_supported_is_refused_by_name(keras, here, tmp_path):
    path = tmp_path / "model.keras"
    for case, (model, message) in refusals(keras).items():
        model.save(path)
        with pytest.raises(ValueError, match=message) as caught:
            keras_config.graph(keras_file.read(path))
        assert "\n" not in str(caught.value), case
        if case != "one dimension" and "channels" not in case:
            model.save(tmp_path / "model.h5")
            with pytest.raises(ValueError) as caught:
                keras_config.graph(keras_file.read(tmp_path / "model.h5"))
            assert "\n" not in str(caught.value), case


def test_no_class_of_the_users_is_looked_up(keras, here, tmp_path):
    """A registered layer has the name of a package that Keras would look in."""

    @keras.saving.register_keras_serializable(package="evil")
    class Conv2D(keras.layers.Conv2D):
        pass

    model = keras.Sequential([keras.Input((8, 8, 3)), Conv2D(2, 1, name="odd")])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="'odd' is 'evil>Conv2D', expected one of Keras's own"):
        keras_config.graph(keras_file.read(tmp_path / "model.keras"))
