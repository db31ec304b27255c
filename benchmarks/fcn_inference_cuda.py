"""``fcn_inference.py --device cuda``: ours and torch channels-last, each also as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
import torch
from gpu import first_line
from gpu.clocks import Candidate, cupy_clock, interleaved
from networks import torch_function
from peers import torch_cuda

import fcn

#: By name: how ours is compiled, torch's dtype, and the largest error allowed, relative to the
#: largest probability. Torch's of a hundred layers in bfloat16 comes to 0.1986.
PRECISIONS: dict[str, tuple[dict[str, str], str, float]] = {
    "float32": ({}, "float32", 1e-4),
    "tf32": ({"precision": "tf32"}, "float32", 2e-2),
    "bfloat16": ({"dtype": "bfloat16"}, "bfloat16", 0.2),
}
Run = Callable[[], Any]


def on_cuda(model: fcn.Model, x: np.ndarray, seconds: float) -> dict[str, Any]:
    """Return the medians at each precision, interleaved, and how far each is from the CPU's.

    What fails is named in ``failures`` and does not end the run.
    """
    expected = model(x)
    device = model.to("cuda")
    found: dict[str, Any] = {"times": {}, "errors": {}, "failures": {}, "memory": {}}
    for precision, (settings, dtype, tolerance) in PRECISIONS.items():
        torch_cuda.use(precision)
        ways = {
            "convarith": lambda settings=settings: ours(device.compiled(**settings), x),
            "torch": lambda dtype=dtype: theirs(model, x, dtype),
        }
        candidates = {}
        for who, make in ways.items():
            name = f"{who} {precision}"
            try:
                runs, array, clock, memory = make()
                found["memory"][name] = memory()
            except Exception as error:  # a cell of the table, and not the end of the run
                found["failures"][name] = f"{type(error).__name__}: {first_line(error)}"
                continue
            for way, run in runs.items():
                name = f"{who} {precision}{way}"
                error = float(np.abs(array(run()) - expected).max() / np.abs(expected).max())
                found["errors"][name] = error
                if error <= tolerance:
                    candidates[name] = Candidate(run, clock)
                else:
                    found["failures"][name] = f"differs by {error:.1e}"
        found["times"] |= interleaved(candidates, seconds / len(PRECISIONS))
    return found


def ours(model: fcn.Model, x: np.ndarray) -> tuple[dict[str, Run], Callable, Any, Run]:
    """Return our ways, what makes an array of a result, the clock, and the memory taken."""
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.total_bytes()
    batch = cupy.asarray(x)
    runs: dict[str, Run] = {"": lambda: model(batch)}
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        for _ in range(3):  # what is compiled, packed and allocated at the first call
            model(batch)
        stream.synchronize()
        stream.begin_capture()
        result = model(batch)
        graph = stream.end_capture()

    def launch() -> Any:
        graph.launch()
        return result

    runs[", CUDA graph"] = launch
    return runs, cupy.asnumpy, cupy_clock(), lambda: pool.total_bytes() - before


def theirs(
    model: fcn.Model, x: np.ndarray, dtype: str
) -> tuple[dict[str, Run], Callable, Any, Run]:
    """Return torch's ways on channels-last tensors, and the like."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    function = torch_function(model.graph, x.shape, "cuda", dtype)
    batch = torch.from_numpy(x).cuda().permute(0, 3, 1, 2).to(getattr(torch, dtype))
    runs: dict[str, Run] = {"": lambda: function(batch)}
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            function(batch)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(batch)

    def launch() -> Any:
        graph.replay()
        return result

    runs[", CUDA graph"] = launch

    def array(tensor: Any) -> np.ndarray:
        return tensor.float().permute(0, 2, 3, 1).cpu().numpy()

    return runs, array, torch_cuda.clock(), torch.cuda.max_memory_allocated
