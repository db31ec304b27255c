"""Machine code by address: compiled once, kept on disk, and loaded without Numba.

Importing Numba and readying its compiler takes longer than everything else that a first call does,
so code that has been compiled before is loaded by LLVM alone. It lies in ``cpu`` in the folder of
`kept`, or where NUMBA_CACHE_DIR says if only that is set, under all that it depends on: the text
of this folder, its constants, the machine, and LLVM.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding

from .. import kept
from .compile import features, kernel_object, target_machine, worker_object

#: Of what a file in the cache holds, and of how it is compiled.
VERSION = 1

_addresses: dict[str, int] = {}
_lock = threading.Lock()


def _new_lock() -> None:
    """Replace the lock in a forked child: another thread may have held it at the time."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


@functools.cache
def worker(module: str, name: str) -> int:
    """Return the address of a worker, ``void f(call, thread)`` of two int64s.

    It is a function of a module of this folder.
    """
    return _address(name, "", functools.partial(worker_object, module, name))


def kernel(emitter: Callable[..., Any], *constants: Any) -> int:
    """Return the address of a kernel, ``void f(arguments)``, of an int64.

    ``emitter(*constants, builder, arguments)`` generates it; all constants are in its name.
    """
    emit = functools.partial(emitter, *constants)
    name = emitter.__name__.strip("_").lower()
    return _address(name, repr(constants), functools.partial(kernel_object, emit))


def _address(name: str, constants: str, compiled: Callable[[str], bytes]) -> int:
    """Return where code lies that is compiled now, or was by an earlier process."""
    parts = (VERSION, name, constants, *_machine(), _sources())
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]
    entry = f"convarith_{name}_{digest}"
    with _lock:
        if entry in _addresses:
            return _addresses[entry]
        path = _path(f"{name}-{digest}.o")
        code = kept.read_code(path) if path else None
        if code is None:
            code = compiled(entry)
            if path:
                kept.write_code(path, code)
        engine = _engine()
        engine.add_object_file(binding.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _addresses[entry] = engine.get_function_address(entry)
        return _addresses[entry]


@functools.cache
def _engine() -> binding.ExecutionEngine:
    """Return what holds all code; it is never given back."""
    return binding.create_mcjit_compiler(binding.parse_assembly(""), target_machine())


def _path(file: str) -> Path | None:
    numbas = os.environ.get("NUMBA_CACHE_DIR")
    if numbas and not os.environ.get("CONVARITH_CACHE"):
        return Path(numbas, "convarith", file)
    folder = kept.folder()
    return folder and folder / "cpu" / file


@functools.cache
def _machine() -> tuple[str, ...]:
    """Return what says whose code it is; a version of Numba belongs to one of llvmlite."""
    triple, name = binding.get_process_triple(), binding.get_host_cpu_name()
    return llvmlite.__version__, triple, name, features()


@functools.cache
def _sources() -> str:
    """Return a digest of this folder's text: what is inlined into code may come from any of it."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
