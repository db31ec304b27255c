"""One trial of a product on the GPU: ours beside every peer, checked against float64."""

from __future__ import annotations

import time
from typing import Any

from peers import Cannot
from problem import Problem, ours
from products import OURS

from gpu import arrays, first_line, limits
from gpu.clocks import Candidate, cupy_clock, interleaved
from gpu.peers import PEERS, in_turn, prepare
from gpu.trials import Trial

#: A peer whose error is above this does not do the same map at the same precision: float32's is
#: below what TF32 leaves, wherever that was not switched off.
TOLERANCES = {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}


def measured(trial: Trial, wanted: list[str] | None, options: Any) -> dict[str, Any]:
    """Time one trial's candidates, and compare what they make with float64.

    Where ours fails the record says so, and the peers are measured.

    Parameters
    ----------
    trial : Trial
    wanted : list of str, optional
        The peers; all of them for None.
    options
        With ``seconds`` and ``rotate``.
    """
    begin = time.perf_counter()
    problem = arrays.problem(trial)
    copies: list[Problem] = []
    if rotates(trial, options.rotate):
        size = problem.x.nbytes + problem.y.nbytes + problem.kernel.nbytes
        copies = [problem.copy() for _ in range(arrays.copies(size, at_least=2) - 1)]
    exact, checked_by = arrays.exact(problem)
    candidates: dict[str, Candidate] = {}
    record: dict[str, dict[str, Any]] = {}
    try:
        precision = "tf32" if trial.precision == "tf32" else "float32"
        made = [ours(each, each.result, precision=precision) for each in (problem, *copies)]
        run, plan = made[0]
        record[OURS] = {"plan": plan, "error": arrays.error(run(), exact)}
        candidates[OURS] = Candidate(in_turn([run for run, _ in made]), cupy_clock())
    except Exception as error:  # ours too: a run on a GPU keeps what else it can measure
        record[OURS] = {"failed": f"{type(error).__name__}: {first_line(error)}"}
    for name in applicable(trial):
        if wanted is not None and name not in wanted:
            continue
        try:
            prepared = prepare(PEERS[name], trial.precision, problem, copies)
            error = arrays.error(prepared.array(prepared.first), exact, prepared.interior)
            if not error < TOLERANCES[trial.precision]:
                raise Cannot(f"another result (error {error:.0e})")
        except Cannot as reason:
            record[name] = {"skipped": str(reason)}
        else:
            record[name] = {"spelling": prepared.spelling, "error": error}
            candidates[name] = prepared.candidate
    prepared_in = time.perf_counter() - begin
    alike = trial.memory_bound and len(copies) > 0
    copying = limits.copying(problem.nbytes, 1 + len(copies)) if alike else {}
    timings = interleaved(candidates | copying, options.seconds)
    copied = {"copy": limits.quicker(timings, copying)} if copying else {}
    case = trial.case
    return {
        "group": case.group,
        "name": case.name,
        "geometry": repr(case.geometry),
        "batch": case.batch,
        "dtype": case.dtype,
        "precision": trial.precision,
        "memory_bound": trial.memory_bound,
        "flops": problem.flops,
        "bytes": problem.nbytes,
        "copies": 1 + len(copies),
        **copied,
        "checked": f"all entries, against {checked_by}",
        "prepare_seconds": prepared_in,
        "candidates": {name: {**timings.get(name, {}), **more} for name, more in record.items()},
    }


def rotates(trial: Trial, asked: bool) -> bool:
    """Return whether copies are run in turn: always where a figure is that of the memory."""
    return asked or (trial.memory_bound and trial.case.batch >= 16)


def applicable(trial: Trial) -> list[str]:
    """Return the peers that a trial may have."""
    return [name for name, peer in PEERS.items() if trial.case.bilinear or not peer.interpolates]
