"""What the compiler made of a kernel: its registers, its stack, its instructions.

No GPU and no driver is needed: NVRTC compiles, cuobjdump reads.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import os
import re
import subprocess
import tempfile
from pathlib import Path

from convarith.backends.cuda import compile
from convarith.backends.cuda.specialisations import Specialisation

#: Of the stack (local memory) and of what is spilled to it.
LOCAL = ("LDL", "STL")


@dataclasses.dataclass(frozen=True)
class Report:
    """What one compiled kernel takes, and how often it has each instruction."""

    registers: int
    stack: int
    instructions: collections.Counter[str]
    log: str

    @property
    def local(self) -> int:
        """How many instructions read or write local memory."""
        return sum(self.instructions[name] for name in LOCAL)


def named(specialisation: Specialisation) -> str:
    """Return a specialisation in words, as the tables have it."""
    constants = sorted(specialisation.constants.items())
    return " ".join([specialisation.name, *(f"{key}={value}" for key, value in constants)])


def report(specialisation: Specialisation, architecture: str) -> Report:
    """Compile a specialisation anew, for the log, and read what came out."""
    constants = tuple(sorted(specialisation.constants.items()))
    code, log = compile.compiled(specialisation.name, constants, architecture)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(code)
        text = _read(path, "-res-usage", "-sass")
    registers, stack = (int(re.search(rf"{key}:(\d+)", text)[1]) for key in ("REG", "STACK"))
    # An address in a comment, perhaps a predicate, then the instruction: `LDG.E.128 R4, ...`.
    found = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", text, re.MULTILINE)
    return Report(registers, stack, collections.Counter(_stems(found)), log)


def _read(path: Path, *options: str) -> str:
    program = cuobjdump()
    # It looks for nvdisasm on the PATH, though that lies beside it.
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [program, *options, path], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"cuobjdump {' '.join(options)}: {done.stderr}")
    return done.stdout


def _stems(instructions: list[str]) -> list[str]:
    """Return each instruction under its own name and all shorter ones: LDG.E.128, LDG.E, LDG."""
    return [
        ".".join(parts[:length])
        for parts in (name.split(".") for name in instructions)
        for length in range(1, len(parts) + 1)
    ]


def missing() -> str | None:
    """Return what kernels cannot be compiled or read for want of, or None."""
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # CuPy: ImportError; NVRTC: RuntimeError, or what dlopen raises
        return f"CuPy's NVRTC cannot be loaded: {error}"
    program = cuobjdump()
    if program is None:
        return "cuobjdump is not installed (nvidia-cuda-cuobjdump)"
    if not program.with_name("nvdisasm").exists():
        return "nvdisasm is not installed (nvidia-cuda-nvdisasm)"
    return None


def cuobjdump() -> Path | None:
    """Return the program of the wheel nvidia-cuda-cuobjdump."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else ()
    return next((path for at in folders or () for path in Path(at).glob("*/bin/cuobjdump")), None)
