"""ONNX Runtime: a session of one Conv or ConvTranspose, or of a Resize, NCHW."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from problem import Problem

from peers import Cannot, Spelling, Spellings

_threads = 1


def set_threads(threads: int) -> None:
    """Let its sessions use so many threads."""
    global _threads
    _threads = threads


def nchw(array: np.ndarray) -> np.ndarray:
    """Return ``(n, h, w, c)`` in the layout of ONNX."""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def nhwc(array: np.ndarray) -> np.ndarray:
    """Return it in ours."""
    return array.transpose(0, 2, 3, 1)


def convolution(problem: Problem) -> onnx.ModelProto:
    """Return the model of one Conv or ConvTranspose from ``x`` to ``y``, its weight a constant."""
    g = problem.geometry
    if problem.product == "kernel_gradient":
        raise Cannot("no gradients")
    weight = np.ascontiguousarray(problem.kernel.transpose(3, 2, 0, 1))
    node = helper.make_node(
        "Conv" if problem.product == "forward" else "ConvTranspose",
        ["x", "w"],
        ["y"],
        strides=g.strides,
        pads=[low for low, _ in g.padding] + [high for _, high in g.padding],
        group=g.groups,
        kernel_shape=g.kernel_size,
    )
    return _model(problem, node, w=weight)


def _model(problem: Problem, node: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    def info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
        n, *spatial, channels = array.shape
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [n, channels, *spatial])

    source, result = problem.x, problem.y
    if problem.product == "transpose":
        source, result = result, source
    graph = helper.make_graph(
        [node],
        "case",
        [info("x", source)],
        [info("y", result)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    # An old operator set and version, which every reader takes.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def spellings(problem: Problem) -> Spellings:
    """Return the ways to run it."""
    return _ways(problem, convolution(problem))


def resize(problem: Problem) -> Spellings:
    """Return the Resize that interpolates."""
    size = problem.geometry.input_size
    node = helper.make_node(
        "Resize",
        ["x", "", "", "sizes"],
        ["y"],
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    sizes = np.array([len(problem.y), problem.y.shape[-1], *size])
    return _ways(problem, _model(problem, node, sizes=sizes))


def _ways(problem: Problem, model: onnx.ModelProto) -> Spellings:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    source, result = problem.x, problem.y
    if problem.product == "transpose":
        source, result = result, source
    x, y = nchw(source), np.empty_like(nchw(result))
    # Bound once to memory that stays: nothing is wrapped, allocated or copied by a run.
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    bound = onnxruntime.OrtValue.ortvalue_from_numpy(y)
    binding.bind_ortvalue_output("y", bound)

    def run_bound() -> onnxruntime.OrtValue:
        session.run_with_iobinding(binding)
        return bound

    return {
        "run": Spelling(lambda: session.run(None, {"x": x}), lambda found: nhwc(found[0])),
        "bound": Spelling(run_bound, lambda found: nhwc(found.numpy())),
    }
