"""torch on the GPU: cuDNN's convolutions in either layout, at a precision that is exactly set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cupy
import torch
import torch.nn.functional as F
from gpu.clocks import Clock, EventClock
from problem import Problem

from peers import Cannot, Spelling, Spellings
from peers.torch import arguments, gradients

__all__ = ["Cannot", "channels_first", "channels_last", "clock", "exact", "use"]

#: For good, and not a call at a time: entering it takes a µs.
_inference = torch.inference_mode()
_inference.__enter__()
#: About a GPU's cycles in a ms: what `torch.cuda._sleep` counts.
CYCLES = 1.7e6


def use(precision: str) -> None:
    """Multiply float32 as it is, or as TF32, and nothing in between.

    cuDNN tries its algorithms at the first run of each, which does not count.
    """
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def clock() -> Clock:
    """Return the clock of torch's current stream."""
    return EventClock(
        event=lambda: torch.cuda.Event(enable_timing=True),
        elapsed=lambda start, end: start.elapsed_time(end),
        occupied=lambda event: not event.query(),
        occupy=lambda ms: torch.cuda._sleep(int(ms * CYCLES)),
    )


def tensor(array: Any) -> torch.Tensor:
    """Return a tensor on the same memory."""
    if array.dtype.name == "bfloat16":  # as bits, which every version of DLPack's ends knows
        return torch.from_dlpack(array.view("i2")).view(torch.bfloat16)
    return torch.from_dlpack(array)


def channels_last(problem: Problem) -> Spellings:
    """Return the ways to compute it on channels-last tensors."""
    return _spellings(problem, torch.channels_last)


def channels_first(problem: Problem) -> Spellings:
    """Return the ways to compute it on NCHW tensors."""
    return _spellings(problem, torch.contiguous_format)


def _spellings(problem: Problem, layout: torch.memory_format) -> Spellings:
    g = problem.geometry
    strides, pads, dilations, extra = arguments(g)
    x, y = (tensor(array).permute(0, 3, 1, 2) for array in (problem.x, problem.y))
    weight = tensor(problem.kernel).permute(3, 2, 0, 1)
    # A channels-last tensor is on our own memory; only the weight, and NCHW, are copies.
    x, y, weight = (each.contiguous(memory_format=layout) for each in (x, y, weight))
    if problem.product == "kernel_gradient":
        return _arrays(gradients(x, y, weight, g), (2, 3, 1, 0))
    if problem.product == "forward":
        run = partial(torch.conv2d, x, weight, None, strides, pads, dilations, g.groups)
        return _arrays({"conv2d": run}, (0, 2, 3, 1))
    run = partial(
        torch.conv_transpose2d, y, weight, None, strides, pads, extra, g.groups, dilations
    )
    return _arrays({"conv_transpose2d": run}, (0, 2, 3, 1))


def resize_channels_last(problem: Problem) -> Spellings:
    """Return `F.interpolate` on channels-last tensors."""
    return _resize(problem, torch.channels_last)


def resize_channels_first(problem: Problem) -> Spellings:
    """Return `F.interpolate` on NCHW tensors."""
    return _resize(problem, torch.contiguous_format)


def _resize(problem: Problem, layout: torch.memory_format) -> Spellings:
    y = tensor(problem.y).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    size = problem.geometry.input_size
    run = partial(F.interpolate, y, size=size, mode="bilinear", align_corners=False)
    return _arrays({"interpolate": run}, (0, 2, 3, 1))


def _arrays(ways: dict[str, Callable[[], torch.Tensor]], axes: tuple[int, ...]) -> Spellings:
    def array(result: torch.Tensor) -> Any:
        return cupy.from_dlpack(result.double().permute(axes).contiguous())

    return {name: Spelling(run, array) for name, run in ways.items()}


def exact(problem: Problem) -> Any:
    """Return the result of a float64 problem.

    Without trying algorithms: it is run once.
    """
    torch.backends.cudnn.benchmark = False
    ((_, way), *_) = channels_first(problem).items()
    return way.array(way.run())
