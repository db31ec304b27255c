"""OpenCV: its network module for convolutions, `cv2.resize` for interpolation."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from problem import Problem

from peers import Cannot, Spelling, Spellings


def set_threads(threads: int) -> None:
    """Let it use so many threads."""
    cv2.setNumThreads(threads)


def spellings(problem: Problem) -> Spellings:
    """Return a network of the one layer, as OpenCV reads it from ONNX, or `cv2.filter2D`."""
    from peers.onnxruntime import convolution, nchw, nhwc

    if _filters(problem):
        return {"filter2D": _filter(problem)}

    model = convolution(problem).SerializeToString()
    x = nchw(problem.y if problem.product == "transpose" else problem.x)
    return {
        "dnn": _network(cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8)), x, nhwc),
    }


def _filters(problem: Problem) -> bool:
    """Whether it is the filter of one channel that keeps the picture's size."""
    g = problem.geometry
    return (
        problem.product == "forward"
        and g.rank == 2
        and g.in_channels == g.out_channels == len(problem.x) == 1
        and max(*g.strides, *g.dilations) == 1
        and all(size % 2 for size in g.kernel_size)
        and g.padding == tuple((size // 2,) * 2 for size in g.kernel_size)
    )


def _filter(problem: Problem) -> Spelling:
    """Return `cv2.filter2D`, into memory that stays."""
    image, kernel = problem.x[0, ..., 0], problem.kernel[..., 0, 0]
    result = np.empty_like(image)
    return Spelling(
        lambda: cv2.filter2D(image, -1, kernel, result, borderType=cv2.BORDER_CONSTANT),
        lambda found: found[None, ..., None],
    )


def _network(network: Any, x: np.ndarray, array: Any) -> Spelling:
    def run() -> np.ndarray:
        network.setInput(x)  # without it, a second run may find that nothing changed
        return network.forward()

    return Spelling(run, array)


def resize(problem: Problem) -> Spellings:
    """Return `cv2.resize`, at once and four channels at a time, into memory that stays."""
    (image, *others), channels = problem.y, problem.y.shape[-1]
    if others:
        raise Cannot("one image at a time")
    height, width = problem.geometry.input_size
    whole = np.empty((height, width, channels), image.dtype)
    ways = {
        "resize": Spelling(
            lambda: cv2.resize(image, (width, height), whole, interpolation=cv2.INTER_LINEAR),
            lambda found: found[None],
        )
    }
    if channels > 4:
        # Its vectorised kernels know four channels at most.
        parts = [np.ascontiguousarray(image[..., c : c + 4]) for c in range(0, channels, 4)]
        ends = [np.empty((height, width, part.shape[-1]), image.dtype) for part in parts]

        def run() -> list[np.ndarray]:
            for part, end in zip(parts, ends, strict=True):
                cv2.resize(part, (width, height), end, interpolation=cv2.INTER_LINEAR)
            return ends

        ways["resize, split"] = Spelling(
            run,
            lambda found: np.concatenate(
                [end.reshape(height, width, -1) for end in found], axis=-1
            )[None],
        )
    return ways
