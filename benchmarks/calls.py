"""The group ``calls``: what a call costs besides its arithmetic.

The first call in a fresh process, with nothing compiled yet and with everything compiled by an
earlier process; and a call on a tiny array, planned and not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
from cases import Case
from products import OURS

import convarith

PEERS = ("torch",)
#: So many processes make the median, one alone where no time is given.
PROCESSES = 5

#: What a fresh process runs. Its arrays are made before the clock starts again: they are the
#: caller's. The library brings NumPy, whose import is part of its own.
FIRST_CALLS = {
    OURS: """
import json, sys, time
start = time.perf_counter()
import convarith
imported = time.perf_counter()
import numpy
x = numpy.ones((1, 80, 120, 64), "f4")
kernel = numpy.ones((3, 3, 64, 64), "f4")
begin = time.perf_counter()
convarith.conv(x, kernel, padding=1)
end = time.perf_counter()
print(json.dumps([imported - start, end - begin]))
""",
    "torch": """
import json, sys, time
start = time.perf_counter()
import torch
imported = time.perf_counter()
x = torch.ones(1, 64, 80, 120).contiguous(memory_format=torch.channels_last)
kernel = torch.ones(64, 64, 3, 3).contiguous(memory_format=torch.channels_last)
torch.set_num_threads(int(sys.argv[1]))
begin = time.perf_counter()
torch.conv2d(x, kernel, padding=1)
end = time.perf_counter()
print(json.dumps([imported - start, end - begin]))
""",
}


def measured(case: Case, wanted: list[str] | None, options: Any) -> dict[str, Any]:
    """Time one case, ours and torch's beside it."""
    names = [OURS, *(name for name in PEERS if wanted is None or name in wanted)]
    present = [n for n in names if n == OURS or importlib.util.find_spec(n) is not None]
    if case.name.endswith("first_call"):
        cold = case.name.startswith("cold")
        found = {n: first_call(n, options.threads, cold, options.seconds) for n in present}
    else:
        runs = {name: tiny(name, case, options.threads) for name in present}
        for run in runs.values():
            run()  # what a first call compiles is a case of its own
        found = dict(measure.interleaved(runs, options.seconds))
    return {
        "group": case.group,
        "name": case.name,
        "geometry": repr(case.geometry),
        "dtype": case.dtype,
        "candidates": {n: found.get(n, {"skipped": "not installed"}) for n in names},
    }


def first_call(name: str, threads: int, cold: bool, seconds: float) -> dict[str, Any]:
    """Return the time of import and first call in fresh processes, in ms.

    What is compiled goes to a folder of this case's: a new one every time for `cold`, and otherwise
    one that a process has filled before. The files themselves are in
    the system's cache in either case, and Python's own bytecode is compiled.
    """
    totals: list[float] = []
    imports: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        # The first process of all fills bytecode and file caches, and the folder for the others.
        _process(name, threads, Path(scratch, "0"))
        for number in range(1, 1 + (PROCESSES if seconds else 1)):
            folder = Path(scratch, str(number) if cold else "0")
            imported, called = _process(name, threads, folder)
            totals.append((imported + called) * 1e3)
            imports.append(imported * 1e3)
    return {**measure.summary(totals), "import": float(np.median(imports))}


def _process(name: str, threads: int, folder: Path) -> tuple[float, float]:
    """Return the seconds of import and of the first call in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALLS[name], str(threads)],
        env={**os.environ, "CONVARITH_CACHE": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    imported, called = json.loads(done.stdout)
    return imported, called


def tiny(name: str, case: Case, threads: int) -> Callable[[], Any]:
    """Return a call on an array so small that only the call counts."""
    g = case.geometry
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, *g.input_shape)).astype(case.dtype)
    kernel = rng.standard_normal(g.kernel_shape).astype(case.dtype)
    if name == "torch":
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        pads = [low for low, _ in g.padding]
        image = torch.from_numpy(x).permute(0, 3, 1, 2)
        weight = torch.from_numpy(kernel).permute(3, 2, 0, 1)
        return lambda: torch.conv2d(image, weight, None, 1, pads)
    if case.name.startswith("operator"):
        operator = convarith.ConvOperator(kernel, g.input_size, padding=g.padding)
        return lambda: operator(x)
    return lambda: convarith.conv(x, kernel, padding=g.padding)
