"""How it is measured: candidates interleaved in one process, medians with their spread."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

#: As many are timed at least, but not of a candidate that took so long already.
MIN_ROUNDS = 5
PATIENCE_SECONDS = 3.0
#: How long a turn waits before it begins: the threads of the candidate before, and of another
#: library than this one's, spin for a while after their last work, on the cores that we need.
PAUSE_SECONDS = 0.02
#: How long a candidate runs in its turn before a run of it is timed.
WARM_SECONDS = 0.01
#: A run as long as this needs none before it.
LONG_SECONDS = 0.2
#: How long it is timed then, one run after the other, at least once.
TIMED_SECONDS = 0.01


def interleaved(
    candidates: Mapping[str, Callable[[], Any]], seconds: float
) -> dict[str, dict[str, float]]:
    """Time the candidates in turn, round after round, until each had its share of `seconds`.

    So whatever slows the machine down for a while slows all of them down. In its turn each
    runs for a while before a run is timed: the first ones pay for the heap and the caches as the
    candidate before left them. A turn counts once, by the median of its runs, so that a
    disturbance counts once too. A result is dropped before the next run.

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

    def waits(name: str) -> bool:
        few = len(times[name]) < MIN_ROUNDS and spent[name] < max(share, PATIENCE_SECONDS)
        return few or spent[name] < share

    try:
        while waiting := [name for name in candidates if waits(name)]:
            for name in waiting:
                begin = time.perf_counter()
                time.sleep(PAUSE_SECONDS)
                times[name].append(turn(candidates[name]))
                spent[name] += time.perf_counter() - begin
    finally:
        gc.enable()
    return {name: summary(t) for name, t in times.items()}


def turn(run: Callable[[], Any]) -> float:
    """Return the median time of a run in ms, after some that do not count."""
    begin = time.perf_counter()
    run()
    if (first := time.perf_counter() - begin) > LONG_SECONDS:
        return first * 1e3
    while time.perf_counter() < begin + WARM_SECONDS:
        run()
    times: list[float] = []
    begin = time.perf_counter()
    while not times or time.perf_counter() < begin + TIMED_SECONDS:
        start = time.perf_counter()
        result = run()
        end = time.perf_counter()
        del result
        times.append((end - start) * 1e3)
    return float(np.median(times))


def summary(times: list[float]) -> dict[str, float]:
    """Return the median and the quartiles of times, and how many there are."""
    low, median, high = map(float, np.quantile(times, (0.25, 0.5, 0.75)))
    return {"low": low, "median": median, "high": high, "rounds": len(times)}


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the most memory that one run holds at a time, as NumPy reports its arrays."""
    gc.collect()
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
