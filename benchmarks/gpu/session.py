"""A run on a GPU: trial after trial, and after each the file holds what was measured."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import cupy
import numpy as np
from problem import PRODUCTS
from products import OURS
from progress import progress

import convarith
from gpu import calls, first_line, labels, limits, products
from gpu.peers import PEERS
from gpu.trials import Trial

#: How to measure a group; all others are products.
WAYS = {"argmax": labels.measured, "calls": calls.measured}


def measured(trials: list[Trial], options: argparse.Namespace) -> dict[str, Any]:
    """Measure the trials; return what they gave, and what it depends on.

    Parameters
    ----------
    trials : list of Trial
    options
        With ``seconds``, ``rotate``, ``peers``, ``json`` and ``minutes``.
    """
    begin = time.perf_counter()
    result: dict[str, Any] = {
        "machine": {**limits.machine(), "versions": versions(options.peers)},
        "device": "cuda",
        "date": datetime.date.today().isoformat(),
        "seconds": options.seconds,
        "cases": [],
        "left_out": [trial.path for trial in trials],
    }
    result["limits"] = limits.limits()
    write(result, options.json)
    ahead: set[tuple[str, str]] = set()
    for trial in progress(trials, lines=True):
        if options.minutes and time.perf_counter() - begin > 60 * options.minutes:
            break
        limits.release()
        chapter = trial.case.group, trial.precision
        if chapter not in ahead:
            ahead.add(chapter)
            compile_ahead([t for t in trials if (t.case.group, t.precision) == chapter], options)
        record = attempted(trial, options)
        result["cases"].append(record)
        result["left_out"].remove(trial.path)
        write(result, options.json)
        lost = context_lost()
        if lost:
            result["stopped"] = lost
            break
    result["run_seconds"] = time.perf_counter() - begin
    write(result, options.json)
    return result


def attempted(trial: Trial, options: argparse.Namespace) -> dict[str, Any]:
    """Return the record of a trial, or of how it failed as a whole."""
    try:
        return WAYS.get(trial.case.group, products.measured)(trial, options.peers, options)
    except Exception as error:  # memory that ends, a timer that fails: the others are measured
        return {
            "group": trial.case.group,
            "name": trial.case.name,
            "batch": trial.case.batch,
            "dtype": trial.case.dtype,
            "precision": trial.precision,
            "memory_bound": trial.memory_bound,
            "candidates": {OURS: {"failed": f"{type(error).__name__}: {first_line(error)}"}},
        }


def context_lost() -> str | None:
    """Return why nothing can run any more in this process, as after an illegal access."""
    try:
        cupy.cuda.runtime.deviceSynchronize()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return first_line(error)
    return None


def compile_ahead(trials: list[Trial], options: argparse.Namespace) -> None:
    """Let JAX, where it takes part, compile for the trials before the first is measured."""
    jax = PEERS["JAX"]
    wanted = options.peers is None or jax.name in options.peers
    if wanted and not jax.missing and trials[0].case.group in PRODUCTS:
        try:
            importlib.import_module(jax.module).compile_ahead(trials)
        except Exception as error:  # it does not load: every trial's table will say so
            print(f"benchmarks/run.py: JAX: {first_line(error)}", file=sys.stderr)


def failures(result: dict[str, Any]) -> list[str]:
    """Return the cases in which ours failed, and what ended the run."""
    found = [f"the GPU cannot go on: {result['stopped']}"] if "stopped" in result else []
    for case in result["cases"]:
        ours = case["candidates"].get(OURS, {})
        if "failed" in ours:
            name = f"{case['group']}/{case['name']} {case['precision']} n{case['batch']}"
            found.append(f"{name} failed: {ours['failed']}")
    return found


def write(result: dict[str, Any], path: Path | None) -> None:
    """Write the result where it is asked for, so that a reader finds the last one or this."""
    if path is None:
        return
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


def versions(wanted: list[str] | None) -> dict[str, str]:
    """Return the versions of what computes: the library, what it stands on, and the peers."""
    found = {module.__name__: module.__version__ for module in (np, cupy, convarith)}
    for peer in PEERS.values():
        if (wanted is None or peer.name in wanted) and peer.version:
            distribution, number = peer.version
            found[distribution] = number
    return found
