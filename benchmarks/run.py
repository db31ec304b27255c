"""Measure convarith beside its peers, on the same arrays, interleaved in one process.

python benchmarks/run.py --device cpu|cuda [--cases ...] [--peers ...] [--json F] [--plot F]

No figure here passes or fails: it prints tables, and writes what it measured where asked to. On
a GPU, where a kernel of ours that fails does not end the run, it ends with 1.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

import calls
import cases
import gpu
import hardware
import matrix
import products
import report
from gpu.trials import BATCHES, PRECISIONS, trials
from peers import PEERS
from plot import plot
from progress import progress
from tables import tables


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--cases", nargs="+", metavar="NAME", help="groups, cases or layers (default: all)"
    )
    parser.add_argument(
        "--peers", nargs="*", metavar="NAME", help="peers beside ours (default: all)"
    )
    parser.add_argument(
        "--seconds", type=float, help="time a case (default: 3 on the CPU, 0.25 on a GPU)"
    )
    parser.add_argument(
        "--threads", type=positive, default=hardware.cores(), help="of everyone (default: all)"
    )
    parser.add_argument(
        "--rotate", action="store_true", help="run on copies in turn that no cache holds together"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write the measurements to F")
    parser.add_argument("--plot", type=Path, metavar="F", help="draw them into F")
    on_gpu = parser.add_argument_group("with --device cuda")
    on_gpu.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="(default: all)")
    on_gpu.add_argument(
        "--batch",
        nargs="+",
        type=positive,
        metavar="N",
        help="at least the case's own (default: 1 16)",
    )
    on_gpu.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="start no case after so many minutes, 0 for no end (default: 6)",
    )
    options = parser.parse_args(arguments)
    if options.device == "cpu":
        for name in ("precisions", "batch", "minutes"):
            if getattr(options, name) is not None:
                parser.error(f"--{name}: expected with --device cuda only")
    elif missing := gpu.missing():
        print(f"benchmarks/run.py: --device cuda: {missing}", file=sys.stderr)
        return 2
    if options.seconds is None:
        options.seconds = 0.25 if options.device == "cuda" else 3.0
    if options.minutes is None:
        options.minutes = 6.0
    for name, path in (("--json", options.json), ("--plot", options.plot)):
        if path and (path.is_dir() or not path.parent.is_dir()):
            parser.error(f"{name}: cannot write {path}")
    if options.plot and options.plot.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"--plot: expected a name ending in .png, .svg or .pdf, got {options.plot}")
    if options.device == "cuda":
        return on_cuda(options)
    try:
        chosen = cases.select(options.cases)
        check_peers(chosen, options.peers)
    except ValueError as error:
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return 2
    result = measured(chosen, options)
    print(tables(result))
    print(f"\n{report.caption(result)}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        plot(result, options.plot)
    return 0


def on_cuda(options: argparse.Namespace) -> int:
    """Measure on the GPU; return the exit code, 1 where a case of ours failed."""
    from gpu import session
    from gpu.peers import check
    from gpu.plot import plot
    from gpu.tables import caption, tables

    try:
        chosen = trials(options.cases, options.precisions or PRECISIONS, options.batch or BATCHES)
        check(options.peers)
    except ValueError as error:
        print(f"benchmarks/run.py: {error}", file=sys.stderr)
        return 2
    result = session.measured(chosen, options)
    print(tables(result))
    print(f"\n{caption(result)}")
    if options.plot:
        plot(result, options.plot)
    failures = session.failures(result)
    for failure in failures:
        print(f"benchmarks/run.py: {failure}", file=sys.stderr)
    return 1 if failures else 0


def positive(text: str) -> int:
    """Return a number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def peers_of(case: cases.Case) -> list[str]:
    """Return the peers that a case may have."""
    if case.group == "matrix":
        return list(matrix.PEERS)
    return list(calls.PEERS) if case.group == "calls" else products.applicable(case)


def check_peers(chosen: list[cases.Case], wanted: list[str] | None) -> None:
    """Raise a `ValueError` for a peer that none of the cases has."""
    known = list(dict.fromkeys(name for case in chosen for name in peers_of(case)))
    for name in wanted or ():
        if name not in known:
            raise ValueError(f"--peers: no peer {name!r}; peers: {', '.join(map(repr, known))}")


def measured(chosen: list[cases.Case], options: argparse.Namespace) -> dict[str, Any]:
    """Return what is measured of the cases, and what it depends on."""
    hardware.use_threads(options.threads)
    result: dict[str, Any] = {
        "machine": {**hardware.machine(), "versions": versions(chosen, options.peers)},
        "device": options.device,
        "date": datetime.date.today().isoformat(),
        "threads": options.threads,
        "cases": [],
    }
    limited = any(case.group in products.GROUPS for case in chosen)
    before = hardware.limits(options.threads) if limited else {}
    if limited:
        result["machine"]["vectors"] = hardware.vectors()
    begin, others = time.perf_counter(), hardware.others_seconds()
    ways = {"matrix": matrix.measured, "calls": calls.measured}
    for case in progress(chosen):
        measure_case = ways.get(case.group, products.measured)
        result["cases"].append(measure_case(case, options.peers, options))
    spent = (time.perf_counter() - begin) * hardware.cores()
    result["others"] = (hardware.others_seconds() - others) / spent
    if limited:  # at both ends of the run: a limit is what nothing disturbed
        after = hardware.limits(options.threads)
        result["limits"] = {name: max(before[name], after[name]) for name in before}
    return result


def versions(chosen: list[cases.Case], wanted: list[str] | None) -> dict[str, str]:
    """Return the versions of what computes: the library, what it stands on, and the peers."""
    names = ["numpy", "scipy", "convarith"]
    if any(case.group != "matrix" for case in chosen):
        names[2:2] = ["numba"]
    found = {name: importlib.metadata.version(name) for name in names}
    for name in dict.fromkeys(name for case in chosen for name in peers_of(case)):
        peer = PEERS.get(name, PEERS["torch channels-last"] if name == "torch" else None)
        if peer and (wanted is None or name in wanted) and peer.version:
            distribution, version = peer.version
            found[distribution] = version
    return found


if __name__ == "__main__":
    sys.exit(main())
