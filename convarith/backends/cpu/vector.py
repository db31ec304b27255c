"""What the registers of this machine hold: the vector path, and the elements that kernels compute.

A *path* is a width of vectors, a number of registers, and whether products are fused with sums.
It belongs to what decides the bits of a result, as geometry and dtype do; on one path they are
the same on every machine.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform

import numpy as np
from llvmlite import binding, ir

from ...validate import one_of


@dataclasses.dataclass(frozen=True)
class Path:
    """How kernels are laid out in registers.

    Attributes
    ----------
    name : str
    nbytes : int
        Of one vector.
    registers : int
        How many vectors the machine names.
    fused : bool
        Whether ``a*b + c`` is rounded once.
    """

    name: str
    nbytes: int
    registers: int
    fused: bool

    def lanes(self, element: Element) -> int:
        """Return the elements of one vector."""
        return self.nbytes // element.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Element:
    """What a kernel computes in."""

    dtype: np.dtype
    type: ir.Type

    @property
    def floating(self) -> bool:
        """Whether it is a float; integers have no epilogue in the kernel."""
        return self.dtype.kind == "f"


#: By its place here an element is named in the kernels' constants.
ELEMENTS = (
    Element(np.dtype(np.float32), ir.FloatType()),
    Element(np.dtype(np.float64), ir.DoubleType()),
    Element(np.dtype(np.int32), ir.IntType(32)),
    Element(np.dtype(np.int64), ir.IntType(64)),
)

#: The plain one is 128 bits wide, which LLVM lowers to whatever there is; Arm has fused products.
PATHS = {
    path.name: path
    for path in (
        Path("avx512", 64, 32, True),
        Path("avx2", 32, 16, True),
        Path("plain", 16, 16, platform.machine().lower() in ("arm64", "aarch64")),
    )
}


def element_of(dtype: np.dtype) -> Element | None:
    """Return what results of `dtype` are computed in, None where no kernel does it.

    Half types are computed in float32. Small and unsigned integers are computed in wider or
    signed ones, whose low bits are theirs.
    """
    if dtype.kind in "iu":
        return ELEMENTS[3 if dtype.itemsize == 8 else 2]
    name = "float32" if dtype.name in ("float16", "bfloat16") else dtype.name
    return next((e for e in ELEMENTS if e.dtype.name == name), None)


@functools.cache
def path() -> Path:
    """Return this process's path: the widest there is, or the one CONVARITH_VECTOR names.

    Raises
    ------
    ValueError
        Where the machine has not what the variable asks for.
    """
    there = available()
    wanted = os.environ.get("CONVARITH_VECTOR") or there[0]
    one_of("CONVARITH_VECTOR", wanted, there)
    return PATHS[wanted]


@functools.cache
def available() -> tuple[str, ...]:
    """Return the names of the paths that this machine can run, the widest first."""
    features = binding.get_host_cpu_features()
    has = {
        "avx512": all(features.get(f) for f in ("avx512f", "avx512dq", "avx512bw", "avx512vl")),
        "avx2": bool(features.get("avx2") and features.get("fma")),
        "plain": True,
    }
    return tuple(name for name in PATHS if has[name])
