"""Reads pickles of parameters as Flax had them: dicts of dicts of NumPy arrays, never executed.

NumPy pickles an array as a call of ``_reconstruct`` for an empty one, whose state is then set to
a version, the shape, the dtype, whether it is in Fortran's order, and its bytes; a dtype as a call
with its letters, whose state is its byte order and what only structured ones have.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import pickled
from .files import check_file
from .layers.sizes import short
from .pickled import Name, Vocabulary

RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
ARRAY, DTYPE = "numpy ndarray", "numpy dtype"
#: A network's parameters are in modules within modules.
DEEPEST = 16


@dataclasses.dataclass(eq=False)
class _Dtype:
    letters: str
    order: str | None = None


@dataclasses.dataclass(eq=False)
class _Array:
    values: np.ndarray | None = None


def read_parameters(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays by their paths, ``"VGG16_0/Conv_0/kernel"``.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to ndarray
        float32, read-only.

    Raises
    ------
    ValueError
        For a file that is no such pickle: truncated, with other objects in it, or made to do
        harm. Nothing in the file is executed.
    OSError
        Where the file cannot be read.
    """
    check_file(path)
    with path.open("rb") as file:
        try:
            return _read(file)
        except Exception as error:  # forged bytes can fail anywhere, and all of it is bad input
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
            raise ValueError(f"{path}: not a pickle of parameters: {reason}") from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    seen: set[int] = set()
    modules = [("", pickled.plain(file, VOCABULARY))]
    while modules:
        path, module = modules.pop()
        if type(module) is _Array and module.values is not None:
            found[path] = module.values
        elif type(module) is dict and path.count("/") < DEEPEST and id(module) not in seen:
            seen.add(id(module))  # one that is in itself, or in many others, would not end
            modules += [(f"{path}/{name}" if path else name, part) for name, part in module.items()]
        else:
            raise ValueError(f"{short(path)} is neither an array nor a dict of them")
    if "" in found:
        raise ValueError("one array, expected a dict of them")
    return found


def _called(text: str, arguments: tuple[Any, ...]) -> Any:
    if text in RECONSTRUCT and len(arguments) == 3:
        kind, shape, letter = arguments
        if kind == Name(ARRAY) and shape == (0,) and letter == b"b":
            return _Array()
    if text == DTYPE and arguments and type(arguments[0]) is str:
        return _Dtype(arguments[0])
    raise ValueError("a call that no array is written with")


def _built(thing: Any, state: Any) -> None:
    """Set the state of an array or of a dtype."""
    if type(thing) is _Dtype and type(state) is tuple and len(state) >= 2:
        thing.order = state[1]
    elif type(thing) is _Array and type(state) is tuple and len(state) == 5:
        _, shape, dtype, in_columns, content = state
        if type(dtype) is not _Dtype or dtype.letters != "f4" or dtype.order != "<":
            raise ValueError("an array of another type than little-endian float32")
        if in_columns is not False:
            raise ValueError("an array in Fortran's order")
        good = type(shape) is tuple and len(shape) <= 64 and all(type(n) is int for n in shape)
        if not good or min(shape, default=0) < 0 or type(content) is not bytes:
            raise ValueError("an array without shape or bytes")
        if math.prod(shape) * 4 != len(content):
            raise ValueError(f"an array of shape {short(shape)} in {len(content)} bytes")
        thing.values = np.frombuffer(content, "<f4").reshape(shape).astype(np.float32, copy=False)
    else:
        raise ValueError("attributes of something else than an array")


VOCABULARY = Vocabulary(frozenset((*RECONSTRUCT, ARRAY, DTYPE)), _called, built=_built, raw=True)
