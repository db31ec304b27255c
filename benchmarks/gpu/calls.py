"""The group ``calls`` on a GPU: what the host takes to enqueue a call on a tiny array."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cupy
from measure import summary
from products import OURS

import convarith
from gpu import arrays, first_line
from gpu.peers import loaded_torch
from gpu.trials import Trial

#: So many calls in a row, few enough for the queue not to fill.
CALLS = 100
MIN_ROUNDS = 20


def measured(trial: Trial, wanted: list[str] | None, options: Any) -> dict[str, Any]:
    """Time one case, ours and torch's beside it: enqueueing alone, without waiting.

    Parameters
    ----------
    trial : Trial
    wanted : list of str, optional
        The peers; all of them for None.
    options
        With ``seconds``.
    """
    case = trial.case
    offers = {OURS: _ours, "torch": _torch}
    record: dict[str, dict[str, Any]] = {}
    runs: dict[str, Callable[[], Any]] = {}
    for name, offer in offers.items():
        if name != OURS and wanted is not None and name not in wanted:
            continue
        if name != OURS and loaded_torch() is None:
            record[name] = {"skipped": "not installed, or sees no GPU"}
            continue
        try:
            runs[name] = offer(trial)
            runs[name]()
        except Exception as error:
            runs.pop(name, None)
            reason = f"{type(error).__name__}: {first_line(error)}"
            record[name] = {"failed" if name == OURS else "skipped": reason}
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + options.seconds
    for round_ in range(10**6):
        if round_ >= MIN_ROUNDS and time.perf_counter() > end:
            break
        for name, run in runs.items():
            times[name].append(enqueueing(run))
    record |= {name: {**summary(taken), "clock": "host"} for name, taken in times.items()}
    return {
        "group": case.group,
        "name": case.name,
        "geometry": repr(case.geometry),
        "batch": case.batch,
        "dtype": case.dtype,
        "precision": trial.precision,
        "candidates": {name: record[name] for name in offers if name in record},
    }


def enqueueing(run: Callable[[], Any]) -> float:
    """Return the host's time of a call in ms, the mean of several in a row."""
    cupy.cuda.runtime.deviceSynchronize()
    begin = time.perf_counter()
    for _ in range(CALLS):
        run()
    end = time.perf_counter()
    cupy.cuda.runtime.deviceSynchronize()
    return (end - begin) * 1e3 / CALLS


def _operands(trial: Trial) -> tuple[Any, Any]:
    g, dtype = trial.case.geometry, trial.case.dtype
    return arrays.drawn((1, *g.input_shape), dtype), arrays.drawn(g.kernel_shape, dtype, 1)


def _ours(trial: Trial) -> Callable[[], Any]:
    g = trial.case.geometry
    x, kernel = _operands(trial)
    out = cupy.empty((1, *g.output_shape), trial.case.dtype)
    if trial.case.name.startswith("operator"):
        operator = convarith.ConvOperator(kernel, g.input_size, padding=g.padding)
        return lambda: operator(x, out=out)
    return lambda: convarith.conv(x, kernel, padding=g.padding, out=out)


def _torch(trial: Trial) -> Callable[[], Any]:
    peer = loaded_torch()
    peer.use(trial.precision)
    pads = [low for low, _ in trial.case.geometry.padding]
    x, kernel = map(peer.tensor, _operands(trial))
    image, weight = x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
    return lambda: peer.torch.conv2d(image, weight, None, 1, pads)
