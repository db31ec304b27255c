"""The textbook's experiments (Zhang et al., "Dive into Deep Learning", 14.10 and 14.11).

python benchmarks/experiments.py [upsampling] [heads] [rates] [matrix] --data DIR [--out RUNS]

Each takes at most five minutes on two cores. What it measures goes to results/experiments, its
curve to docs/experiments, and both into fcn/README.md; --report makes the latter two anew from
what was measured before.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hardware
import matrix_product
import training_runs
from report import END, between, caption

from fcn.files import replacing

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "experiments"
CURVES = HERE.parent / "docs" / "experiments"
README = HERE.parent / "fcn" / "README.md"
BEGIN = "<!-- begin {name}: written by benchmarks/experiments.py -->"

MATRIX = "matrix"
NAMES = (*training_runs.EXPERIMENTS, MATRIX)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} (or all)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="pictures to train on, in Pascal VOC's layout"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="RUNS",
        help="the folder of the runs; what is there is not run again (default: runs)",
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing: only write the report again"
    )
    options = parser.parse_args(arguments)
    names = list(dict.fromkeys(options.names)) or list(NAMES)
    for name in names:
        if name not in NAMES:
            parser.error(f"NAME: expected one of {', '.join(NAMES)}, got {name!r}")
    if not options.report and options.data is None and names != [MATRIX]:
        parser.error("--data: expected the folder to train on, got none")
    try:
        for name in names:
            if not options.report:
                write_result(name, measured(name, options))
            draw(name)
        write_readme()
    except (OSError, ValueError) as error:
        print(f"benchmarks/experiments.py: {error}", file=sys.stderr)
        return 2
    return 0


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what an experiment came to, and what that depends on."""
    begin, others = time.perf_counter(), hardware.others_seconds()
    if name == MATRIX:
        found = matrix_product.measured()
    else:
        found = training_runs.measured(name, options.data, options.out)
    seconds = time.perf_counter() - begin
    return {
        "machine": {
            **hardware.machine(),
            "vectors": hardware.vectors(),
            "versions": {
                each: importlib.metadata.version(each)
                for each in ("numpy", "scipy", "numba", "convarith")
            },
        },
        "date": datetime.date.today().isoformat(),
        "seconds": round(seconds, 1),
        "others": (hardware.others_seconds() - others) / (seconds * hardware.cores()),
        **found,
    }


def write_result(name: str, result: Mapping[str, Any]) -> None:
    """Write what was measured."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with replacing(RESULTS / f"{name}.json") as beside:
        beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def draw(name: str) -> None:
    """Draw an experiment's curve."""
    CURVES.mkdir(parents=True, exist_ok=True)
    module(name).draw(read_result(RESULTS, name), CURVES / f"{name}.png")


def write_readme() -> None:
    """Write every part of the README that there are measurements for."""
    text = with_parts(README.read_text(encoding="utf-8"), RESULTS)
    with replacing(README) as beside:
        beside.write_text(text, encoding="utf-8")


def read_result(results: Path, name: str) -> dict[str, Any]:
    """Return what was measured of an experiment."""
    return json.loads((results / f"{name}.json").read_text(encoding="utf-8"))


def module(name: str) -> Any:
    """Return the module that an experiment's curve and report are of."""
    return matrix_product if name == MATRIX else training_runs


def with_parts(text: str, results: Path) -> str:
    """Return the README's text with the marked parts of measured experiments made anew."""
    for name in NAMES:
        if not (results / f"{name}.json").exists():
            continue
        result = read_result(results, name)
        part = f"{module(name).report(name, result)}\n\n{caption(result)}"
        text = between(text, BEGIN.format(name=name), END.format(name=name), [part])
    return text


if __name__ == "__main__":
    sys.exit(main())
