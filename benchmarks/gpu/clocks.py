"""How a GPU is timed: by events on the stream that is measured, candidates interleaved."""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import cupy
import numpy as np
from measure import MIN_ROUNDS, summary

Run = Callable[[], Any]

#: A sample takes at least as long, by as many runs in a row as that needs.
SAMPLE_MS = 1.0
#: So many runs at most: a queue holds about a thousand launches, and a run may be several.
MAX_RUNS = 128
#: A candidate whose sample took longer is not sampled more than twice.
PATIENCE_SECONDS = 1.0
#: The stream is held for so many times what enqueueing took, so that it never runs dry.
HOLD_MARGIN = 1.5
MAX_HOLD_MS = 20.0


class Sample(NamedTuple):
    """What one sample says, a run each: its time, and the host's to enqueue it, both in ms."""

    time: float
    enqueue: float
    #: Whether the stream was still held when all was enqueued: then no gap counts.
    held: bool


class Clock(Protocol):
    """Times runs of one candidate."""

    name: str

    def sample(self, run: Run, count: int, hold: float) -> Sample:
        """Time `count` runs in a row, the stream held for about `hold` ms before."""


class EventClock:
    """The GPU's time between two events around the runs.

    The stream is busy before the first event until the host has enqueued the runs: a kernel of a
    few µs would otherwise be measured by how fast Python calls it, which is a figure of its own.

    Parameters
    ----------
    event : callable
        Returns an event with ``record()``, on the stream that is measured, and
        ``synchronize()``.
    elapsed : callable
        Returns the ms between two of them.
    occupied : callable
        Tells of an event whether the stream has not come to it yet.
    occupy : callable
        Keeps the stream busy for so many ms.
    """

    name = "events"

    def __init__(
        self,
        event: Callable[[], Any],
        elapsed: Callable[[Any, Any], float],
        occupied: Callable[[Any], bool],
        occupy: Callable[[float], None],
    ) -> None:
        self._events = event(), event()
        self._elapsed, self._occupied, self._occupy = elapsed, occupied, occupy

    def sample(self, run: Run, count: int, hold: float) -> Sample:
        start, end = self._events
        cupy.cuda.runtime.deviceSynchronize()  # other libraries have streams of their own
        self._occupy(hold)
        start.record()
        begin = time.perf_counter()
        for _ in range(count):
            run()
        enqueue = (time.perf_counter() - begin) * 1e3
        held = self._occupied(start)
        end.record()
        end.synchronize()
        return Sample(self._elapsed(start, end) / count, enqueue / count, held)


class HostClock:
    """The host's time of runs in a row until the last is ready: for streams we cannot record on.

    Calling counts, where it takes longer than what is called.

    Parameters
    ----------
    wait : callable
        Returns when a run's result is ready.
    """

    name = "host"

    def __init__(self, wait: Callable[[Any], Any]) -> None:
        self._wait = wait

    def sample(self, run: Run, count: int, hold: float) -> Sample:
        cupy.cuda.runtime.deviceSynchronize()
        begin = time.perf_counter()
        for _ in range(count):
            result = run()
        enqueued = time.perf_counter()
        self._wait(result)
        end = time.perf_counter()
        return Sample((end - begin) * 1e3 / count, (enqueued - begin) * 1e3 / count, False)


_OCCUPY = r"""
extern "C" __global__ void occupy(long long nanoseconds)
{
    long long now, begin;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - begin < nanoseconds);
}
"""


@functools.cache
def _occupier() -> Any:
    """Return the kernel that keeps a stream busy, compiled once."""
    return cupy.RawKernel(_OCCUPY, "occupy")


def cupy_clock() -> Clock:
    """Return the clock of CuPy's current stream."""
    kernel = _occupier()
    return EventClock(
        event=cupy.cuda.Event,
        elapsed=cupy.cuda.get_elapsed_time,
        occupied=lambda event: not event.done,
        occupy=lambda ms: kernel((1,), (1,), (np.int64(ms * 1e6),)),
    )


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What is timed, and by which clock."""

    run: Run
    clock: Clock


def pace(candidate: Candidate) -> tuple[int, float]:
    """Return how many runs a sample takes, and how long to hold the stream before; warms up."""
    clock, run = candidate.clock, candidate.run
    clock.sample(run, 1, 0.0)  # what is tuned or compiled at the first run
    first = clock.sample(run, 2, 0.0)
    count = math.ceil(SAMPLE_MS / max(first.time, 1e-4))
    count = max(1, min(count, MAX_RUNS))
    enqueue = clock.sample(run, count, 0.0).enqueue * count
    return count, min(HOLD_MARGIN * enqueue + 0.05, MAX_HOLD_MS)


def quickest(spellings: Mapping[str, Candidate]) -> str:
    """Return the name of the one that takes the least time."""
    times = {}
    for name, candidate in spellings.items():
        count, hold = pace(candidate)
        times[name] = min(candidate.clock.sample(candidate.run, count, hold).time for _ in range(2))
    return min(times, key=lambda name: times[name])


def interleaved(candidates: Mapping[str, Candidate], seconds: float) -> dict[str, dict[str, Any]]:
    """Sample the candidates in turn, round after round, until each had its share of `seconds`.

    Returns
    -------
    dict
        By name: the ``median`` and the quartiles ``low`` and ``high`` in ms, ``rounds``, the
        ``runs`` in a sample, ``enqueue``, the median time in ms that the host takes to enqueue
        a run, ``held``, the share of samples that no enqueueing was part of, and the ``clock``.
    """
    share = seconds / max(1, len(candidates))
    samples: dict[str, list[Sample]] = {name: [] for name in candidates}
    spent = dict.fromkeys(candidates, 0.0)
    paces = {name: pace(candidate) for name, candidate in candidates.items()}
    gc.collect()
    gc.disable()

    def waits(name: str) -> bool:
        few = MIN_ROUNDS if spent[name] < PATIENCE_SECONDS else 2
        return len(samples[name]) < few or spent[name] < share

    try:
        while waiting := [name for name in candidates if waits(name)]:
            for name in waiting:
                begin = time.perf_counter()
                candidate = candidates[name]
                samples[name].append(candidate.clock.sample(candidate.run, *paces[name]))
                spent[name] += time.perf_counter() - begin
    finally:
        gc.enable()
    return {
        name: {
            **summary([sample.time for sample in taken]),
            "runs": paces[name][0],
            "enqueue": float(np.median([sample.enqueue for sample in taken])),
            "held": float(np.mean([sample.held for sample in taken])),
            "clock": candidates[name].clock.name,
        }
        for name, taken in samples.items()
    }
