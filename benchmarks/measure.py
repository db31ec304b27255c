"""How it is measured: candidates interleaved in one process, medians with their spread."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

MIN_ROUNDS = 5
#: How long a candidate runs in its turn before a run of it is timed.
WARM_SECONDS = 0.01


def interleaved(
    candidates: Mapping[str, Callable[[], Any]], seconds: float
) -> dict[str, dict[str, float]]:
    """Time the candidates in turn, round after round, until each had its share of `seconds`.

    So whatever slows the machine down for a while slows all of them down. In its turn each
    runs for a while before a run is timed: the first ones pay for the heap and the caches as the
    candidate before left them. A result is dropped before the next run.

    Returns
    -------
    dict
        By name: the ``median`` and the quartiles ``low`` and ``high`` in ms, and ``rounds``.
    """
    share = seconds / len(candidates)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    spent = dict.fromkeys(candidates, 0.0)
    gc.collect()
    gc.disable()
    try:
        while waiting := [n for n in candidates if len(times[n]) < MIN_ROUNDS or spent[n] < share]:
            for name in waiting:
                begin = time.perf_counter()
                candidates[name]()
                while time.perf_counter() < begin + WARM_SECONDS:
                    candidates[name]()
                start = time.perf_counter()
                result = candidates[name]()
                end = time.perf_counter()
                del result
                times[name].append((end - start) * 1e3)
                spent[name] += end - begin
    finally:
        gc.enable()
    return {
        name: {
            **dict(zip(("low", "median", "high"), np.quantile(t, (0.25, 0.5, 0.75)), strict=True)),
            "rounds": len(t),
        }
        for name, t in times.items()
    }


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the most memory that one run holds at a time, as NumPy reports its arrays."""
    gc.collect()
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
