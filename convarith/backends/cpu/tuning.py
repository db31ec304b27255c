"""Tuned blocks: timed on request, kept on disk, and free to be lost.

They change how fast a product is, never a bit of it. The file is ``tuning.json`` in the folder of
`kept`. One that is not there, not readable, damaged, or another machine's is as good as empty, and
where it cannot be written, what was tuned is kept for this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import binding

from .. import kept
from .blocks import Blocks

#: Of the file's layout and of what its numbers mean.
VERSION = 1
#: A damaged file may be of any size.
MOST_BYTES = 2**24

_lock = threading.Lock()
_table: dict[str, Blocks] | None = None


def find(key: str) -> Blocks | None:
    """Return the blocks kept under `key`, if any."""
    global _table
    with _lock:
        if _table is None:
            _table = _read()
        return _table.get(key)


def keep(key: str, blocks: Blocks) -> None:
    """Keep blocks, on disk where that is possible."""
    global _table
    with _lock:
        # Another process may have tuned something since.
        _table = {**(_table or {}), **_read(), key: blocks}
        with contextlib.suppress(OSError):  # a folder that cannot be written
            _write(_table)


def fastest(candidates: Mapping[Blocks, Callable[[], None]], seconds: float) -> Blocks:
    """Return the candidate with the least median time, run in turns for about `seconds`.

    Of those after the first few rounds, the faster half goes on, until one is left.
    """
    times: dict[Blocks, list[float]] = {blocks: [] for blocks in candidates}
    end = time.perf_counter() + seconds
    while len(times) > 1:
        for _ in range(3):
            for blocks, found in times.items():
                candidates[blocks]()  # the caches as this one leaves them
                start = time.perf_counter()
                candidates[blocks]()
                found.append(time.perf_counter() - start)
        best = sorted(times, key=lambda blocks: sorted(times[blocks])[len(times[blocks]) // 2])
        if time.perf_counter() > end:
            return best[0]
        times = {blocks: times[blocks] for blocks in best[: -(-len(best) // 2)]}
    return next(iter(times))


def _machine() -> str:
    return f"{binding.get_host_cpu_name()}, {os.cpu_count()} cores"


def _read() -> dict[str, Blocks]:
    """Return what the file holds for this machine; nothing where it is not as we write it."""
    folder = kept.folder()
    if folder is None:
        return {}
    try:
        file = folder / "tuning.json"
        if file.stat().st_size > MOST_BYTES:
            return {}
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["version"] != VERSION or content["machine"] != _machine():
            return {}
        return {key: _blocks(value) for key, value in content["blocks"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _blocks(value: Any) -> Blocks:
    """Return blocks from a list of three positive integers."""
    if len(value) != 3 or not all(type(n) is int and 0 < n < 2**31 for n in value):
        raise ValueError(value)
    return Blocks(*value)


def _write(table: Mapping[str, Blocks]) -> None:
    if folder := kept.folder():
        content = {"version": VERSION, "machine": _machine(), "blocks": table}
        kept.write(folder / "tuning.json", json.dumps(content, indent=1).encode())
