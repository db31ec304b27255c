"""Reads torch's state dicts, before 1.6 and since: pickles, of which nothing is executed.

Before 1.6 (``torch.serialization._legacy_save``): four pickles (a magic number, a protocol
version, facts about the machine, the dict with its storages by key), a fifth with the keys in
file order, then for each storage its length as int64 and its values.

Since (``torch.serialization._save``): a zip archive of one folder, whose members, none of them
compressed, are the pickle ``data.pkl``, the values of each storage as ``data/KEY``, and
``byteorder`` in later versions.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import pickled
from .files import check_file
from .pickled import Name, Vocabulary

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {
    f"torch {name}Storage": np.dtype(code).newbyteorder("<")
    for name, code in {
        **{"Float": "f4", "Double": "f8", "Half": "f2", "Long": "i8", "Int": "i4"},
        **{"Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?", "BFloat16": "u2"},
    }.items()
}
#: The upper halves of float32, of which NumPy has no type.
BFLOAT16 = STORAGES["torch BFloat16Storage"]
DICT = "collections OrderedDict"
TENSORS = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
PARAMETER = "torch._utils _rebuild_parameter"
MOST_AXES = 64  # NumPy's own limit
#: Under which names a checkpoint has the weights, beside an epoch, an optimizer's state and more.
WEIGHTS = ("state_dict", "model_state_dict", "model")
#: What torch's DataParallel puts before each name.
PARALLEL = "module."
#: How the magic number begins, in a pickle of any version.
LONG = b"\x8a\x0a\x6c\xfc"
#: How a zip archive begins.
ZIP = b"PK\x03\x04"


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a torch state dict by name.

    It may lie in a checkpoint's dict, beside other things, as its only dict of tensors or under one
    of the names in WEIGHTS; ``module.``, which DataParallel puts before every name, is left out.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray
        Read-only views of the file's values, those of bfloat16 as float32; several may share a
        storage, as they did.

    Raises
    ------
    ValueError
        For a file that is no such state dict: truncated, with other objects than tensors, or
        made to do harm. Nothing in the file is executed.
    OSError
        Where the file cannot be read.
    """
    check_file(path)
    with path.open("rb") as file:
        zipped = file.read(len(ZIP)) == ZIP
        file.seek(0)
        try:
            return _read_zip(file) if zipped else _read_legacy(io.BytesIO(file.read()))
        except Exception as error:  # forged bytes can fail anywhere, and all of it is bad input
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise ValueError(f"{path}: not a torch state dict: {reason}") from error


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    length: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, values: np.ndarray) -> np.ndarray:
        """Return the tensor in its storage's values, having checked that it lies in them."""
        if not all(0 <= n < 2**63 for n in (self.offset, *self.size, *self.strides)):
            raise ValueError("a tensor of a negative or absurd size, stride or offset")
        count = math.prod(self.size)
        if count == 0:
            return np.zeros(self.size, values.dtype)
        steps = zip(self.size, self.strides, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps)
        if last >= len(values) or count > len(values):  # more than there is: strides of 0
            raise ValueError(f"a tensor that reaches beyond its storage of {len(values)} values")
        strides = tuple(
            step * values.itemsize if n > 1 else 0
            for n, step in zip(self.size, self.strides, strict=True)
        )
        return np.lib.stride_tricks.as_strided(
            values[self.offset :], self.size, strides, writeable=False
        )


def _read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    described: dict[str, _Storage] = {}
    if not _same(_plain(file, {}), MAGIC):
        raise ValueError("another magic number")
    if not _same(_plain(file, {}), PROTOCOL):
        raise ValueError(f"another protocol than {PROTOCOL}")
    _plain(file, {})  # byte order and integer sizes of the writer; the values are little-endian
    tensors, keys = _state_dict(_plain(file, described)), _plain(file, {})
    if type(keys) is not list:
        raise ValueError("no list of storages")
    values: dict[str, np.ndarray] = {}
    for key in keys:
        if type(key) is not str or key not in described:
            raise ValueError("a storage that no tensor is in")
        storage = described[key]
        (length,) = np.frombuffer(_exactly(file, 8), "<i8").tolist()
        if length != storage.length:
            raise ValueError(f"a storage of {length} values where {storage.length} are described")
        values[key] = _values(_exactly(file, length * storage.dtype.itemsize), storage)
    if missing := described.keys() - values.keys():
        raise ValueError(f"no values of storage {min(missing)!r}")
    return _views(tensors, values)


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    archive = zipfile.ZipFile(file)
    left = file.seek(0, io.SEEK_END)  # what is read of it cannot be more than it holds
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} members data.pkl, expected 1")
    folder = pickles[0].removesuffix("data.pkl")

    def member(name: str) -> bytes:
        nonlocal left
        info = archive.getinfo(folder + name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"member {name[:80]} is compressed, as torch leaves none")
        left -= info.file_size
        if left < 0:
            raise ValueError("members that overlap")
        return archive.read(info)

    if folder + "byteorder" in archive.namelist() and member("byteorder") != b"little":
        raise ValueError("values that are not little-endian")
    tensors = _state_dict(_plain(io.BytesIO(member("data.pkl")), {}))
    values = {}
    for key, storage in {t.storage.key: t.storage for t in tensors.values()}.items():
        data = member(f"data/{key}")
        if len(data) != storage.length * storage.dtype.itemsize:
            raise ValueError(f"a storage of {len(data)} bytes, {storage.length} values")
        values[key] = _values(data, storage)
    return _views(tensors, values)


def _state_dict(content: Any) -> dict[str, _Tensor]:
    """Return the dict of tensors that a file's content is, or that lies in it."""
    if type(content) is not dict:
        raise ValueError("no dict of tensors")
    others = [value for value in content.values() if type(value) is not _Tensor]
    if not others:
        return content
    dicts = {name: value for name, value in content.items() if type(value) is dict and value}
    once = {id(value): value for value in dicts.values()}  # many names may be one dict's
    whole = {
        place
        for place, value in once.items()
        if all(type(each) is _Tensor for each in value.values())
    }
    inside = {name: value for name, value in dicts.items() if id(value) in whole}
    named = [name for name in WEIGHTS if name in inside]
    if not inside or len(others) < len(content):
        raise ValueError(f"an entry of type {type(others[0]).__name__} among the tensors")
    if len(inside) > 1 and not named:
        names = ", ".join(name[:80] for name in inside)
        raise ValueError(f"several dicts of tensors, {names}, and none is {' or '.join(WEIGHTS)}")
    return inside[named[0]] if named else next(iter(inside.values()))


def _views(tensors: dict[str, _Tensor], values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors in their storages' values, by the names that they have for us."""
    found = {name: tensor.view(values[tensor.storage.key]) for name, tensor in tensors.items()}
    if all(name.startswith(PARALLEL) for name in found):
        return {name.removeprefix(PARALLEL): view for name, view in found.items()}
    return found


def _values(content: bytes, storage: _Storage) -> np.ndarray:
    if storage.dtype == np.bool_:  # any other byte than 0 and 1 is no bool of NumPy's
        return np.frombuffer(content, np.uint8) != 0
    if storage.dtype == BFLOAT16:
        return (np.frombuffer(content, storage.dtype).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, storage.dtype).astype(storage.dtype.newbyteorder("="), copy=False)


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count) if count >= 0 else b""
    if len(data) != count:
        raise ValueError("the file is truncated")
    return data


def _same(value: Any, expected: int) -> bool:
    return type(value) is int and value == expected


def _persistent(described: dict[str, _Storage], pid: Any) -> _Storage:
    """Return the storage that a persistent id stands for, also in those described by key."""
    # A legacy one ends in a view of another storage, which no state dict has.
    if type(pid) is not tuple or len(pid) not in (5, 6) or (len(pid) == 6 and pid[5] is not None):
        raise ValueError("a persistent id that is no storage's")
    kind, storage_type, key, _, length = pid[:5]
    plain = type(kind) is str and kind == "storage" and type(key) is str
    if not plain or type(storage_type) is not Name or type(length) is not int or length < 0:
        raise ValueError("a persistent id that is no storage's")
    if storage_type.text not in STORAGES:
        raise ValueError(f"a storage of type {storage_type.text}")
    storage = _Storage(key, STORAGES[storage_type.text], length)
    if described.setdefault(key, storage) != storage:
        raise ValueError("two descriptions of one storage")
    return storage


def _called(text: str, arguments: tuple[Any, ...]) -> Any:
    """Return what one of the three calls in a state dict makes."""
    if text == DICT and not arguments:
        return {}
    if text == DICT and len(arguments) == 1:  # as Python 2 wrote it: a list of [name, value]
        pairs = arguments[0]
        if type(pairs) is list and all(type(p) is list and len(p) == 2 for p in pairs):
            if all(type(name) is str for name, _ in pairs):
                return dict(pairs)
    if text == PARAMETER and arguments:
        return arguments[0]
    if text in TENSORS and len(arguments) >= 4:
        storage, offset, size, strides = arguments[:4]
        shaped = type(size) is tuple and type(strides) is tuple
        # The length before the entries: one long tuple may be named by many calls.
        if type(storage) is _Storage and shaped and len(size) == len(strides) <= MOST_AXES:
            if all(type(n) is int for n in (offset, *size, *strides)):
                return _Tensor(storage, offset, size, strides)
    raise ValueError("a call that no state dict is written with")


NAMES = frozenset((*STORAGES, DICT, *TENSORS, PARAMETER))


def _plain(file: BinaryIO, described: dict[str, _Storage]) -> Any:
    """Return the next pickle's value, made of numbers, strings, lists, dicts and tensors.

    Its storages are added to those `described`. Attributes are set on an OrderedDict only: they are
    dropped. An optimizer's state has numbers as keys; none is looked at.
    """
    persistent = functools.partial(_persistent, described)
    return pickled.plain(file, Vocabulary(NAMES, _called, persistent, strict=False))
