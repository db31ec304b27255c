"""The CUDA device that is current: its kernels, loaded once each, and its arrays."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from . import compile
from .launch import Launch

#: Takes a grid, threads a block, arguments, and bytes of dynamic shared memory.
Kernel = Callable[[tuple[int, int, int], int, tuple[Any, ...], int], None]


def current() -> Device:
    """Return CuPy's current device, the same object for the same one."""
    return _device(_runtime().getDevice())


@functools.cache
def _runtime() -> Any:
    import cupy

    return cupy.cuda.runtime


@functools.cache
def _device(number: int) -> Device:
    return Device(number)


class Device:
    """One CUDA device.

    Attributes
    ----------
    xp : module
        Where its arrays come from.
    architecture : str
        What its kernels are compiled for.
    multiprocessors : int
    """

    def __init__(self, number: int) -> None:
        import cupy

        self.xp = cupy
        self.number = number
        properties = cupy.cuda.runtime.getDeviceProperties(number)
        self.multiprocessors = properties["multiProcessorCount"]
        name = properties["name"]
        self.architecture = compile.architecture_of(
            (properties["major"], properties["minor"]),
            name.decode() if isinstance(name, bytes) else name,
        )
        self._kernels: dict[tuple[str, compile.Constants], Kernel] = {}
        self._lock = threading.Lock()

    def kernel(self, name: str, **constants: str | int) -> Kernel:
        """Return the kernel of ``name.cu`` with its constants defined, loaded on this device."""
        key = (name, tuple(sorted(constants.items())))
        found = self._kernels.get(key)
        if found is None:
            with self._lock:
                found = self._kernels.get(key)
                if found is None:
                    found = self._kernels[key] = self._loaded(*key)
        return found

    def _loaded(self, name: str, constants: compile.Constants) -> Kernel:
        cuda = self.xp.cuda
        module = cuda.Module()
        module.load(compile.cubin(name, constants, self.architecture))
        return Launch(cuda, module.get_function(name))
