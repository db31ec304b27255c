"""The group ``argmax``: the label of every pixel, the largest of its channels."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cupy
from products import OURS

import convarith
from gpu import arrays, first_line, limits
from gpu.clocks import Candidate, Clock, cupy_clock, interleaved
from gpu.peers import in_turn, loaded_torch
from gpu.trials import Trial

Way = tuple[Clock, Callable[[Any], Any]]


def measured(trial: Trial, wanted: list[str] | None, options: Any) -> dict[str, Any]:
    """Time the candidates; all must make CuPy's labels.

    Parameters
    ----------
    trial : Trial
    wanted : list of str, optional
        The peers; all of them for None.
    options
        With ``seconds``.
    """
    begin = time.perf_counter()
    case = trial.case
    shape = (case.batch, *case.geometry.input_shape)
    x = arrays.drawn(shape, case.dtype)
    labels = cupy.argmax(x, axis=-1)
    nbytes = x.nbytes + labels.nbytes
    operands = [x, *(x.copy() for _ in range(arrays.copies(nbytes, at_least=2) - 1))]
    offers: dict[str, Callable[[], Way]] = {OURS: _ours, "CuPy": _cupy, "torch": _torch}
    candidates: dict[str, Candidate] = {}
    record: dict[str, dict[str, Any]] = {}
    for name, offer in offers.items():
        if name != OURS and wanted is not None and name not in wanted:
            continue
        try:
            clock, way = offer()
            given = map(loaded_torch().tensor, operands) if name == "torch" else operands
            runs = [partial(way, operand) for operand in given]
            wrong = int((cupy.from_dlpack(runs[0]()) != labels).sum())
            if wrong:
                raise ValueError(f"{wrong} of {labels.size} labels differ from CuPy's")
        except Missing as reason:
            record[name] = {"skipped": str(reason)}
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            record[name] = {"failed" if name == OURS else "skipped": reason}
        else:
            record[name] = {"error": 0.0}
            candidates[name] = Candidate(in_turn(runs), clock)
    prepared_in = time.perf_counter() - begin
    copying = limits.copying(nbytes, len(operands))
    timings = interleaved(candidates | copying, options.seconds)
    copied = limits.quicker(timings, copying)
    return {
        "group": case.group,
        "name": case.name,
        "shape": list(shape),
        "batch": case.batch,
        "dtype": case.dtype,
        "precision": trial.precision,
        "memory_bound": trial.memory_bound,
        "flops": x.size,
        "bytes": nbytes,
        "copies": len(operands),
        "copy": copied,
        "checked": "all labels, against CuPy's",
        "prepare_seconds": prepared_in,
        "candidates": {name: {**timings.get(name, {}), **more} for name, more in record.items()},
    }


class Missing(Exception):
    """There is nothing to measure; the message is the short reason."""


def _ours() -> Way:
    argmax_channels = getattr(convarith, "argmax_channels", None)
    if argmax_channels is None:
        raise Missing("convarith has no argmax_channels")
    return cupy_clock(), argmax_channels


def _cupy() -> Way:
    return cupy_clock(), lambda x: cupy.argmax(x, axis=-1)


def _torch() -> Way:
    peer = loaded_torch()
    if peer is None:
        raise Missing("not installed, or sees no GPU")
    return peer.clock(), lambda x: peer.torch.argmax(x, -1)
