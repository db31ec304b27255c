"""The first largest channel of every pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import device as devices
from .law import ELEMENTS
from .layout import simple

#: Pixels a block; their channels lie in shared memory side by side.
PIXELS = (128, 32)
MOST_SHARED = 96 << 10


def argmax(x: Any) -> Any:
    """Return ``x.argmax(-1)`` of an array ``(..., c)``, int64."""
    device = devices.current()
    *shape, channels = x.shape
    pitch = channels | 1  # odd, so that the threads of a warp meet different banks
    room = MOST_SHARED // (pitch * x.dtype.itemsize)
    threads = next((count for count in PIXELS if count <= room), None)
    pixels = math.prod(shape)
    if pixels and (x.dtype.name not in ELEMENTS or threads is None):
        # CuPy's own, for as many channels; it knows no bfloat16.
        wide = x.astype(np.float32) if x.dtype.name == "bfloat16" else x
        return device.xp.argmax(wide, axis=-1)
    result = device.xp.empty(shape, np.int64)
    if pixels and threads is not None:
        x = simple(device, x, x.dtype)
        kernel = device.kernel("argmax", ELEMENT=ELEMENTS[x.dtype.name], PIXELS=threads)
        arguments = (x, result, np.int32(channels), np.int32(pitch), np.int64(pixels))
        shared = threads * pitch * x.dtype.itemsize
        kernel((-(-pixels // threads), 1, 1), threads, arguments, shared)
    return result
