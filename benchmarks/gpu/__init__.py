"""``--device cuda``: the same cases on CuPy arrays, timed by the GPU's own clock."""

from __future__ import annotations

import importlib
import importlib.util


def missing() -> str | None:
    """Return what keeps this machine from measuring, in a line; None where nothing does."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    try:
        runtime = importlib.import_module("cupy").cuda.runtime
    except Exception as error:  # whatever its libraries raise where they do not load
        return f"CuPy cannot be loaded: {first_line(error)}"
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return f"no CUDA device: {first_line(error)}"
    return None if count else "no CUDA device"


def first_line(error: BaseException) -> str:
    """Return what an error says, short enough for a table."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
