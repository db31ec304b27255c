"""Reads what Keras saves: `.keras`, `.weights.h5` and legacy `.h5` files, without Keras.

Three layouts hold the arrays, all in HDF5:

- Keras 3 (a `.weights.h5`, or the member ``model.weights.h5`` of the zip archive that a `.keras`
  is): ``layers/conv2d_1/vars/0``, the layers by their class and a count within each model, their
  arrays by number, and since 3.10 the layer's own name as an attribute of ``vars``;
- legacy, a whole model: ``model_weights/LAYER/.../LAYER/kernel``, the configuration an attribute
  of the file;
- legacy, weights alone, as Keras Applications publishes them: ``LAYER/LAYER/kernel:0``.

Of a file that nobody vouches for nothing is followed out of it (links, external or virtual
datasets), nothing is decompressed (Keras compresses nothing), no more is read than it holds, and
what would keep libhdf5 busy for ever, or end its process, does so in another one.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import math
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import hdf5_index
from .files import check_file
from .layers.sizes import short

ZIP, HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"
WEIGHTS, CONFIGURATION = "model.weights.h5", "config.json"
#: How many times its archive a member may be: Keras compresses none, others may have.
LARGEST_EXPANSION = 20
#: Bytes of a configuration; that of ResNet101V2 has 400,000.
LARGEST_CONFIGURATION = 1 << 24
#: What is wrong with the system, not with the file.
SYSTEM = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.ENFILE)
#: Seconds to find out what is in a file, which takes less than one.
DEADLINE = 30


@dataclasses.dataclass(eq=False)
class KerasFile:
    """What is in a file of Keras's.

    Attributes
    ----------
    path : Path
        For messages.
    configuration : dict or None
        Of a whole model, as its JSON says.
    arrays : dict of str to ndarray
        float32, by their paths in the file.
    numbered : bool
        Whether it is of Keras 3's layout, where arrays have numbers.
    names : dict of str to str
        In that layout, the layer's own name by the path of its group, where it is told.
    """

    path: Path
    configuration: dict[str, Any] | None
    arrays: dict[str, np.ndarray]
    numbered: bool
    names: dict[str, str]

    def __post_init__(self) -> None:
        self._taken: set[str] = set()
        self._by_layer: dict[str, list[str]] = {}
        for path in self.arrays:
            parts = path.split("/")
            if self.numbered:
                owners = {self.names.get("/".join(parts[:-2]), "")}
            else:
                owners = {parts[0], parts[-2] if len(parts) > 1 else parts[0]}
            for owner in owners - {""}:
                self._by_layer.setdefault(owner, []).append(path)

    def named(self, layer: str, variables: Sequence[str]) -> dict[str, np.ndarray]:
        """Return a layer's arrays by the names of its variables, found by the layer's name.

        Raises
        ------
        ValueError
            Where they are not there, or not told apart.
        """
        paths = self._by_layer.get(layer, [])
        if not paths:
            without = self.numbered and not self.names
            why = ", whose layers have no names (Keras 3.10 and later write them)"
            raise ValueError(f"no layer {short(layer)} in the file{why if without else ''}")
        if self.numbered:
            groups = {path.rpartition("/")[0] for path in paths}
            if len(groups) > 1:
                raise ValueError(f"{len(groups)} layers in the file are called {short(layer)}")
            return self.placed(groups.pop().removesuffix("/vars"), layer, variables)
        return {name: self._of(paths, layer, name) for name in variables}

    def placed(
        self, place: str, layer: str, variables: Sequence[str], model: str = ""
    ) -> dict[str, np.ndarray]:
        """Return a layer's arrays by the names of its variables, found by the layer's place.

        Parameters
        ----------
        place : str
            The path of its group; of the legacy layouts the name of the outermost model's layer.
        layer : str
            Its name.
        variables : sequence of str
            In Keras's order.
        model : str
            The name of the model that it is in.

        Raises
        ------
        ValueError
        """
        if not self.numbered:
            prefix = f"{place}/"
            paths = [path for path in self._by_layer.get(place, []) if path.startswith(prefix)]
            return {name: self._of(paths, layer, name, model) for name in variables}
        stored = self.names.get(place, layer)
        if stored != layer:
            raise ValueError(f"its place in the file is that of {short(stored)}")
        arrays = {}
        for number, name in enumerate(variables):
            path = f"{place}/vars/{number}"
            if path not in self.arrays:
                raise ValueError(f"no {name} in the file")
            self._taken.add(path)
            arrays[name] = self.arrays[path]
        return arrays

    def _of(self, paths: list[str], layer: str, variable: str, model: str = "") -> np.ndarray:
        """Return the one array of these that is a layer's variable."""
        ends = ((path, path.removesuffix(":0").split("/")) for path in paths)
        found = [(path, parts) for path, parts in ends if parts[-1] == variable]
        if len(found) > 1:  # a model in place of a layer: those of the layer itself
            found = [(path, parts) for path, parts in found if parts[-2:-1] == [layer]]
        if len(found) > 1:  # models with layers of the same name: some write theirs before it
            inner = [(path, parts) for path, parts in found if parts[-3:-2] == [model]]
            found = inner or [(path, parts) for path, parts in found if len(parts) == 3]
        if len(found) != 1:
            number = len(found) or "no"
            raise ValueError(f"{number} {variable} in the file, expected 1")
        path = found[0][0]
        self._taken.add(path)
        return self.arrays[path]

    def left(self) -> list[str]:
        """Return the paths of the arrays that nobody has asked for."""
        return [path for path in self.arrays if path not in self._taken]


def read(path: Path) -> KerasFile:
    """Return the configuration and the arrays of a file of Keras's.

    Parameters
    ----------
    path : Path
        What kind of file it is, its content tells.

    Raises
    ------
    ValueError
        For a file that is none of these: truncated, with more in it than it can hold, or made to
        do harm. Nothing in the file is executed.
    OSError
        Where the file cannot be read.
    """
    check_file(path)
    with path.open("rb") as file:
        start = file.read(len(HDF5))
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            if start.startswith(ZIP):
                return _from_zip(path, file, size)
            if start == HDF5:
                return _from_hdf5(path, file, size, None)
            raise ValueError("neither a zip archive nor HDF5")
        except ModuleNotFoundError:
            raise
        except Exception as error:  # forged bytes can fail anywhere, and all of it is bad input
            if getattr(error, "errno", None) in SYSTEM:
                raise
            reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
            raise ValueError(f"{path}: not a file of Keras's: {reason}") from error


def _from_zip(path: Path, file: BinaryIO, size: int) -> KerasFile:
    archive = zipfile.ZipFile(file)
    members = archive.namelist()

    def member(name: str, largest: int) -> zipfile.ZipInfo:
        if name not in members:
            raise ValueError(f"no member {name}")
        info = archive.getinfo(name)
        if info.file_size > largest:
            raise ValueError(f"member {name} of {info.file_size} bytes in a file of {size}")
        return info

    configuration = _json(archive.read(member(CONFIGURATION, LARGEST_CONFIGURATION)))
    with tempfile.TemporaryFile() as weights:
        with archive.open(member(WEIGHTS, LARGEST_EXPANSION * size)) as packed:
            while block := packed.read(2**20):
                weights.write(block)
        return _from_hdf5(path, weights, weights.tell(), configuration)


def _from_hdf5(
    path: Path, file: BinaryIO, size: int, configuration: dict[str, Any] | None
) -> KerasFile:
    found = _index(file)
    if configuration is None and found["configuration"] is not None:
        configuration = _json(found["configuration"].encode())
    arrays = {}
    for name, (offset, kind, shape) in found["arrays"].items():
        count = math.prod(shape)
        dtype = np.dtype(kind)
        if offset + count * dtype.itemsize > size:
            raise ValueError(f"dataset {name}: beyond the end of the file")
        values = np.empty(count, dtype)
        file.seek(offset)
        if file.readinto(values.view(np.uint8)) != values.nbytes:
            raise ValueError(f"dataset {name}: the file is truncated")
        arrays[name] = values.reshape(shape).astype(np.float32, copy=False)
    return KerasFile(path, configuration, arrays, found["numbered"], found["names"])


def _index(file: BinaryIO) -> dict[str, Any]:
    """Return `hdf5_index.index` of a file, found out by a process of its own."""
    file.flush()
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    script = Path(hdf5_index.__file__)
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(script)],
            stdin=file,
            capture_output=True,
            timeout=DEADLINE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each would take address space
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"libhdf5 has not read it in {DEADLINE} s") from None
    file.seek(0, os.SEEK_END)  # the position is shared: let go of what was read ahead
    if done.returncode:
        raise ValueError("libhdf5 fails on it")
    found = json.loads(done.stdout)
    if "missing" in found:
        raise ModuleNotFoundError(f"no {found['missing']}", name=found["missing"])
    if "error" in found:
        raise ValueError(found["error"])
    return found


def _json(content: bytes) -> dict[str, Any]:
    if len(content) > LARGEST_CONFIGURATION:
        raise ValueError(f"a configuration of {len(content)} bytes")
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a configuration that is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("a configuration that is no JSON object")
    return value
