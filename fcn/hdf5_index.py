"""Says what is in an HDF5 file and where: run as a script, on its standard input.

libhdf5 is made for files that one's own programs have written: among damaged ones there are some
that it never finishes, or that end its process. So it runs in a process of its own, which this is,
and says only where the arrays lie; `fcn.keras_file` reads the numbers there by itself.

Nothing is followed out of the file, and no more is named than it holds.
"""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import h5py

#: Bytes that the process may take, where the system has such limits.
MEMORY = 4 << 30
#: A path of a network's layer has a fraction of this many parts, and of these letters.
DEEPEST, LONGEST = 64, 1000
#: What Keras stores beside a network's weights, and where.
BESIDE = frozenset({"optimizer", "optimizer_weights", "seed_generator", "top_level_model_weights"})


def index(file: BinaryIO, size: int) -> dict[str, Any]:
    """Return what a file of Keras's in HDF5 has, of JSON's types.

    Parameters
    ----------
    file : binary file
    size : int
        Its length in bytes.

    Returns
    -------
    dict
        ``"configuration"``, text or None; ``"numbered"``, whether it is of Keras 3's layout;
        ``"names"``, in that layout the layers' own by the paths of their groups; ``"arrays"``, by
        path ``[offset, type, shape]`` with the type as NumPy has it.

    Raises
    ------
    Exception
        Damaged files fail in many ways.
    """
    import h5py

    with h5py.File(file, "r") as root:
        configuration = None
        if "model_config" in root.attrs:
            configuration = _attribute(root, "model_config", size)
        legacy = "model_weights" in root
        numbered = not legacy and ("layers" in root or "vars" in root)
        names: dict[str, str] = {}
        arrays = _arrays(_child(root, "model_weights") if legacy else root, size, names)
    return {
        "configuration": configuration,
        "numbered": numbered,
        "names": names if numbered else {},
        "arrays": arrays,
    }


def _arrays(top: h5py.Group, size: int, names: dict[str, str]) -> dict[str, Any]:
    """Return where the arrays below a group are, by path, and note the names of their layers.

    Each is a dataset of its own with its values in the file, so all together are no larger.
    """
    import h5py

    arrays: dict[str, Any] = {}
    left = size
    seen = {h5py.h5o.get_info(top.id).addr}
    groups = [("", top)]
    while groups:
        path, group = groups.pop()
        if path.endswith("/vars/") and "name" in group.attrs:
            names[path.removesuffix("/vars/")] = _attribute(group, "name", size)[:LONGEST]
        for name in group:
            if name in BESIDE:
                continue
            if path.count("/") >= DEEPEST or len(path) + len(name) > LONGEST:
                raise ValueError("groups nested without an end")
            child = _child(group, name)
            address = h5py.h5o.get_info(child.id).addr
            if address in seen:
                raise ValueError(f"two names for one object, {path + name}")
            seen.add(address)
            if isinstance(child, h5py.Group):
                groups.append((f"{path}{name}/", child))
                continue
            try:
                offset, kind, shape = _place(child)
            except Exception as error:
                raise ValueError(f"dataset {path + name}: {error}") from error
            left -= math.prod(shape) * int(kind[2:])
            if left < 0:
                raise ValueError("more values than the file is large")
            arrays[path + name] = [offset, kind, shape]
    return arrays


def _child(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """Return a member of a group, where it is a group or dataset in the file itself."""
    import h5py

    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{name} is a link elsewhere ({type(link).__name__})")
    child = group[name]
    if not isinstance(child, (h5py.Group, h5py.Dataset)):
        raise ValueError(f"{name} is no group and no dataset")
    return child


def _place(dataset: h5py.Dataset) -> tuple[int, str, list[int]]:
    """Return the offset, type and shape of a dataset, where it is plain numbers in the file."""
    from h5py import h5d, h5s, h5t

    create = dataset.id.get_create_plist()
    if create.get_external_count() or create.get_layout() == h5d.VIRTUAL:
        raise ValueError("its values are in another file")
    if create.get_nfilters() or create.get_layout() != h5d.CONTIGUOUS:
        raise ValueError("compressed or in chunks, as Keras leaves none")
    floats = {
        **{"<f2": h5t.IEEE_F16LE, "<f4": h5t.IEEE_F32LE, "<f8": h5t.IEEE_F64LE},
        **{">f2": h5t.IEEE_F16BE, ">f4": h5t.IEEE_F32BE, ">f8": h5t.IEEE_F64BE},
    }
    of = dataset.id.get_type()
    kind = next((name for name, one in floats.items() if of == one), None)
    if kind is None or dataset.id.get_space().get_simple_extent_type() != h5s.SIMPLE:
        raise ValueError("expected an array of float16, float32 or float64")
    shape = [int(length) for length in dataset.shape]
    size = math.prod(shape) * int(kind[2:])
    offset = dataset.id.get_offset()
    if size and (offset is None or size > dataset.id.get_storage_size()):
        raise ValueError(f"shape {tuple(shape)} is more than is stored of it")
    return offset or 0, kind, shape


def _attribute(owner: h5py.Group, name: str, size: int) -> str:
    """Return an attribute that is one string."""
    from h5py import h5a, h5s, h5t

    attribute = h5a.open(owner.id, name.encode())
    one = attribute.get_space().get_simple_extent_type() == h5s.SCALAR
    if not one or attribute.get_type().get_class() != h5t.STRING:
        raise ValueError(f"attribute {name}: expected one string")
    if attribute.get_storage_size() > size:
        raise ValueError(f"attribute {name}: longer than the file")
    value = owner.attrs[name]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def main() -> None:
    """Print the index of the file that is the standard input, or what is wrong with it."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, OSError, ValueError):
        pass  # a system without such limits, or with lower ones
    file = sys.stdin.buffer.raw
    try:
        found = index(file, file.seek(0, 2))
    except ModuleNotFoundError as error:
        found = {"missing": error.name}
    except Exception as error:  # forged bytes can fail anywhere, and all of it is bad input
        reason = str(error.args[0] if error.args else "") or type(error).__name__
        found = {"error": reason}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
