"""A device that is this machine's CPU: the package's CUDA kernels, run on NumPy arrays.

It has the interface of ``convarith.backends.cuda.device.Device``, and checks what that cannot: that
every argument is what the kernel's C++ declares, and, under a sanitizer, every access.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

import numpy as np

from . import build
from .memory import Buffer

#: What a GPU allows; threads of a block lie along x here.
GRID, BLOCK, SHARED = (2**31 - 1, 65535, 65535), 1024, 227 << 10
#: When asynchronous copies are made: now or at the wait, by chance; or all at one of the two.
RANDOM, AT_ISSUE, AT_WAIT = range(3)


class HostError(RuntimeError):
    """A launch that a GPU would have hung in, or that breaks a rule of CUDA's."""


class HostDevice:
    """The CPU as a device that kernels are launched on.

    Parameters
    ----------
    sources : Path
        The folder of the .cu files.

    Attributes
    ----------
    xp : module
        NumPy.
    seed : int
        Of the order of blocks and threads, and of what else is left to chance.
    cp_mode : int
        When asynchronous copies are made: RANDOM, AT_ISSUE or AT_WAIT.
    sample : int
        Run one block in so many; the others leave no result.
    multiprocessors : int
        What planning is told.
    launches : int
        How many there were.
    """

    xp = np
    architecture = "host"
    multiprocessors = 8

    def __init__(self, sources: Path = build.KERNELS) -> None:
        self.sources = sources
        self.seed, self.cp_mode, self.sample = 0, RANDOM, 1
        self.launches = 0
        self._kernels: dict[tuple[str, tuple[tuple[str, str | int], ...]], HostKernel] = {}

    def kernel(self, name: str, **constants: str | int) -> HostKernel:
        """Return the kernel of ``name.cu`` with its constants defined."""
        key = (name, tuple(sorted(constants.items())))
        if key not in self._kernels:
            library = build.kernel_library(self.sources / f"{name}.cu", constants)
            self._kernels[key] = HostKernel(self, name, library)
        return self._kernels[key]


class _Launch(ctypes.Structure):
    """As in shim/launch.h."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        *((name, ctypes.c_uint) for name in ("block", "shared", "seed", "copies", "sample")),
    ]


class HostKernel:
    """One kernel, called as on a GPU with a grid, a number of threads and its arguments."""

    #: The machine has one set of threads.
    _lock = threading.Lock()

    def __init__(self, device: HostDevice, name: str, library: ctypes.CDLL) -> None:
        self.device, self.name = device, name
        self._run = getattr(library, f"{name}_run")
        self._run.restype = ctypes.c_char_p
        signature = getattr(library, f"{name}_signature")
        signature.restype = ctypes.c_char_p
        self.signature = signature().decode().split()

    def __call__(
        self, grid: tuple[int, int, int], block: int, args: tuple[Any, ...], shared: int = 0
    ) -> None:
        """Run all blocks, or raise HostError."""
        if len(grid) != 3 or not all(
            0 < size <= most for size, most in zip(grid, GRID, strict=True)
        ):
            raise ValueError(f"grid: expected three sizes from 1 up to {GRID}, got {grid}")
        if not 0 < block <= BLOCK:
            raise ValueError(f"block: expected 1 to {BLOCK} threads, got {block}")
        if not 0 <= shared <= SHARED:
            raise ValueError(f"shared: expected at most {SHARED} bytes, got {shared}")
        if len(args) != len(self.signature):
            raise TypeError(
                f"args: {self.name} takes {len(self.signature)} arguments, got {len(args)}"
            )
        device = self.device
        launch = _Launch(
            grid, block, shared, device.seed & 0xFFFFFFFF, device.cp_mode, device.sample
        )
        buffers: dict[tuple[int, int], Buffer] = {}
        written: dict[int, tuple[np.ndarray, Buffer]] = {}
        keep, addresses = [], (ctypes.c_void_p * max(len(args), 1))()
        for i, (argument, declared) in enumerate(zip(args, self.signature, strict=True)):
            if declared[0] in "PC":
                value = ctypes.c_void_p(None)
                if argument is not None:
                    array = self._array(i, argument, declared)
                    # Arguments that are the same memory stay the same memory.
                    at = (array.ctypes.data, array.nbytes)
                    buffer = buffers.get(at) or buffers.setdefault(at, Buffer(array))
                    value = ctypes.c_void_p(buffer.address)
                    if declared[0] == "P":
                        written[buffer.address] = (array, buffer)
            else:
                value = Buffer(self._value(i, argument, declared))
            keep.append(value)
            addresses[i] = value.address if isinstance(value, Buffer) else ctypes.addressof(value)
        with self._lock:
            error = self._run(ctypes.byref(launch), addresses)
        device.launches += 1
        for array, buffer in written.values():
            buffer.copy_to(array)
        if error:
            raise HostError(f"{self.name}: {error.decode()}")

    def _array(self, i: int, argument: Any, declared: str) -> np.ndarray:
        """Check an argument that the kernel has a pointer for."""
        if not isinstance(argument, np.ndarray):
            raise self._mismatch(i, declared, type(argument).__name__)
        kind, size, dtype = declared[1], int(declared[2:]), argument.dtype
        if kind == "v":
            fits = True
        elif kind == "s" and size == 2:
            fits = dtype.name in ("float16", "bfloat16", "uint16")
        elif kind == "s":  # vectors of what the array holds, or records
            fits = size % dtype.itemsize == 0
        else:
            fits = dtype.itemsize == size and dtype.kind in ("f" if kind == "f" else "iub")
        if not fits:
            raise self._mismatch(i, declared, f"an array of {dtype}")
        if not argument.flags.c_contiguous:
            raise ValueError(
                f"args[{i}]: {self.name} takes contiguous arrays, got strides "
                f"{argument.strides} for shape {argument.shape}"
            )
        if declared[0] == "P" and not argument.flags.writeable:
            raise ValueError(f"args[{i}]: {self.name} writes to it, got a read-only array")
        return argument

    def _value(self, i: int, argument: Any, declared: str) -> np.ndarray:
        """Check an argument that the kernel takes by value."""
        kind, size = declared[0], int(declared[1:])
        if kind == "s":
            if not (
                isinstance(argument, np.ndarray)
                and argument.dtype.kind == "V"
                and argument.size == 1
                and argument.itemsize == size
            ):
                got = f"{argument.dtype.itemsize} bytes" if hasattr(argument, "dtype") else argument
                raise self._mismatch(i, declared, f"{type(argument).__name__} of {got}")
            return argument
        kinds = "f" if kind == "f" else "iub"
        if not (
            isinstance(argument, np.generic)
            and argument.dtype.kind in kinds
            and argument.itemsize == size
        ):
            raise self._mismatch(i, declared, f"{type(argument).__name__} {argument!r}")
        return np.asarray(argument)

    def _mismatch(self, i: int, declared: str, got: str) -> TypeError:
        pointer = {"P": "a pointer to ", "C": "a pointer to constant "}.get(declared[0], "")
        kind, size = declared[1 if pointer else 0], declared[2 if pointer else 1 :]
        noun = {"f": "float", "i": "integer", "s": "struct", "v": "anything"}[kind]
        return TypeError(
            f"args[{i}]: {self.name} declares {pointer}{noun} of {size} bytes, got {got}"
        )
