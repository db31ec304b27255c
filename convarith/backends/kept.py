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
import threading
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
    """Return what `write_code` wrote, or None where it is not there, not whole or another's."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST_NBYTES], content[_DIGEST_NBYTES:]
    return code if _digest(path, code) == digest else None


def write_code(path: Path, code: bytes) -> None:
    """Write machine code with a digest of it and its name, where that is possible."""
    with contextlib.suppress(OSError):  # a folder that cannot be written: compiled every time
        write(path, _digest(path, code) + code)


def write(path: Path, content: bytes) -> None:
    """Write beside, then rename: another process sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}-{os.getpid()}-{threading.get_ident()}.part")
    try:
        beside.write_bytes(content)  # as readable to others as all files of this user
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _digest(path: Path, code: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\0" + code).digest()
