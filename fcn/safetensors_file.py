"""Arrays by name, and text by name, in safetensors files."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .files import check_file, replacing

#: The metadata's "format" of our own models.
FORMAT = "convarith.fcn"


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a safetensors file.

    The format is a header in JSON and the arrays' bytes, each once and nothing between them:
    there is nothing in it to execute, and no more to read than there is. Those of bfloat16, the
    upper halves of float32, are given as float32.

    Raises
    ------
    ValueError
        For a file that is none, truncated, or with arrays that NumPy has no type for.
    OSError
        Where the file cannot be read.
    """
    import safetensors

    check_file(path)
    with path.open("rb"):  # what cannot be read is an OSError
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            for name, type_ in types.items():
                if type_.startswith("F8"):
                    raise ValueError(f"{name[:80]} is of {type_}, which NumPy has not")
            half = [name for name, type_ in types.items() if type_ == "BF16"]
            arrays = {name: file.get_tensor(name) for name in types if name not in half}
            metadata = file.metadata() or {}
        widened = _widened(path, half) if half else {}
        return {name: widened.get(name, arrays.get(name)) for name in types}, metadata
    except Exception as error:  # forged bytes can fail in several ways, all of it bad input
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{path}: not a safetensors file: {reason}") from error


def _widened(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Return arrays of bfloat16 as float32, of a file whose header the library has checked."""
    arrays = {}
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        for name in names:
            start, stop = header[name]["data_offsets"]
            file.seek(8 + size + start)
            bits = np.frombuffer(file.read(stop - start), "<u2").astype(np.uint32) << 16
            arrays[name] = bits.view(np.float32).reshape(header[name]["shape"])
    return arrays


def write(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, which appears whole or not at all.

    The same arrays and metadata in the same order give the same bytes; the library, which writes
    such files too, puts the metadata in another order each time.

    Parameters
    ----------
    path : Path
    arrays : mapping of str to ndarray
        Floats, or signed integers, of any order in memory.
    metadata : mapping of str to str

    Raises
    ------
    OSError
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        kind = f"{array.dtype.kind}{8 * array.dtype.itemsize}".upper()
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of 8
    with replacing(path, sync=True) as beside, beside.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            file.write(little.reshape(-1).view(np.uint8).data)
