"""Models in safetensors files: what is saved comes back to the bit, and nothing else does."""

import json
import os
import re
import stat
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fcn
from fcn import safetensors_file
from fcn.graph import INPUT, Graph, Node
from fcn.layers import (
    Add,
    BatchNorm,
    Conv,
    ConvTranspose,
    Crop,
    MaxPool,
    ReLU,
    Softmax,
    ZeroPadding,
)
from fcn.model import Model
from fcn.preprocess import Preprocess


def small(seed=0):
    """A network with every kind of layer."""
    rng = np.random.default_rng(seed)

    def numbers(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def positive(*shape):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)

    nodes = {
        "pad": Node(ZeroPadding(((1, 0), (0, 1))), (INPUT,)),
        "conv": Node(Conv(numbers(3, 2, 3, 4), numbers(4), strides=2), ("pad",)),
        "norm": Node(BatchNorm(None, numbers(4), numbers(4), positive(4), 1e-5), ("conv",)),
        "relu": Node(ReLU(6.0), ("norm",)),
        "each": Node(Conv(numbers(3, 3, 1, 4), padding=((1, 1), (1, 1)), groups=4), ("relu",)),
        "sum": Node(Add(), ("relu", "each")),
        "pool": Node(MaxPool((3, 3), (2, 2), "SAME"), ("sum",)),
        "up": Node(ConvTranspose(numbers(8, 8, 2, 4), strides=4), ("pool",)),
        "crop": Node(Crop(), ("up", INPUT)),
        "softmax": Node(Softmax(), ("crop",)),
    }
    return Model(
        Graph(nodes, 3),
        classes=["sky", "wäg"],
        preprocess=Preprocess.caffe(),
        architecture={"backbone": "none", "parts": [1, None]},
    )


X = np.random.default_rng(1).normal(size=(2, 9, 11, 3)).astype(np.float32)


def test_what_is_saved_comes_back(tmp_path):
    model = small()
    arrays = model.graph.arrays()
    arrays["conv/bias"][:2] = np.array([0xFFC12345, 0x80000000], np.uint32).view(np.float32)
    path = tmp_path / "model.safetensors"
    model.save(path)
    again = fcn.load(path)
    assert again.graph.description() == model.graph.description()
    for name, array in again.graph.arrays().items():
        assert array.tobytes() == arrays[name].tobytes() and array.dtype == np.float32
    assert again.classes == model.classes and again.preprocess == model.preprocess
    assert again.architecture == model.architecture and again.stride == model.stride
    np.testing.assert_array_equal(again(X), model(X))
    # The same model is the same file.
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_bfloat16_is_read_as_float32(tmp_path):
    halves = np.array([[1.5, -2.0, 3e38]], np.float32).view(np.uint16)[:, 1::2]
    entries = {"a": ("BF16", [1, 3], halves), "b": ("F32", [2], np.array([1, 2], np.float32))}
    header, data = {}, b""
    for name, (type_, shape, values) in entries.items():
        end = len(data) + values.nbytes
        header[name] = {"dtype": type_, "shape": shape, "data_offsets": [len(data), end]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    arrays, _ = safetensors_file.read(path)
    np.testing.assert_array_equal(arrays["a"].view(np.uint32) >> 16, halves)
    assert arrays["a"].dtype == np.float32 and list(arrays) == ["a", "b"]
    path.write_bytes(path.read_bytes().replace(b"BF16", b"F8_E4M3"))
    with pytest.raises(ValueError, match="not a safetensors file"):
        safetensors_file.read(path)


def test_a_file_as_any_other(tmp_path):
    """Not for its owner alone, and nothing beside it."""
    other, path = tmp_path / "other", tmp_path / "model.safetensors"
    other.write_bytes(b"")
    small().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "other"]


def test_no_folder(tmp_path):
    with pytest.raises(OSError):
        small().save(tmp_path / "nowhere" / "model.safetensors")


def test_a_failure_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "model.safetensors"
    small().save(path)
    before = path.read_bytes()

    arrays = {"a": np.ones(2, np.float32), "b": Failing()}
    with pytest.raises(OSError, match="No space left"):
        safetensors_file.write(path, arrays, {})
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


class Failing:
    """An array that is lost when half the file is written."""

    nbytes, shape, dtype = 8, (2,), np.dtype(np.float32)

    def __array__(self, *_, **__):
        raise OSError("No space left on device")


def test_the_library_reads_what_we_write_and_we_what_it_writes(tmp_path):
    import safetensors.numpy

    path = tmp_path / "model.safetensors"
    arrays = {
        "halves": np.arange(6, dtype=np.float16).reshape(2, 3)[:, ::2],
        "wide": np.arange(6, dtype=">f8").reshape(2, 3).T,
        "integers": np.arange(3, dtype=np.int64),
        "none": np.zeros((0, 3), np.float32),
        "naïve": np.ones((), np.float32),
    }
    safetensors_file.write(path, arrays, {"a": "ä"})
    theirs = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(theirs, path, metadata={"a": "ä"})
    ours, metadata = safetensors_file.read(path)
    assert metadata == {"a": "ä"} and ours.keys() == theirs.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(theirs[name], array)
        np.testing.assert_array_equal(ours[name], array)
        assert ours[name].dtype == array.dtype.newbyteorder("=")


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    small().save(path)
    return path.read_bytes()


def refused(path, content):
    """Check that a file is refused in one line that names it; return the line."""
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        fcn.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 1000
    return message


def test_truncated_files(tmp_path, content):
    for length in {*range(0, 200, 7), *range(200, len(content), 101), len(content) - 1}:
        refused(tmp_path / "model.safetensors", content[:length])
    refused(tmp_path / "model.safetensors", content + b"\0")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files(tmp_path, content, data):
    """A few bytes of the header changed: refused in one line, or another network, never a crash."""
    (length,) = struct.unpack("<Q", content[:8])
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, 8 + length - 1))] = data.draw(
            st.one_of(st.integers(0, 255), st.sampled_from(b'0123456789"[]{},:-e\\'))
        )
    path = tmp_path / "model.safetensors"
    path.write_bytes(damaged)
    try:
        model = fcn.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert isinstance(model, Model)


def changed(content, **entries):
    """Return a file with entries of its metadata changed; a function of one, or its value."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for name, value in entries.items():
        if callable(value):
            entry = json.loads(header["__metadata__"][name])
            value(entry)
            value = json.dumps(entry)
        if value is None:
            del header["__metadata__"][name]
        else:
            header["__metadata__"][name] = value
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + content[8 + length :]


def node(graph, name):
    return next(node for node in graph["nodes"] if node["name"] == name)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": "pt"}, "format: expected 'convarith.fcn', got 'pt'"),
        ({"format": None}, "format"),
        ({"version": "2"}, "version: expected '1', got '2'"),
        ({"graph": None}, "graph: expected JSON"),
        ({"graph": "[" * 100_000}, "graph: expected JSON"),
        ({"graph": "9" * 100_000}, "graph: expected JSON"),
        ({"graph": "[" + "[]," * 8_000_000 + "[]]"}, "graph: 24000004 characters"),
        ({"graph": "[]"}, "graph: expected a dict"),
        ({"graph": lambda g: g.update(nodes=[{}] * 20_000)}, "at most 10000 nodes, got 20000"),
        ({"graph": lambda g: g.update(channels=1e300)}, "channels"),
        ({"graph": lambda g: g.update(channels=4)}, "node 'conv'.*channels"),
        ({"graph": lambda g: g["nodes"].reverse()}, "reads"),
        ({"graph": lambda g: node(g, "conv").update(layer="os.system")}, "node 'conv': layer"),
        ({"graph": lambda g: node(g, "conv")["config"].update(strides=[0, 1])}, "strides"),
        ({"graph": lambda g: node(g, "conv")["config"].update(padding=[[0, 1 << 60]] * 2)},
         "padding"),
        ({"graph": lambda g: node(g, "conv")["config"]["shapes"].update(kernel=[1, 1, 3, 4])},
         "node 'conv': kernel: expected shape"),
        ({"graph": lambda g: node(g, "conv")["config"].pop("shapes")}, "node 'conv'"),
        ({"graph": lambda g: node(g, "pool").update(inputs=["softmax"])}, "node 'pool': reads"),
        ({"graph": lambda g: g["nodes"].pop(1)}, "arrays: expected none but the nodes'"),
        ({"classes": '["sky"]'}, "classes: expected 2 names"),
        ({"classes": '["sky", 3]'}, "classes: expected names"),
        ({"preprocess": '{"order": "RGB"}'}, "preprocess"),
        ({"preprocess": lambda p: p.update(std=[0, 0, 0])}, "std"),
        ({"architecture": "3"}, "architecture"),
    ],
)  # fmt: skip
def test_forged_files(tmp_path, content, entries, message):
    text = refused(tmp_path / "model.safetensors", changed(content, **entries))
    assert re.search(message, text), text


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_arrays_of_another_type(tmp_path, content, dtype):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    arrays, metadata = safetensors_file.read(path)
    safetensors_file.write(path, {name: a.astype(dtype) for name, a in arrays.items()}, metadata)
    assert "expected a float32 array" in refused(path, path.read_bytes())


def test_what_is_no_model(tmp_path):
    path = tmp_path / "file"
    assert "neither Keras's" in refused(path, b"")
    assert "neither Keras's" in refused(path, b"text, and more of it")
    path = tmp_path / "arrays.safetensors"
    safetensors_file.write(path, {"a": np.ones(2, np.float32)}, {})
    assert "format" in refused(path, path.read_bytes())
    with pytest.raises(FileNotFoundError):
        fcn.load(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="not a file"):
        fcn.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # which would never end
    with pytest.raises(ValueError, match="not a file"):
        fcn.load(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ("ab", TypeError),
        ([1, 2], TypeError),
        (["a", ""], TypeError),
        (["a", "a"], ValueError),
        (["a", "b\x1b[31m"], ValueError),
        (["a", "b" * 201], ValueError),
    ],
)
def test_names_that_could_not_be_read_again(names, error):
    graph = Graph({"a": Node(Conv(np.ones((1, 1, 3, 2), np.float32)), (INPUT,))}, 3)
    with pytest.raises(error, match="classes: expected "):
        Model(graph, classes=names, preprocess=Preprocess())


def test_nodes_with_control_characters_in_their_names():
    layer = Conv(np.ones((1, 1, 3, 2), np.float32))
    with pytest.raises(ValueError, match="a name without control characters"):
        Graph({"a\x1b[2J": Node(layer, (INPUT,))}, 3)
