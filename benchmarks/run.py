"""Measure convarith beside its peers, on the same arrays, interleaved in one process.

python benchmarks/run.py --device cpu|cuda [--cases ...] [--peers ...] [--json F] [--plot F]

Nothing here passes or fails: it prints a table, and writes what it measured where asked to.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import cases
import measure
import numpy as np
import peers
import report
import scipy.sparse
from tqdm import tqdm


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="groups or cases (default: all)")
    parser.add_argument(
        "--peers", nargs="*", metavar="NAME", help="peers beside ours (default: all)"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="time a case (default: 3)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the measurements to F")
    parser.add_argument("--plot", type=Path, metavar="F", help="draw them into F")
    options = parser.parse_args(arguments)
    if options.device == "cuda":
        missing = (
            "CuPy is not installed"
            if importlib.util.find_spec("cupy") is None
            else ("convarith has no CUDA kernels yet")
        )
        print(f"benchmarks/run.py: --device cuda: {missing}", file=sys.stderr)
        return 2
    for name, path in (("--json", options.json), ("--plot", options.plot)):
        if path and (path.is_dir() or not path.parent.is_dir()):
            parser.error(f"{name}: cannot write {path}")
    if options.plot and options.plot.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"--plot: expected a name ending in .png, .svg or .pdf, got {options.plot}")
    try:
        chosen = cases.select(options.cases)
        result = {
            "machine": machine(),
            "device": options.device,
            "date": datetime.date.today().isoformat(),
            "cases": [
                measured(case, options.peers, options.seconds)
                for case in tqdm(chosen, unit="case", disable=not sys.stderr.isatty())
            ],
        }
    except ValueError as error:
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return 2
    print(report.tables(result))
    print(f"\n{report.caption(result)}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        report.plot(result, options.plot)
    return 0


def measured(case: cases.Case, wanted: list[str] | None, seconds: float) -> dict[str, Any]:
    """Time one case's candidates and check that they make the same thing."""
    candidates = peers.candidates(case)
    always = (peers.OURS, peers.FLOOR)
    unknown = [name for name in wanted or () if name not in candidates]
    if unknown:
        known = ", ".join(repr(name) for name in candidates if name not in always)
        raise ValueError(f"--peers: no peer {unknown[0]!r} in group {case.group}; peers: {known}")
    chosen = {n: c for n, c in candidates.items() if n in always or wanted is None or n in wanted}
    runnable = {name: run for name, run in chosen.items() if not isinstance(run, str)}
    timings = measure.interleaved(runnable, seconds)
    expected = runnable[peers.OURS]()
    for name, run in runnable.items():
        timings[name]["peak_bytes"] = measure.peak_bytes(run)
        if name != peers.FLOOR:
            timings[name]["difference"] = difference(run(), expected)
    for name, reason in chosen.items():
        if isinstance(reason, str):
            timings[name] = {"skipped": reason}
    return {
        "group": case.group,
        "name": case.name,
        "geometry": repr(case.geometry),
        "dtype": case.dtype,
        "entries": case.geometry.nnz,
        "bytes": case.geometry.matrix_nbytes(np.dtype(case.dtype).itemsize),
        "candidates": {name: timings[name] for name in chosen},
    }


def difference(actual: scipy.sparse.csr_array, expected: scipy.sparse.csr_array) -> float:
    """Return the largest difference between two matrices, relative to the largest entry."""
    return float(abs(actual - expected).max() / abs(expected).max())


def machine() -> dict[str, Any]:
    """Return what the figures depend on: the processor, the system, the versions."""
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:  # not Linux: the short name has to do
        processor = platform.machine()
    names = ("numpy", "scipy", "convarith")
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }


if __name__ == "__main__":
    sys.exit(main())
