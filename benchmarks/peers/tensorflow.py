"""TensorFlow: eagerly, as a graph that knows the weights, and compiled by XLA."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from problem import Problem

from convarith import ConvGeometry
from peers import Cannot, Spelling, Spellings


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send stderr nowhere: what TensorFlow says of itself when it is loaded no setting stops."""
    standing = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(standing, 2)
        os.close(standing)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what XLA says of itself
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # its fastest kernels, on any processor
with _quiet():
    import tensorflow as tf
tf.get_logger().setLevel("ERROR")  # of functions traced again: each case has its own


def set_threads(threads: int) -> None:
    """Let it use so many threads; TensorFlow allows it before its first operation only."""
    config = tf.config.threading
    if config.get_intra_op_parallelism_threads() != threads:
        config.set_intra_op_parallelism_threads(threads)
        config.set_inter_op_parallelism_threads(threads)


def spellings(problem: Problem) -> Spellings:
    """Return the ways to compute it, channels last."""
    g, raw = problem.geometry, tf.raw_ops
    depthwise = g.groups == g.in_channels == g.out_channels > 1
    if g.groups > 1 and not depthwise:
        raise Cannot("no groups")
    arguments: dict[str, Any] = {"strides": [1, *g.strides, 1], **_padding(problem)}
    kernel = problem.kernel  # (kh, kw, i, o)
    if depthwise:
        kernel = np.ascontiguousarray(kernel.transpose(0, 1, 3, 2))  # (kh, kw, c, 1)
    # An operand of `operation` is (array, whether it is a weight); shapes are weights, too.
    x, y, weight = (problem.x, False), (problem.y, False), (kernel, True)
    size, shape = (np.array(problem.x.shape, "i4"), True), (np.array(kernel.shape, "i4"), True)
    operation, operands = {
        ("forward", False): (raw.Conv2D, {"input": x, "filter": weight}),
        ("forward", True): (raw.DepthwiseConv2dNative, {"input": x, "filter": weight}),
        ("transpose", False): (
            raw.Conv2DBackpropInput,
            {"input_sizes": size, "filter": weight, "out_backprop": y},
        ),
        ("transpose", True): (
            raw.DepthwiseConv2dNativeBackpropInput,
            {"input_sizes": size, "filter": weight, "out_backprop": y},
        ),
        ("kernel_gradient", False): (
            raw.Conv2DBackpropFilter,
            {"input": x, "filter_sizes": shape, "out_backprop": y},
        ),
        ("kernel_gradient", True): (
            raw.DepthwiseConv2dNativeBackpropFilter,
            {"input": x, "filter_sizes": shape, "out_backprop": y},
        ),
    }[problem.product, depthwise]
    back = (0, 1, 3, 2) if depthwise and problem.product == "kernel_gradient" else (0, 1, 2, 3)
    ways = _spelt(operation, operands, arguments, back)
    if depthwise:
        del ways["XLA"]  # up to 20 s a run
    return ways


def _padding(problem: Problem) -> dict[str, Any]:
    """Return the padding, by a word where there is one: not every kernel takes numbers."""
    g = problem.geometry
    same = ConvGeometry(g.input_size, g.kernel_size, strides=g.strides, padding="SAME")
    if g.padding == same.padding:
        return {"padding": "SAME"}
    if not any(map(any, g.padding)):
        return {"padding": "VALID"}
    flat = [amount for pair in ((0, 0), *g.padding, (0, 0)) for amount in pair]
    return {"padding": "EXPLICIT", "explicit_paddings": flat}


def _spelt(
    operation: Any,
    operands: dict[str, tuple[np.ndarray, bool]],
    arguments: dict[str, Any],
    back: tuple[int, ...],
) -> Spellings:
    """Return an operation called eagerly, and in graphs for which the weights are constants."""
    tensors = {name: tf.constant(array) for name, (array, _) in operands.items()}
    data = {name: tensors[name] for name, (_, known) in operands.items() if not known}
    known = {name: array for name, (array, fixed) in operands.items() if fixed}

    def graph(**data: tf.Tensor) -> tf.Tensor:
        weights = {name: tf.constant(array) for name, array in known.items()}
        return operation(**data, **weights, **arguments)

    function, compiled = tf.function(graph), tf.function(graph, jit_compile=True)
    runs = {
        "eager": lambda: operation(**tensors, **arguments),
        "tf.function": lambda: function(**data),
        "XLA": lambda: compiled(**data),
    }
    return {
        name: Spelling(run, lambda result: result.numpy().transpose(back))
        for name, run in runs.items()
    }


def resize(problem: Problem) -> Spellings:
    """Return what `tf.image.resize` calls."""
    size = (np.array(problem.geometry.input_size, "i4"), True)
    operands = {"images": (problem.y, False), "size": size}
    arguments = {"half_pixel_centers": True, "align_corners": False}
    return _spelt(tf.raw_ops.ResizeBilinear, operands, arguments, (0, 1, 2, 3))
