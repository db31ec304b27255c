"""Machine code and tuned blocks on disk: where they lie, and how they get there whole.

The folder is the one that the environment variable CONVARITH_CACHE names, or else ``convarith`` in
the user's cache. What is not there, not readable or damaged is as good as missing, and where
nothing can be written, all still works for this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from pathlib import Path

_DIGEST_NBYTES = hashlib.sha256().digest_size


def folder() -> Path | None:
    """Return the folder, or None for a user who has none."""
    told = os.environ.get("CONVARITH_CACHE")
    if told:
        return Path(told)
    try:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # there is no home
        return None
    return Path(base) / "convarith"


def read_code(path: Path) -> bytes | None:
    """Return what `write_code` wrote, or None where it is not there or not whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_NBYTES], content[_DIGEST_NBYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def write_code(path: Path, code: bytes) -> None:
    """Write machine code with a digest of it, where that is possible."""
    with contextlib.suppress(OSError):  # a folder that cannot be written: compiled every time
        write(path, hashlib.sha256(code).digest() + code)


def write(path: Path, content: bytes) -> None:
    """Write beside, then rename: another process sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f"{path.stem}-", suffix=".part", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
