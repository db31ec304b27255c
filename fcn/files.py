"""Files read as what they are, and written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path


def check_file(path: Path) -> None:
    """Refuse a folder, a pipe or a device, which would keep a reader waiting, by a `ValueError`."""
    if os.path.exists(path) and not os.path.isfile(path):  # False for what cannot be seen
        raise ValueError(f"{path}: not a file")


def keep_inputs(option: str, inputs: Iterable[Path | None], outputs: Iterable[Path]) -> None:
    """Refuse to write over what is read, by a `ValueError` that begins with the option's name."""
    read = {_identity(path): path for path in inputs if path is not None}
    for path in outputs:
        if (found := _identity(path)) is not None and found in read:
            raise ValueError(f"{option}: {path} is one of the inputs, {read[found]}")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what is the same for every name of a file; None where there is none to be seen."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a file beside `path` to write to, and rename it to `path` if all went well.

    It has the same suffix, so writers that go by it do the same thing. With `sync` the bytes are on
    the disk before the name is, so that a machine that goes down leaves the old file or the new.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a.txt") as beside:
    ...         _ = beside.write_text("whole")
    ...     print((Path(folder) / "a.txt").read_text(encoding="utf-8"), len(os.listdir(folder)))
    whole 1
    """
    beside = path.with_name(f".{secrets.token_hex(6)}{path.suffix}")
    try:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield beside
        try:
            if sync:
                _sync(beside, os.O_RDWR)
            os.replace(beside, path)
            if sync and os.name == "posix":  # only there can a folder be opened
                _sync(path.parent, os.O_RDONLY)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:  # as of a full disk
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what `replacing` left in a folder because its process was killed."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\.[0-9a-f]{12}(\.\w+)?", path.name):
            path.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
