"""From a .cu file to machine code, by NVRTC: no CUDA toolkit, no GPU and no driver is needed.

CuPy's own `RawModule` asks a device for its architecture, adds options and does not look into
included files before it takes compiled code from its cache. So the kernels are compiled here, and
kept on disk under all that they depend on: source, headers, constants, architecture, compiler.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TypeAlias

from .. import kept

#: What the kernels are compiled and tested for. Code for x.0 runs on every x.y.
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")
#: Of the layout of a file in the cache.
VERSION = 2

#: What is defined before a file is compiled, by name.
Constants: TypeAlias = tuple[tuple[str, str | int], ...]

FOLDER = Path(__file__).parent


class CompileError(RuntimeError):
    """A kernel that does not compile, with the compiler's log."""


def architecture_of(capability: tuple[int, int], name: str) -> str:
    """Return the architecture to compile for, for a card of a compute capability.

    Raises
    ------
    RuntimeError
        For a card older than the kernels' instructions, naming it and what is supported.

    Examples
    --------
    >>> architecture_of((8, 9), "NVIDIA L4")
    'sm_80'
    >>> architecture_of((7, 5), "Tesla T4")
    Traceback (most recent call last):
    ...
    RuntimeError: backend: 'cuda' supports compute capability 8.0 and newer, got 7.5 (Tesla T4)
    """
    major, minor = capability
    if major < 8:
        raise RuntimeError(
            f"backend: 'cuda' supports compute capability 8.0 and newer, got {major}.{minor} "
            f"({name})"
        )
    oldest = f"sm_{major}0"
    return oldest if oldest in ARCHITECTURES else f"sm_{major}{minor}"


def cubin(name: str, constants: Constants, architecture: str) -> bytes:
    """Return the machine code of ``name.cu``, compiled now or by an earlier process.

    Raises
    ------
    CompileError
        With the compiler's log.
    """
    digest = _key(name, constants, architecture)
    folder = kept.folder()
    if folder is None:
        return compiled(name, constants, architecture)[0]
    path = folder / "cuda" / f"{name}-{architecture}-{digest[:32]}.cubin"
    found = kept.read_code(path)
    if found is None:
        found, _ = compiled(name, constants, architecture)
        kept.write_code(path, found)
    return found


def compiled(
    name: str, constants: Constants, architecture: str, options: tuple[str, ...] = ()
) -> tuple[bytes, str]:
    """Compile ``name.cu`` and return its machine code and the compiler's log."""
    from cupy.cuda import nvrtc

    source = (FOLDER / f"{name}.cu").read_text(encoding="utf-8")
    flags = (*_options(constants, architecture), *options)
    program = nvrtc.createProgram(source, f"{name}.cu", (), ())
    try:
        nvrtc.compileProgram(program, flags)
        # CuPy leaves out the last byte of what NVRTC returns; in an ELF file it is padding.
        return nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        words = " ".join(flags)
        raise CompileError(f"{name}.cu: {error}, compiling with {words}\n{log}") from None
    finally:
        nvrtc.destroyProgram(program)


def _options(constants: Constants, architecture: str) -> tuple[str, ...]:
    defined = (f"-D{key}={value}" for key, value in constants)
    # Every multiply-add is written as one: where the compiler may fuse others, or not, the bits of
    # a result would be its choice.
    return (f"-arch={architecture}", "-std=c++17", "-fmad=false", f"-I{FOLDER}", *defined)


def _key(name: str, constants: Constants, architecture: str) -> str:
    options = [option for option in _options(constants, architecture) if option[:2] != "-I"]
    parts = [str(VERSION), name, *options, _compiler(), _sources(name)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def _compiler() -> str:
    from cupy.cuda import nvrtc

    return str(nvrtc.getVersion())


@functools.cache
def _sources(name: str) -> str:
    """Return the text of a kernel and of every header it might include."""
    files = (FOLDER / f"{name}.cu", *sorted(FOLDER.glob("*.cuh")))
    return "\0".join(file.read_text(encoding="utf-8") for file in files)
