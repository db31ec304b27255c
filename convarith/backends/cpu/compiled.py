"""Machine code by address: each kernel is compiled once, and kept on disk where it can be."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import types

#: ``void f(tile)`` and ``void f(call, thread)``, all int64.
TILE = types.void(types.int64)
WORKER = types.void(types.int64, types.int64)

_alive: list[Any] = []  # code goes with the objects that own it


@functools.cache
def sources() -> str:
    """Return a name for what this folder's text is.

    Numba compiles anew where the file of a function has changed. What is inlined into it from
    other files may change too, so the text of all of them goes into its name.
    """
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def kept_on_disk(compile_: Callable[[bool], Any]) -> Any:
    """Return ``compile_(cache=True)``, or without a cache where that fails.

    It fails in as many ways as a folder can be full, foreign, damaged or read-only; what is wrong
    with the code itself fails again.
    """
    try:
        return compile_(True)
    except Exception:
        return compile_(False)


def address(signature: Any, function: Callable[..., None]) -> int:
    """Compile `function` as C and return where its code lies.

    Parameters
    ----------
    signature : numba signature
    function : callable
        What it closes over are constants of the code. They go into its name: Numba reads and
        writes the index of all codes of a name for each of them.
    """
    constants = [str(cell.cell_contents) for cell in function.__closure__ or ()]
    function.__qualname__ = "_".join([function.__qualname__, *constants, sources()])
    made = kept_on_disk(lambda cache: numba.cfunc(signature, cache=cache)(function))
    _alive.append(made)
    return made.address or 0
