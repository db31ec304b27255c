"""torch: convolutions, their kernel gradients and `F.interpolate`, in either layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from problem import Problem

from convarith import ConvGeometry
from peers import Cannot, Spelling, Spellings

torch.set_grad_enabled(False)


def set_threads(threads: int) -> None:
    """Let it use so many threads."""
    torch.set_num_threads(threads)


def channels_last(problem: Problem) -> Spellings:
    """Return the ways to compute it on channels-last tensors."""
    return _spellings(problem, torch.channels_last)


def channels_first(problem: Problem) -> Spellings:
    """Return the ways to compute it on NCHW tensors."""
    return _spellings(problem, torch.contiguous_format)


class Arguments(NamedTuple):
    """A geometry as torch's convolutions take it, in their order."""

    strides: list[int]
    pads: list[int]
    dilations: list[int]
    #: `output_padding`, what the transpose makes beyond its smallest size; negative where it
    #: cannot.
    extra: list[int]


def arguments(g: ConvGeometry) -> Arguments:
    """Return a geometry's arguments.

    Raises
    ------
    Cannot
        Where the sides of an axis are padded differently.
    """
    if any(low != high for low, high in g.padding):
        raise Cannot("pads both sides alike")
    pads = [low for low, _ in g.padding]
    strides, dilations = list(g.strides), list(g.dilations)
    extra = [
        size - ((o - 1) * s + (k - 1) * d + 1 - 2 * p)
        for size, o, s, k, d, p in zip(
            g.input_size, g.output_size, strides, g.kernel_size, dilations, pads, strict=True
        )
    ]
    return Arguments(strides, pads, dilations, extra)


def _spellings(problem: Problem, layout: torch.memory_format) -> Spellings:
    g = problem.geometry
    strides, pads, dilations, extra = arguments(g)
    x, y = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in (problem.x, problem.y))
    # Ours (kh, kw, i, o) is (o, i, kh, kw) there, and for a transposed layer, whose input has o
    # channels, the same.
    weight = torch.from_numpy(problem.kernel).permute(3, 2, 0, 1)
    x, y, weight = (tensor.contiguous(memory_format=layout) for tensor in (x, y, weight))
    if problem.product == "kernel_gradient":
        return _arrays(gradients(x, y, weight, g), (2, 3, 1, 0))
    mkldnn = torch.ops.mkldnn
    if problem.product == "forward":
        packed = mkldnn._reorder_convolution_weight(
            weight, pads, strides, dilations, g.groups, list(x.shape)
        )
        ways = {
            "conv2d": lambda: torch.conv2d(x, weight, None, strides, pads, dilations, g.groups),
            # What torch.compile's freezing makes of a layer: the weight in oneDNN's own layout.
            "packed": lambda: mkldnn._convolution_pointwise(
                x, packed, None, pads, strides, dilations, g.groups, "none", [], ""
            ),
        }
    else:
        packed = mkldnn._reorder_convolution_transpose_weight(
            weight, pads, extra, strides, dilations, g.groups, list(y.shape)
        )
        ways = {
            "conv_transpose2d": lambda: torch.conv_transpose2d(
                y, weight, None, strides, pads, extra, g.groups, dilations
            ),
            "packed": lambda: mkldnn._convolution_transpose_pointwise(
                y, packed, None, pads, extra, strides, dilations, g.groups, "none", [], ""
            ),
        }
    return _arrays(ways, (0, 2, 3, 1))


def gradients(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, g: ConvGeometry
) -> dict[str, Callable[[], torch.Tensor]]:
    """Return the ways to the kernel's gradient, from tensors in torch's order of axes."""
    strides, pads, dilations, extra = arguments(g)
    gradient = partial(torch.ops.aten.convolution_backward.default, output_mask=(0, 1, 0))
    given = (None, strides, pads, dilations)
    ways = {
        "convolution_backward": lambda: gradient(y, x, weight, *given, False, [0, 0], g.groups)[1]
    }
    if min(extra) >= 0:  # the same sum, as the gradient of the transposed layer
        ways["convolution_backward, transposed"] = lambda: gradient(
            x, y, weight, *given, True, extra, g.groups
        )[1]
    return ways


def resize_channels_last(problem: Problem) -> Spellings:
    """Return `F.interpolate` on channels-last tensors."""
    return _resize(problem, torch.channels_last)


def resize_channels_first(problem: Problem) -> Spellings:
    """Return `F.interpolate` on NCHW tensors."""
    return _resize(problem, torch.contiguous_format)


def _resize(problem: Problem, layout: torch.memory_format) -> Spellings:
    y = torch.from_numpy(problem.y).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    size = problem.geometry.input_size
    run = partial(F.interpolate, y, size=size, mode="bilinear", align_corners=False)
    return _arrays({"interpolate": run}, (0, 2, 3, 1))


def _arrays(ways: dict[str, Callable[[], torch.Tensor]], axes: tuple[int, ...]) -> Spellings:
    return {
        name: Spelling(run, lambda result: result.permute(axes).numpy())
        for name, run in ways.items()
    }
