"""The groups of products: ours beside every peer, checked against float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import measure
import numpy as np
import peers
from cases import Case
from hardware import cache_bytes, filler
from peers import PEERS
from problem import PRODUCTS, Problem, ours

OURS = "convarith"
#: Ours by the direct sum, beside it where it is another algorithm that is chosen.
DIRECT = "convarith direct"
#: Floors, not peers: writing the result's bytes, by `ndarray.fill` and by all threads.
FLOOR, THREADED_FLOOR = "fill", "threaded fill"
#: So many copies of a case's arrays at most are rotated.
MAX_COPIES = 64
#: A peer whose error is above this does not do the same map.
TOLERANCE = 1e-3

GROUPS = tuple(PRODUCTS)


def measured(case: Case, wanted: list[str] | None, options: Any) -> dict[str, Any]:
    """Time one case's candidates, and compare what they make with float64.

    Parameters
    ----------
    case : Case
    wanted : list of str, optional
        The peers; all of them for None.
    options
        With ``seconds``, ``threads`` and ``rotate``.
    """
    problem = Problem.of(case)
    copies = rotated(problem) if options.rotate else []
    problems = [problem, *copies]
    runs: dict[str, Callable[[], Any]] = {}
    record: dict[str, dict[str, Any]] = {}
    made = [ours(each) for each in problems]
    runs[OURS] = in_turn([run for run, _ in made])
    record[OURS] = {"plan": made[0][1], "error": problem.error(made[0][0]())}
    if "winograd" in made[0][1].lower():
        direct = [ours(each, algorithm="direct")[0] for each in problems]
        runs[DIRECT] = in_turn(direct)
        record[DIRECT] = {"error": problem.error(direct[0]())}
    if case.bilinear:
        results = [np.zeros_like(each.x) for each in problems]
        fill = filler()
        runs[FLOOR] = in_turn([lambda r=result: r.fill(1) for result in results])
        runs[THREADED_FLOOR] = in_turn([lambda r=result: fill(r.reshape(-1)) for result in results])
        record |= {FLOOR: {}, THREADED_FLOOR: {}}
    for name in applicable(case):
        if wanted is not None and name not in wanted:
            continue
        try:
            prepared = peers.prepare(PEERS[name], problem, copies, options.threads)
            result = prepared.array(prepared.runs[0]())
            error = problem.error(result, prepared.interior)
            if not error < TOLERANCE:
                raise peers.Cannot(f"another result (error {error:.0e})")
        except peers.Cannot as reason:
            record[name] = {"skipped": str(reason)}
        else:
            runs[name] = in_turn(list(prepared.runs))
            record[name] = {"spelling": prepared.spelling, "error": error}
    timings = measure.interleaved(runs, options.seconds)
    return {
        "group": case.group,
        "name": case.name,
        "geometry": repr(case.geometry),
        "batch": case.batch,
        "dtype": case.dtype,
        "flops": problem.flops,
        "bytes": problem.nbytes,
        "copies": len(problems),
        "candidates": {name: {**timings.get(name, {}), **more} for name, more in record.items()},
    }


def applicable(case: Case) -> list[str]:
    """Return the peers that have a column in the case's table."""
    return [name for name, peer in PEERS.items() if case.bilinear or not peer.interpolates]


def rotated(problem: Problem) -> list[Problem]:
    """Return copies of a problem, so many that together they do not fit into the caches."""
    count = math.ceil(2 * cache_bytes() / problem.nbytes)
    return [problem.copy() for _ in range(min(count, MAX_COPIES) - 1)]


def in_turn(runs: list[Callable[[], Any]]) -> Callable[[], Any]:
    """Return what calls them one after the other, one a call."""
    if len(runs) == 1:
        return runs[0]
    turns = itertools.cycle(runs)
    return lambda: next(turns)()
