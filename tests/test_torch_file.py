"""torch's files, legacy and zip: read as torch reads them, and never executed."""

import io
import pickle
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from fcn.pretrained import kind
from fcn.torch_file import MAGIC, PROTOCOL, read_state_dict


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    return pickle.dumps(value, 2)[2:-1]


def numbers(values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def persistent(key, length, storage="FloatStorage"):
    """Return the opcodes with which torch names a storage."""
    kind = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n"
    return kind + text(key) + text("cpu") + integer(length) + b"NtQ"


def tensor(key, length, *, offset=0, size=None, strides=(1,), storage="FloatStorage"):
    """Return the opcodes with which torch writes a tensor."""
    size = (length,) if size is None else size
    arguments = (
        persistent(key, length, storage)
        + integer(offset)
        + numbers(size)
        + numbers(strides)
        + b"\x89"
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"ccollections\nOrderedDict\n)RtR"


def legacy(body, storages=(), keys=None):
    """Return a legacy file around the opcodes of its dict."""
    head = b"".join(pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, {"little_endian": True}))
    tail = pickle.dumps([key for key, _ in storages] if keys is None else keys, 2)
    for _, values in storages:
        tail += struct.pack("<q", len(values)) + values.tobytes()
    return head + b"\x80\x02" + body + b"." + tail


def ordered_dict(*items):
    pairs = b"".join(text(name) + value for name, value in items)
    return b"ccollections\nOrderedDict\n)R(" + pairs + b"u"


#: A tuple of two of a tuple of two of ...: 60 levels, a few bytes each.
LAUGHS = b")" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(60))

VALUES = np.arange(6, dtype=np.float32)
GOOD = legacy(
    ordered_dict(
        ("a", tensor("1", 6, size=(2, 3), strides=(3, 1))),
        ("b", tensor("1", 6, offset=1, size=(2,), strides=(2,))),
    ),
    [("1", VALUES)],
)


def write(folder, content):
    path = folder / "file.pth"
    path.write_bytes(content)
    return path


def test_attributes_set_on_anything_are_dropped(tmp_path):
    """BUILD, with which pickle would rewrite a tensor that has been checked."""
    rewritten = tensor("1", 6) + b"}(" + text("size") + numbers([4096]) + b"ub"
    content = legacy(ordered_dict(("a", rewritten)), [("1", VALUES)])
    np.testing.assert_array_equal(read_state_dict(write(tmp_path, content))["a"], VALUES)


def test_many_names_of_one_storage_take_its_memory_once(tmp_path):
    names = ordered_dict(*((str(i), tensor("1", 10**6)) for i in range(1000)))
    values = np.arange(10**6, dtype=np.float32)
    path = write(tmp_path, legacy(names, [("1", values)]))
    tracemalloc.start()
    try:
        tensors = read_state_dict(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(tensors) == 1000 and (tensors["999"] == values).all()
    assert peak < 5 * path.stat().st_size


def test_a_dict_as_python_2_wrote_it(tmp_path):
    pair = b"](" + text("a") + tensor("1", 6) + b"e"
    content = legacy(b"ccollections\nOrderedDict\n](" + pair + b"e\x85R", [("1", VALUES)])
    np.testing.assert_array_equal(read_state_dict(write(tmp_path, content))["a"], VALUES)


def test_bools_are_bools(tmp_path):
    content = legacy(
        ordered_dict(("a", tensor("1", 4, storage="BoolStorage"))),
        [("1", np.array([0, 1, 2, 255], np.uint8))],
    )
    a = read_state_dict(write(tmp_path, content))["a"]
    assert a.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_a_file_written_by_hand(tmp_path):
    tensors = read_state_dict(write(tmp_path, GOOD))
    np.testing.assert_array_equal(tensors["a"], VALUES.reshape(2, 3))
    np.testing.assert_array_equal(tensors["b"], VALUES[1:5:2])
    assert list(tensors) == ["a", "b"]


@pytest.mark.parametrize("zipped", [False, True])
def test_what_torch_writes(torch, tmp_path, zipped):
    torch.manual_seed(0)
    base = torch.randn(4, 5)
    state = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).state_dict()
    state |= {
        "transposed": base.T,
        "row": base[2],
        "every second": base[:, ::2],
        "expanded": base[:1].T,
        "half": base.half(),
        "double": base.double(),
        "long": torch.arange(3),
        "bool": base > 0,
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(base),
    }
    path = tmp_path / "file.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    tensors = read_state_dict(path)
    assert list(tensors) == list(state)
    for name, value in state.items():
        expected = value.detach().numpy()
        assert tensors[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(tensors[name], expected, name)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", [None, "state_dict", "model", "net"])
def test_a_checkpoint_with_weights_in_it(torch, tmp_path, zipped, protocol, name):
    """As training scripts write it: beside an optimizer's state, of several GPUs, in bfloat16."""
    weights = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(weights.parameters())
    weights(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {f"module.{key}": value.bfloat16() for key, value in weights.state_dict().items()}
    content = state
    if name:
        content = {name: state, "optimizer": optimizer.state_dict(), "epoch": 3, "best": None}
        if name == "state_dict":
            content["ema"] = {"module.other": torch.ones(2)}
    path = tmp_path / "file.pth"
    how = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    torch.save(content, path, **how)
    assert kind(path) == "torch"
    tensors = read_state_dict(path)
    assert list(tensors) == ["weight", "bias"]
    for key, value in tensors.items():
        np.testing.assert_array_equal(value, state[f"module.{key}"].float().numpy())


def test_which_of_several_dicts(torch, tmp_path):
    path = tmp_path / "file.pth"
    for content, message in (
        ({"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}}, "several dicts of tensors, a, b"),
        ({"a": {"x": torch.ones(1)}, "b": torch.ones(1)}, "an entry of type dict among"),
        ({"a": {"x": torch.ones(1), "y": 1}}, "an entry of type dict among"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            read_state_dict(path)


class Malicious:
    """What an attacker pickles: a call of whatever he likes."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", range(5))
def test_nothing_is_executed(tmp_path, protocol, place):
    """A call of open(..., "w") in any of the five pickles leaves no file behind."""
    witness = tmp_path / "executed"
    evil = pickle.dumps(Malicious(open, str(witness), "w"), protocol)
    parts = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, {}, {}, [])]
    parts[place] = evil
    with pytest.raises(ValueError, match="not a torch state dict"):
        read_state_dict(write(tmp_path, b"".join(parts)))
    assert not witness.exists()
    pickle.load(io.BytesIO(evil)).close()  # the same bytes do it where nobody looks
    assert witness.exists()


@pytest.mark.parametrize(
    "name",
    ["os\nsystem", "builtins\neval", "builtins\ngetattr", "torch\nload", "torch._utils\n__init__",
     "numpy\nload", "collections\nnamedtuple", "fcn.torch_file\nPath", "torch\n__builtins__"],
)  # fmt: skip
def test_no_other_name_is_looked_up(tmp_path, name):
    body = b"c" + name.encode() + b"\n" + text("x") + b"\x85R"
    with pytest.raises(ValueError, match="it names"):
        read_state_dict(write(tmp_path, legacy(body)))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"}", id="no tensors but a dict, with a key list of garbage"),
        pytest.param(ordered_dict(("a", integer(3))), id="a number for a tensor"),
        pytest.param(ordered_dict(("a", tensor("1", 6, size=(7,)))), id="longer than its storage"),
        pytest.param(ordered_dict(("a", tensor("1", 6, offset=6, size=(1,)))), id="beyond its end"),
        pytest.param(ordered_dict(("a", tensor("1", 6, offset=-1, size=(1,)))), id="before it"),
        pytest.param(
            ordered_dict(("a", tensor("1", 6, size=(2**40,), strides=(0,)))), id="expanded bomb"
        ),
        pytest.param(
            ordered_dict(("a", tensor("1", 6, size=(2,), strides=(-1,)))), id="negative stride"
        ),
        pytest.param(ordered_dict(("a", tensor("1", 2**60))), id="storage of an exabyte"),
        pytest.param(ordered_dict(("a", tensor("1", -1))), id="negative storage"),
        pytest.param(ordered_dict(("a", tensor("2", 6))), id="storage that is not there"),
        pytest.param(
            ordered_dict(("a", tensor("1", 6, storage="QInt8Storage"))), id="unknown storage"
        ),
        pytest.param(b"r\xff\xff\xff\x7f", id="memo bomb"),
        pytest.param(b"Nr\xff\xff\xff\x7f", id="memo bomb with a value"),
        pytest.param(b"\x8e" + struct.pack("<Q", 2**60), id="bytes bomb"),
        pytest.param(b"(" * 100_000 + b"t" * 100_000, id="nested deeply"),
        pytest.param(b"ccollections\nOrderedDict\n" + text("x") + b"}" + b"b", id="build a string"),
        pytest.param(b"ctorch\nFloatStorage\n)R", id="call a storage"),
        pytest.param(b"c\n\n", id="empty name"),
        pytest.param(b"0", id="pop from nothing"),
        pytest.param(
            ordered_dict(("a", tensor("1", 4096)), ("b", tensor("1", 3, storage="DoubleStorage"))),
            id="two descriptions of one storage",
        ),
        pytest.param(b"}" + b")" + b"\x85" * 2_000_000 + b"Ns", id="a deep key"),
        pytest.param(b"}" + LAUGHS + b"Ns", id="a key of 2**60 parts"),
        pytest.param(LAUGHS + b"Q", id="a persistent id of 2**60 parts"),
        pytest.param(
            ordered_dict(("a", tensor("1", 6, size=[2**2000] * 5000, strides=[0] * 5000))),
            id="five thousand axes",
        ),
        pytest.param(
            ordered_dict(("a", tensor("1", 6, size=[2**62] * 64, strides=[0] * 64))),
            id="a size beyond counting",
        ),
        pytest.param(b"", id="nothing"),
        pytest.param(
            # A tuple of 100,000 numbers as size and strides of 100,000 tensors.
            numbers([1] * 100_000)
            + b"q\x05ctorch._utils\n_rebuild_tensor\nq\x01("
            + persistent("1", 6)
            + b"K\x00h\x05h\x05tq\x02"
            + b"h\x01h\x02R" * 100_000,
            id="a long size, often",
        ),
        pytest.param(
            # Two equal strings of 5 MB, compared 500,000 times.
            b"}"
            + text("a" * 5_000_000)
            + b"Ns"
            + text("a" * 5_000_000)
            + b"q\x01Ns("
            + b"h\x01N" * 500_000
            + b"u",
            id="a long key, often",
        ),
    ],
)
def test_forged_files(tmp_path, body):
    path = write(tmp_path, legacy(body, [("1", VALUES)]))
    with pytest.raises(ValueError, match="not a torch state dict") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", range(0, len(GOOD)))
def test_truncated_files(tmp_path, length):
    with pytest.raises(ValueError, match="not a torch state dict"):
        read_state_dict(write(tmp_path, GOOD[:length]))


def test_damaged_files(tmp_path):
    """Any one byte changed: the same tensors' values differ, or a clear error, never a crash."""
    rng = np.random.default_rng(0)
    for position in range(len(GOOD)):
        content = bytearray(GOOD)
        content[position] ^= int(rng.integers(1, 256))
        try:
            tensors = read_state_dict(write(tmp_path, bytes(content)))
        except ValueError as error:
            assert "not a torch state dict" in str(error)
        else:
            # Views of at most the six values there are, and no byte beyond them.
            for value in tensors.values():
                assert value.size <= 6 and value.nbytes <= VALUES.nbytes
                assert set(value.tobytes()) <= set(content) | {0, 1}


def zip_persistent(key, length, storage="FloatStorage"):
    """Return the opcodes with which torch names a storage since 1.6."""
    kind = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n"
    return kind + text(key) + text("cpu") + integer(length) + b"tQ"


def zip_tensor(key, length, size):
    strides = numbers([1] * len(size))
    arguments = zip_persistent(key, length) + integer(0) + numbers(size) + strides + b"\x89"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"ccollections\nOrderedDict\n)RtR"


def zipped(path, compression=zipfile.ZIP_STORED, body=None, **members):
    """Write a zip file as torch does, but for some members; None leaves one out."""
    body = ordered_dict(("a", zip_tensor("0", 6, (6,)))) if body is None else body
    members = {
        "data.pkl": b"\x80\x02" + body + b".",
        "byteorder": b"little",
        "data/0": VALUES.tobytes(),
        "version": b"3\n",
    } | members
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(f"archive/{name}", content)
    return path


def test_a_zip_file_written_by_hand(tmp_path):
    path = zipped(tmp_path / "file.pth")
    np.testing.assert_array_equal(read_state_dict(path)["a"], VALUES)
    path = zipped(tmp_path / "file.pth", byteorder=None)  # as torch wrote it before 2.0
    np.testing.assert_array_equal(read_state_dict(path)["a"], VALUES)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data/0": VALUES.tobytes()[:-4]}, "a storage of 20 bytes, 6 values"),
        ({"data/0": None}, "no item named"),
        ({"data.pkl": None}, "0 members data.pkl"),
        ({"other/data.pkl": b""}, "2 members data.pkl"),
        ({"byteorder": b"big"}, "not little-endian"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed"),
        ({"body": b"cos\nsystem\n" + text("x") + b"\x85R"}, "it names os.system"),
        ({"body": b"cbuiltins\neval\n" + text("x") + b"\x85R"}, "it names builtins.eval"),
        ({"body": ordered_dict(("a", zip_tensor("../../data", 6, (6,))))}, "no item named"),
        ({"body": ordered_dict(("a", zip_tensor("0", 6, (7,))))}, "reaches beyond"),
        ({"body": ordered_dict(("a", zip_tensor("0", 1 << 60, (6,))))}, "values"),
        ({"body": ordered_dict(("a", integer(3)))}, "an entry of type int"),
        ({"body": b"]"}, "no dict of tensors"),
    ],
)
def test_forged_zip_files(tmp_path, changed, message):
    path = zipped(tmp_path / "file.pth", **changed)
    with pytest.raises(ValueError, match="not a torch state dict") as caught:
        read_state_dict(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_zip_bomb_of_overlapping_members(tmp_path):
    """Each member's bytes are the next one's header and bytes: so many times the file's size."""
    names = [f"archive/data/{number}" for number in range(10_000, 10_300)]
    content, headers, offset = bytes(40_000), [], 0
    for name in reversed(names):
        crc, size = zlib.crc32(content), len(content)
        facts = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, crc, size, size, len(name), 0)
        headers.append((name, facts, size))
        content = b"PK\x03\x04" + facts + name.encode() + content
    storages = [(name.rpartition("/")[2], size // 4) for name, _, size in reversed(headers)]
    body = ordered_dict(*((key, zip_tensor(key, n, (n,))) for key, n in storages))
    pickled = b"\x80\x02" + body + b"."
    name = "archive/data.pkl"
    facts = struct.pack(
        "<HHHHHIIIHH", 20, 0, 0, 0, 0, zlib.crc32(pickled), *2 * (len(pickled),), len(name), 0
    )
    headers.append((name, facts, 0))
    content = b"PK\x03\x04" + facts + name.encode() + pickled + content
    entries, offset = b"", 0
    for name, facts, _ in reversed(headers):
        entries += b"PK\x01\x02" + struct.pack("<H", 20) + facts
        entries += struct.pack("<HHHII", 0, 0, 0, 0, offset) + name.encode()
        offset += 30 + len(name) + (len(pickled) if name.endswith("pkl") else 0)
    end = struct.pack("<HHHHIIH", 0, 0, *2 * (len(headers),), len(entries), len(content), 0)
    path = write(tmp_path, content + entries + b"PK\x05\x06" + end)
    with zipfile.ZipFile(path) as archive:  # as whole as any other, where Python does not look
        assert len(archive.namelist()) == 301
        assert sum(info.file_size for info in archive.infolist()) > 50 * path.stat().st_size
    with pytest.raises(ValueError, match="members that overlap|Overlapped entries"):
        read_state_dict(path)


def test_truncated_zip_files(tmp_path):
    path = zipped(tmp_path / "file.pth")
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="not a torch state dict"):
            read_state_dict(path)


def test_damaged_zip_files(tmp_path):
    path = zipped(tmp_path / "file.pth")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            tensors = read_state_dict(path)
        except ValueError as error:
            assert "not a torch state dict" in str(error)
        else:
            assert all(value.nbytes <= VALUES.nbytes for value in tensors.values())


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "nothing.pth")


def test_the_published_file(mobilenet_weights):
    tensors = read_state_dict(mobilenet_weights)
    assert len(tensors) == 314
    assert tensors["classifier.1.weight"].shape == (1000, 1280)
    assert tensors["features.0.0.weight"].dtype == np.float32
