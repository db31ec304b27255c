"""From a .cu file to a library of this machine's CPU, by g++, kept in a cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: What this process runs kernels under, None or a name in SANITIZERS. The sanitizer's own library
#: must have been loaded before Python itself, which `sanitized` sees to.
SANITIZER = os.environ.get("CONVARITH_HOST_SANITIZER") or None

SHIM = Path(__file__).parent / "shim"
#: Where the package has its kernels.
KERNELS = Path(__file__).parents[2] / "convarith" / "backends" / "cuda"

COMMON = ["-std=c++17", "-g1", "-fPIC", "-shared", "-ffp-contract=off"]
#: CUDA's dialect: its pragmas are ignored, and its pointers may alias.
KERNEL = [
    "-O1",
    "-fvisibility=hidden",
    "-DCONVARITH_HOST",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-Wno-unknown-pragmas",
]
#: No loop of the machine becomes a call of memcpy, which sanitizers watch wherever it is called.
MACHINE = ["-O2", "-fno-strict-aliasing", "-fno-tree-loop-distribute-patterns"]
SANITIZERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}


class BuildError(RuntimeError):
    """A kernel that g++ does not compile, with what it says."""


def missing() -> str | None:
    """Return what kernels cannot be built for want of, or None."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"kernels run on the CPU of Linux x86-64 only, this is {platform.platform()}"
    if shutil.which("g++") is None:
        return "g++ is not installed"
    return None


def kernel_library(source: Path, constants: dict[str, str | int]) -> ctypes.CDLL:
    """Return the library of one kernel, its constants defined, built where it is not kept."""
    machine()
    name = source.stem
    flags = [*KERNEL, *(f"-D{key}={value}" for key, value in sorted(constants.items()))]
    if SANITIZER:
        flags += [*SANITIZERS[SANITIZER], "-fno-omit-frame-pointer"]
    text = f'#include "{source}"\nCUDA_HOST_EXPORT({name})\n'
    folders = {source.parent, KERNELS}
    headers = [SHIM, *sorted(folders)]
    read = [source, *(file for folder in headers for file in _headers(folder))]
    return ctypes.CDLL(str(_built(name, text, flags, headers, read)))


@functools.cache
def machine() -> ctypes.CDLL:
    """Return the library of the machine, which those of all kernels are bound to when loaded."""
    files = [SHIM / "scheduler.cpp", SHIM / "tensor_cores.cpp"]
    flags = [*MACHINE, *([f"-DCUDA_HOST_{SANITIZER.upper()}"] if SANITIZER else [])]
    text = "".join(f'#include "{file}"\n' for file in files)
    path = _built("machine", text, flags, [SHIM], [*files, *_headers(SHIM)])
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


@functools.cache
def _headers(folder: Path) -> list[Path]:
    return sorted((*folder.glob("*.h"), *folder.glob("*.cuh")))


def _built(name: str, text: str, flags: list[str], folders: list[Path], read: list[Path]) -> Path:
    """Return the library of a text, under a name made of all that it depends on."""
    command = ["g++", *COMMON, *flags, *(f"-I{folder}" for folder in folders)]
    parts = [_compiler(), *command, text, *map(_text, read)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    folder = Path(os.environ.get("CONVARITH_CACHE") or tempfile.gettempdir()) / _owned("cuda_host")
    path = folder / f"{name}-{key}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Beside, then renamed: of several processes that build it, each sees a whole file or none.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        beside = Path(scratch, path.name)
        done = subprocess.run(
            [*command, "-x", "c++", "-", "-o", beside], input=text, capture_output=True, text=True
        )
        if done.returncode:
            raise BuildError(f"{name}: {' '.join(command)}\n{text}{done.stderr}")
        beside.replace(path)
    return path


def _owned(name: str) -> str:
    """Return a folder's name that no two users share."""
    return f"convarith-{name}-{os.getuid()}"


@functools.cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@functools.cache
def _compiler() -> str:
    return subprocess.run(
        ["g++", "-dumpfullversion"], capture_output=True, text=True, check=True
    ).stdout
