"""Reads state dicts that torch wrote before 1.6: pickles, of which nothing is executed.

The layout (``torch.serialization._legacy_save``): four pickles (a magic number, a protocol
version, facts about the machine, the dict with its storages by key), a fifth with the keys in
file order, then for each storage its length as int64 and its values.

Python's own unpickler calls, hashes, compares and rebuilds what a file tells it to. So the few
opcodes that a state dict is written with are carried out here, on plain values: no object of a
file's choice is made, called, hashed, changed or printed, and the work is linear in its size.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {
    f"torch {name}Storage": np.dtype(code).newbyteorder("<")
    for name, code in {
        **{"Float": "f4", "Double": "f8", "Half": "f2", "Long": "i8", "Int": "i4"},
        **{"Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?"},
    }.items()
}
DICT = "collections OrderedDict"
TENSORS = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
PARAMETER = "torch._utils _rebuild_parameter"
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE BINSTRING SHORT_BINSTRING".split()
)
MOST_AXES = 64  # NumPy's own limit
#: Longer strings are no names; equal ones would be compared over and over.
LONGEST_NAME = 1000


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a legacy torch state dict by name.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray
        Read-only views of the file's content; several may share a storage, as they did.

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
        return _read(io.BytesIO(content))
    except Exception as error:  # forged bytes can fail anywhere, and all of it is bad input
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{path}: not a legacy torch state dict: {reason}") from error


@dataclasses.dataclass(frozen=True)
class _Name:
    """A global that a file names; it stands for itself and is never looked up."""

    text: str


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


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    if not _same(_plain(file), MAGIC):
        raise ValueError("another magic number")
    if not _same(_plain(file), PROTOCOL):
        raise ValueError(f"another protocol than {PROTOCOL}")
    _plain(file)  # byte order and integer sizes of the writer; the values are little-endian
    tensors, keys = _plain(file), _plain(file)
    if type(tensors) is not dict or type(keys) is not list:
        raise ValueError("no dict of tensors with a list of storages")
    described: dict[str, _Storage] = {}
    for tensor in tensors.values():
        if type(tensor) is not _Tensor:
            raise ValueError(f"an entry of type {type(tensor).__name__} among the tensors")
        storage = tensor.storage
        if described.setdefault(storage.key, storage) != storage:
            raise ValueError("two descriptions of one storage")
    values: dict[str, np.ndarray] = {}
    for key in keys:
        if type(key) is not str or key not in described:
            raise ValueError("a storage that no tensor is in")
        values[key] = _storage_values(file, described[key])
    if missing := described.keys() - values.keys():
        raise ValueError(f"no values of storage {min(missing)!r}")
    return {name: tensor.view(values[tensor.storage.key]) for name, tensor in tensors.items()}


def _storage_values(file: BinaryIO, storage: _Storage) -> np.ndarray:
    (length,) = np.frombuffer(_exactly(file, 8), "<i8").tolist()
    if length != storage.length:
        raise ValueError(f"a storage of {length} values where {storage.length} are described")
    content = _exactly(file, length * storage.dtype.itemsize)
    if storage.dtype == np.bool_:  # any other byte than 0 and 1 is no bool of NumPy's
        return np.frombuffer(content, np.uint8) != 0
    return np.frombuffer(content, storage.dtype).astype(storage.dtype.newbyteorder("="), copy=False)


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count) if count >= 0 else b""
    if len(data) != count:
        raise ValueError("the file is truncated")
    return data


def _same(value: Any, expected: int) -> bool:
    return type(value) is int and value == expected


def _plain(file: BinaryIO) -> Any:
    """Return the next pickle's value, made of numbers, strings, lists, dicts and tensors."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def set_items(items: list[Any]) -> None:
        target = stack[-1]
        if type(target) is not dict or any(type(key) is not str for key in items[::2]):
            raise ValueError("a dict whose keys are not strings")
        target.update(zip(items[::2], items[1::2], strict=True))

    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in LITERALS:
            if type(argument) is str and len(argument) > LONGEST_NAME:
                raise ValueError(f"a name of {len(argument)} characters")
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            if type(stack[-1]) is not list:
                raise ValueError("something appended to what is no list")
            stack[-1].extend(items)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "SETITEMS":
            set_items(since_mark())
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            set_items([key, value])
        elif name == "GLOBAL":
            if argument not in (*STORAGES, DICT, *TENSORS, PARAMETER):
                raise ValueError(f"it names {argument[:80].replace(' ', '.')}")
            stack.append(_Name(argument))
        elif name == "BINPERSID":
            stack.append(_persistent(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_reduced(function, arguments))
        elif name == "BUILD":  # the attributes of an OrderedDict: dropped
            stack.pop()
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            raise ValueError(f"opcode {name}")
    raise ValueError("a pickle without an end")


def _persistent(pid: Any) -> _Storage:
    if type(pid) is not tuple or len(pid) != 6:
        raise ValueError("a persistent id that is no storage's")
    kind, storage_type, key, _, length, view = pid
    plain = type(kind) is str and kind == "storage" and type(key) is str and view is None
    if not plain or type(storage_type) is not _Name or type(length) is not int or length < 0:
        raise ValueError("a persistent id that is no storage's")
    if storage_type.text not in STORAGES:
        raise ValueError(f"a storage of type {storage_type.text}")
    return _Storage(key, STORAGES[storage_type.text], length)


def _reduced(function: Any, arguments: Any) -> Any:
    """Return what one of the three calls in a state dict makes."""
    text = function.text if type(function) is _Name else ""
    if type(arguments) is not tuple:
        raise ValueError("a call without its arguments")
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
