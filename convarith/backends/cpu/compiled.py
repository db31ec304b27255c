"""Machine code by address: compiled once, kept on disk, and loaded without Numba.

Importing Numba and readying its compiler takes longer than everything else that a first call does,
so code that has been compiled before is loaded by LLVM alone. It lies in ``cpu`` in the folder of
`kept`, or where NUMBA_CACHE_DIR says if only that is set, under all that it depends on: the text
of this folder, its constants, the machine, LLVM and Numba.

A forked child finds what its parent had compiled. What another thread was compiling at that moment
it may not compile: Numba's own lock is held for ever then.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
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
#: Of Numba's variables, those that say where and on how many threads, but not how.
_ELSEWHERE = ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER")


def _digest() -> str:
    """Return a digest of this folder's text: what is inlined into code may come from any of it.

    It is empty where there are no files, as in an archive; no code is kept then.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    text = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(text).hexdigest() if text else ""


#: Of the text as it was imported; a file may be replaced later.
_SOURCES = _digest()

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
    return _address(f"{module}.{name}", "", functools.partial(worker_object, module, name))


def kernel(emitter: Callable[..., Any], *constants: Any) -> int:
    """Return the address of a kernel, ``void f(arguments)``, of an int64.

    ``emitter(*constants, builder, arguments)`` generates it; all constants are in its name.
    """
    emit = functools.partial(emitter, *constants)
    name = f"{emitter.__module__}.{emitter.__qualname__}"
    return _address(name, repr(constants), functools.partial(kernel_object, emit))


def _address(name: str, constants: str, compiled: Callable[[str], bytes]) -> int:
    """Return where code lies that is compiled now, or was by an earlier process."""
    parts = (str(VERSION), name, constants, _SOURCES, *_compilers())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    name = name.rpartition(".")[2].strip("_").lower()
    entry = f"convarith_{name}_{digest}"
    with _lock:
        if entry in _addresses:
            return _addresses[entry]
        path = _path(f"{name}-{digest}.o") if _SOURCES else None
        code = kept.read_code(path) if path else None
        if code is None:
            code = compiled(entry)
            if path and _digest() == _SOURCES:
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
def _compilers() -> tuple[str, ...]:
    """Return what says for which machine code is made, and by what."""
    told = sorted(v for v in os.environ.items() if v[0].startswith("NUMBA_"))
    return (
        llvmlite.__version__,
        str(binding.llvm_version_info),
        _numbas_version(),
        repr([v for v in told if v[0] not in _ELSEWHERE]),
        binding.get_process_triple(),
        binding.get_host_cpu_name(),
        features(),
    )


def _numbas_version() -> str:
    """Return Numba's version as its own file has it: importing it would take too long."""
    spec = importlib.util.find_spec("numba")
    assert spec is not None and spec.origin is not None  # or there would be no such backend
    return Path(spec.origin).with_name("_version.py").read_text(encoding="utf-8")
