"""A loaded kernel, and a quick way to start it.

CuPy's own takes a structured array apart at every call, some 50 microseconds for `law.Map`, more
than all the rest of a call.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any

import numpy as np

#: Dynamic shared memory that a block may have without asking: 48 KiB with what is not dynamic.
ROOM = 40 << 10
#: CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END.
POINTER, SIZE, END = 1, 2, 0
#: What ``struct`` calls the scalars that kernels take.
CODES = {"int32": "i", "int64": "q", "uint64": "Q"}
SCALARS = (np.int32, np.int64, np.uint64)
POINTERS = np.dtype(np.uint64)


class Launch:
    """Starts a kernel on CuPy's current stream.

    Parameters
    ----------
    cuda : module
        ``cupy.cuda``.
    function
        A kernel of a loaded module.
    """

    def __init__(self, cuda: Any, function: Any) -> None:
        self._driver, self._stream = cuda.driver, cuda.get_current_stream
        self._function, self._pointer = function, function.ptr
        self._room, self._growing = ROOM, threading.Lock()
        self._arguments: Arguments | None = None

    def __call__(
        self, grid: tuple[int, int, int], block: int, arguments: tuple[Any, ...], shared: int = 0
    ) -> None:
        """Start `grid` blocks of `block` threads; `arguments` are of the same types every time."""
        if shared > self._room:
            self._grow(shared)
        packed = self._arguments
        if packed is None:
            packed = self._arguments = Arguments(*map(_kind, arguments))
        packed.fill(arguments)
        self._driver.launchKernel(
            self._pointer, *grid, block, 1, 1, shared, self._stream().ptr, 0, packed.address
        )

    def _grow(self, shared: int) -> None:
        attribute = self._driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        with self._growing:
            if shared > self._room:
                self._driver.funcSetAttribute(self._pointer, attribute, shared)
                self._room = shared


class Arguments(threading.local):
    """One thread's memory for the arguments of a kernel, laid out as C lays out their struct.

    Parameters
    ----------
    *kinds : dtype
        Of each argument, `POINTERS` for arrays.

    Attributes
    ----------
    address : int
        What the driver takes as ``extra``.
    """

    def __init__(self, *kinds: np.dtype) -> None:
        layout, size = "=", 0
        for kind in kinds:
            pad = -size % kind.alignment
            code = f"{kind.itemsize}s" if kind.kind == "V" else CODES[kind.name]
            layout += f"{pad}x{code}"
            size += pad + kind.itemsize
        self._layout = struct.Struct(layout)
        self._memory = ctypes.create_string_buffer(max(size, 1))
        self._size = ctypes.c_size_t(size)
        self._extra = (ctypes.c_void_p * 5)(
            POINTER, ctypes.addressof(self._memory), SIZE, ctypes.addressof(self._size), END
        )
        self.address = ctypes.addressof(self._extra)

    def fill(self, arguments: tuple[Any, ...]) -> None:
        """Lay the arguments out: CuPy arrays, None for null, NumPy's scalars and structs."""
        values = [
            0
            if argument is None
            else argument
            if type(argument) in SCALARS
            else argument.tobytes()  # one struct
            if type(argument) is np.ndarray
            else argument.data.ptr
            for argument in arguments
        ]
        self._layout.pack_into(self._memory, 0, *values)


def _kind(argument: Any) -> np.dtype:
    if isinstance(argument, (np.ndarray, np.generic)):
        return argument.dtype
    return POINTERS
