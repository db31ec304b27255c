"""Reads state dicts that torch wrote before 1.6: pickles, of which nothing is executed.

The layout (``torch.serialization._legacy_save``): four pickles (a magic number, a protocol
version, facts about the machine, the dict with its storages by key), a fifth with the keys in
file order, then for each storage its length as int64 and its values.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {
    f"{name}Storage": np.dtype(code).newbyteorder("<")
    for name, code in {
        **{"Float": "f4", "Double": "f8", "Half": "f2", "Long": "i8", "Int": "i4"},
        **{"Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?"},
    }.items()
}
#: All that a state dict is written with. No opcode among them makes an object of a class but by
#: calling what `_Unpickler.find_class` lets through.
OPCODES = frozenset(
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE "
    "BINSTRING SHORT_BINSTRING EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS "
    "EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BUILD "
    "BINPERSID".split()
)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a legacy torch state dict by name.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        For a file that is no such state dict: truncated, with other objects than tensors, or
        made to do harm. Nothing in the file is executed.
    OSError
        Where the file cannot be read.
    """
    content = path.read_bytes()
    try:
        return _read(io.BytesIO(content), len(content))
    except Exception as error:  # a forged pickle can raise nearly anything, all of it bad input
        reason = f"{error or type(error).__name__}".splitlines()[0]
        raise ValueError(f"{path}: not a legacy torch state dict: {reason}") from error


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

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.size, *self.strides)
        if len(self.size) != len(self.strides) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"a tensor of size {self.size} and strides {self.strides}")
        count = math.prod(self.size)
        steps = zip(self.size, self.strides, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps) if count else 0
        if count > self.storage.length or last >= max(1, self.storage.length):
            raise ValueError(f"a tensor that reaches beyond its storage {self.storage.key!r}")

    def values(self, storage: np.ndarray) -> np.ndarray:
        itemsize = storage.itemsize
        strides = tuple(step * itemsize for step in self.strides)
        view = np.lib.stride_tricks.as_strided(storage[self.offset :], self.size, strides)
        return view.astype(storage.dtype.newbyteorder("="))


class _Unpickler(pickle.Unpickler):
    """Builds dicts, numbers, strings and `_Tensor` s; any other name in the file is an error."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

        # Made anew for each file: whatever it does to them ends with it.
        class StateDict(dict):
            """Stands in for OrderedDict, with the attributes that a file may set on one."""

        def tensor(storage: Any, offset: Any, size: Any, strides: Any, *_: Any) -> _Tensor:
            return _Tensor(storage, offset, size, strides)

        def parameter(data: Any, *_: Any) -> Any:
            return data

        self._names: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): StateDict,
            ("torch._utils", "_rebuild_tensor"): tensor,
            ("torch._utils", "_rebuild_tensor_v2"): tensor,
            ("torch._utils", "_rebuild_parameter"): parameter,
            **{("torch", name): name for name in STORAGES},
        }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._names[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, length, view = pid
        if kind != "storage" or view is not None or type(length) is not int or length < 0:
            raise pickle.UnpicklingError(f"a storage described as {pid!r:.80}")
        return _Storage(str(key), STORAGES[storage_type], length)


def _unpickle(file: BinaryIO, size: int) -> Any:
    """Return the next object, once every opcode of its pickle has been looked at."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name not in OPCODES:
            raise pickle.UnpicklingError(f"opcode {opcode.name}")
        if opcode.name == "LONG_BINPUT" and argument > size:
            raise pickle.UnpicklingError(f"memo entry {argument}")  # would allocate as many
    end = file.tell()
    file.seek(start)
    result = _Unpickler(file).load()
    file.seek(end)
    return result


def _read(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    if _unpickle(file, size) != MAGIC:
        raise ValueError("another magic number")
    if (version := _unpickle(file, size)) != PROTOCOL:
        raise ValueError(f"protocol {version!r:.20}, not {PROTOCOL}")
    _unpickle(file, size)  # byte order and integer sizes of the writer; values are little-endian
    tensors = _unpickle(file, size)
    if not isinstance(tensors, dict):
        raise ValueError(f"a {type(tensors).__name__} where the dict should be")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"entry {name!r:.80} is no named tensor")
    described = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    storages: dict[str, np.ndarray] = {}
    for key in _unpickle(file, size):
        (length,) = np.frombuffer(_exactly(file, 8), "<i8").tolist()
        storage = described[key]
        if length != storage.length:
            raise ValueError(f"storage {key!r} of {length} values, not {storage.length}")
        dtype = storage.dtype
        storages[key] = np.frombuffer(_exactly(file, length * dtype.itemsize), dtype)
    return {name: tensor.values(storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count) if count >= 0 else b""
    if len(data) != count:
        raise ValueError("the file is truncated")
    return data
