"""The README's table *Which framework does what*: every cell is what the framework itself gives.

``python tests/test_which_framework.py`` writes the table anew; the test makes it and compares.
Each cell runs one call, by the framework and by `convarith.conventions`, on the same arrays: both
give the same array, or both refuse.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convarith.conventions import tensorflow as ours_tensorflow
from convarith.conventions import translate
from convarith.testing import small_integers

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- begin which-framework: written by tests/test_which_framework.py -->\n"
END = "<!-- end which-framework -->"
FRAMEWORKS = {
    "tensorflow": "`tf.nn`",
    "keras": "`keras.ops`",
    "torch": "torch",
    "jax": "`jax.lax`",
    "onnx": "ONNX",
}


def tensorflow(function, x, kernel, **arguments):
    import tensorflow as tf

    tensors = map(tf.constant, (x, kernel))  # of arrays it would cast the second
    return getattr(tf.nn, function)(*tensors, **arguments).numpy()


def keras(function, x, kernel, **arguments):
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    tensors = map(keras.ops.convert_to_tensor, (x, kernel))
    return getattr(keras.ops, function)(*tensors, **arguments).numpy()


def torch(function, x, kernel, **arguments):
    import torch

    tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in (x, kernel))
    return getattr(torch.nn.functional, function)(*tensors, **arguments).numpy()


def jax(function, x, kernel, **arguments):
    import jax

    with jax.enable_x64(True):
        return np.asarray(getattr(jax.lax, function)(x, kernel, **arguments))


def onnx(function, x, kernel, **attributes):
    """ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        onnx_model(function, x, kernel, attributes).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    return session.run(None, {"X": x, "W": kernel})[0]


def onnx_evaluator(function, x, kernel, **attributes):
    """The standard's own evaluator."""
    from onnx.reference import ReferenceEvaluator

    model = onnx_model(function, x, kernel, attributes)
    return ReferenceEvaluator(model).run(None, {"X": x, "W": kernel})[0]


def onnx_model(function, x, kernel, attributes):
    import onnx.helper as helper

    op = {"conv": "Conv", "conv_transpose": "ConvTranspose"}[function]
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)
        for name, array, shape in (("X", x, x.shape), ("W", kernel, kernel.shape), ("Y", x, None))
    ]
    node = helper.make_node(op, ["X", "W"], ["Y"], **attributes)
    return helper.make_model(
        helper.make_graph([node], "one", declared[:2], declared[2:]),
        opset_imports=[helper.make_opsetid("", 22)],
        ir_version=10,
    )


X = np.arange(1.0, 9, dtype="float32")  # eight entries
Y = np.arange(1.0, 6, dtype="float32")  # five

#: How arrays (h, 1) and kernels (k, 1) of one channel stand in each framework.
LAST = {"tensorflow": True, "keras": True, "torch": False, "jax": False, "onnx": False}


def run(framework, transposed, values, kernel, arguments, *, dtypes=("float32", "float32")):
    """Return what the framework's call gives along the first axis, or None where it refuses.

    Ours gives the same, or refuses too.
    """
    last = LAST[framework]
    x = np.asarray(values, dtypes[0]).reshape((1, -1, 1, 1) if last else (1, 1, -1, 1))
    k = np.asarray(kernel, dtypes[1]).reshape((-1, 1, 1, 1) if last else (1, 1, -1, 1))
    name = {
        "tensorflow": "conv2d_transpose" if transposed else "conv2d",
        "torch": "conv_transpose2d" if transposed else "conv2d",
        "jax": "conv_transpose" if transposed else "conv_general_dilated",
    }.get(framework, "conv_transpose" if transposed else "conv")
    return both(framework, name, x, k, arguments)


def both(framework, name, x, kernel, arguments):
    """Return what the framework gives, or None, and a mark where ONNX Runtime departs."""
    module = importlib.import_module(f"convarith.conventions.{framework}")
    theirs, mark = attempt(globals()[framework], name, x, kernel, arguments), ""
    try:
        ours = getattr(module, name)(x, kernel, **arguments)
    except (TypeError, ValueError):
        ours = None
    if framework == "onnx" and ours is not None and (theirs is None or theirs.shape != ours.shape):
        theirs, mark = attempt(onnx_evaluator, name, x, kernel, arguments), " †"
    if theirs is None or ours is None:
        assert theirs is ours, f"{framework} gives {theirs}, ours {ours}"
        return None, mark
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
    return theirs, mark


def attempt(run, name, x, kernel, arguments):
    """Return the result of a call, None where it is refused."""
    try:
        return run(name, x, kernel, **arguments)
    except Exception as error:  # each framework has its own kinds of them
        assert not isinstance(error, ImportError), error
        return None


def crops(y, kernel, stride, result):
    """Return the size and the crops with which the transpose of y is `result`."""
    kernel = np.asarray(kernel, "float32")
    full = np.zeros(stride * (len(y) - 1) + len(kernel), "float32")
    for i, value in enumerate(y):
        full[i * stride : i * stride + len(kernel)] += value * kernel
    extended = np.pad(full, 10)
    size = result.size
    (low,) = (
        low
        for low in range(-10, 10)
        if np.array_equal(extended[10 + low : 10 + low + size], result.ravel())
    )
    return f"{size} ({low}, {len(full) - low - size})"


def pads(x, kernel, stride, result):
    """Return the size and the least paddings with which the convolution of x is `result`."""
    for high in range(6):
        for low in range(6):
            padded = np.pad(x, (low, high))
            windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel))[::stride]
            if np.array_equal(windows @ np.asarray(kernel, "float32"), result.ravel()):
                return f"{result.size} ({low}, {high})"
    raise AssertionError(f"no padding makes {result.ravel()} of {x}")


K2, K3, K4 = [1, 10], [1, 10, 100], [1, 10, 100, 1000]
TWO = {"tensorflow": {"strides": (2, 1)}, "keras": {"strides": (2, 1)}, "torch": {"stride": (2, 1)}}
TWO |= {"jax": {"window_strides": (2, 1)}, "onnx": {"strides": [2, 1]}}


def up(framework, stride):
    """Return the arguments of a transposed call that the framework cannot do without."""
    if framework == "jax":
        numbers = ("NCHW", "OIHW", "NCHW")
        return {"strides": (stride, 1), "dimension_numbers": numbers, "transpose_kernel": True}
    name = {"torch": "stride"}.get(framework, "strides")
    return {name: [stride, 1] if framework == "onnx" else (stride, 1)}


def transposes(kernel, *, stride=2, **arguments):
    """Return a row of transposed calls on five entries: sizes and crops."""
    row = []
    for framework in FRAMEWORKS:
        if framework not in arguments:
            row.append("–")
            continue
        given = up(framework, stride) | arguments[framework]
        result, mark = run(framework, True, Y, kernel, given)
        row.append("refused" if result is None else crops(Y, kernel, stride, result) + mark)
    return row


def convolutions(kernel, **arguments):
    """Return a row of plain calls on eight entries with stride 2: sizes and paddings."""
    row = []
    for framework in FRAMEWORKS:
        if framework not in arguments:
            row.append("–")
            continue
        result, mark = run(framework, False, X, kernel, TWO[framework] | arguments[framework])
        row.append("refused" if result is None else pads(X, kernel, 2, result) + mark)
    return row


def output_shape(size):
    return {"output_shape": (1, size, 1, 1)}


def flip():
    """Whether the transposed call with its defaults reads the kernel back to front."""
    row = []
    for framework in FRAMEWORKS:
        given = up(framework, 1) | {"tensorflow": output_shape(3) | {"padding": "VALID"}}.get(
            framework, {}
        )
        if framework == "jax":
            del given["transpose_kernel"]
            given |= {"padding": "VALID", "dimension_numbers": ("NCHW", "IOHW", "NCHW")}
        result, _ = run(framework, True, [1], K3, given)
        row.append({(1, 10, 100): "no", (100, 10, 1): "yes"}[tuple(result.ravel().tolist())])
    return row


def asked(make, say):
    """Return a row of answers: ``make(framework)`` runs a call, ``say(result)`` tells of it."""
    row = []
    for framework in FRAMEWORKS:
        result, mark = make(framework)
        row.append(("refused" if result is None else str(say(result))) + mark)
    return row


def plain(framework):
    """Return the arguments that a plain call cannot do without."""
    return {
        "tensorflow": {"strides": 1, "padding": "VALID"},
        "jax": {"window_strides": (1, 1), "padding": "VALID"},
    }.get(framework, {})


def of_type(x, kernel, values=K3):
    """Return a plain call on operands of these types."""
    return lambda framework: run(framework, False, X, values, plain(framework), dtypes=(x, kernel))


def too_small(framework):
    # In float64, since TensorFlow with oneDNN gives two entries of nothing in float32.
    types = ("float32" if framework == "onnx" else "float64",) * 2
    return run(framework, False, [1, 2], K3, plain(framework), dtypes=types)


def dilated_and_strided(framework):
    names = {"keras": "dilation_rate", "torch": "dilation", "jax": "rhs_dilation"}
    dilations = {names.get(framework, "dilations"): [2, 1] if framework == "onnx" else (2, 1)}
    return run(framework, False, X, K3, plain(framework) | TWO[framework] | dilations)


def without_a_batch(framework):
    x = np.ones((4, 4, 1) if LAST[framework] else (1, 4, 4), "float32")
    kernel = np.ones((3, 3, 1, 1) if LAST[framework] else (1, 1, 3, 3), "float32")
    names = {"tensorflow": "conv2d", "torch": "conv2d", "jax": "conv_general_dilated"}
    if framework == "tensorflow":  # it may end the process
        code = (
            "import numpy as np, tensorflow as tf\n"
            "x, kernel = np.ones((4, 4, 1), 'f'), np.ones((3, 3, 1, 1), 'f')\n"
            "tf.nn.conv2d(x, kernel, 1, 'VALID')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True)
        with pytest.raises(ValueError, match="input"):
            ours_tensorflow.conv2d(x, kernel, 1, "VALID")
        assert done.returncode != 0  # below 0 with oneDNN
        return None, " †"
    return both(framework, names.get(framework, "conv"), x, kernel, plain(framework))


def sign(result):
    return {1j: "not conjugated", -1j: "conjugated"}[complex(result.ravel()[0])]


ROWS = {
    "convolution of 8, k 3, s 2, SAME": lambda: convolutions(
        K3,
        tensorflow={"padding": "SAME"},
        keras={"padding": "same"},
        torch={"padding": "same"},
        jax={"padding": "SAME"},
        onnx={"auto_pad": "SAME_UPPER"},
    ),
    "convolution of 8, k 3, s 2, SAME_LOWER": lambda: convolutions(
        K3, jax={"padding": "SAME_LOWER"}, onnx={"auto_pad": "SAME_LOWER"}
    ),
    "transpose of 5, k 3, s 2, SAME": lambda: transposes(
        K3,
        tensorflow=output_shape(10),
        keras={"padding": "same"},
        jax={"padding": "SAME"},
        onnx={"auto_pad": "SAME_UPPER"},
    ),
    "transpose of 5, k 3, s 2, SAME_LOWER": lambda: transposes(
        K3, jax={"padding": "SAME_LOWER"}, onnx={"auto_pad": "SAME_LOWER"}
    ),
    "SAME to 9, which is no slice of 10": lambda: transposes(
        K3,
        tensorflow=output_shape(9),
        keras={"padding": "same", "output_padding": (0, 0)},
        onnx={"auto_pad": "SAME_UPPER", "output_shape": [9, 1]},
    ),
    "to 10 by the output's size alone": lambda: transposes(
        K3, tensorflow=output_shape(10) | {"padding": "VALID"}, onnx={"output_shape": [10, 1]}
    ),
    "output padding 1 (torch, ONNX: pads 1)": lambda: transposes(
        K3,
        keras={"padding": "same", "output_padding": (1, 0)},
        torch={"padding": (1, 0), "output_padding": (1, 0)},
        onnx={"pads": [1, 0, 1, 0], "output_padding": [1, 0]},
    ),
    "k 4, s 2, pads 1 and 1": lambda: transposes(
        K4,
        tensorflow=output_shape(10) | {"padding": [[0, 0], [1, 1], [0, 0], [0, 0]]},
        torch={"padding": (1, 0)},
        jax={"padding": [(1, 1), (0, 0)]},
        onnx={"pads": [1, 0, 1, 0]},
    ),
    "pads beyond the kernel, k 3, s 2, 3 and 3": lambda: transposes(
        K3,
        tensorflow=output_shape(5) | {"padding": [[0, 0], [3, 3], [0, 0], [0, 0]]},
        torch={"padding": (3, 0)},
        jax={"padding": [(-1, -1), (0, 0)]},
        onnx={"pads": [3, 0, 3, 0]},
    ),
    "stride beyond the kernel, k 2, s 3, VALID": lambda: transposes(
        K2,
        stride=3,
        tensorflow=output_shape(15) | {"padding": "VALID"},
        keras={"padding": "valid"},
        torch={},
        jax={"padding": "VALID"},
        onnx={"auto_pad": "VALID"},
    ),
    "stride beyond the kernel, k 2, s 3, SAME": lambda: transposes(
        K2,
        stride=3,
        tensorflow=output_shape(15),
        keras={"padding": "same"},
        jax={"padding": "SAME"},
        onnx={"auto_pad": "SAME_UPPER"},
    ),
    "transpose flips the kernel": flip,
    "input smaller than the kernel": lambda: asked(too_small, lambda y: f"{y.size} entries"),
    "input without a batch": lambda: asked(without_a_batch, lambda y: "taken"),
    "strides and dilations at once": lambda: asked(dilated_and_strided, lambda y: "taken"),
    "float32 by float64": lambda: asked(of_type("float32", "float64"), lambda y: y.dtype),
    "int32": lambda: asked(of_type("int32", "int32"), lambda y: "exact"),
    "complex64": lambda: asked(of_type("complex64", "complex64", [1j]), sign),
}


def table():
    rows = [["trap", *FRAMEWORKS.values()], ["---"] * 6]
    rows += [[trap, *row()] for trap, row in ROWS.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_table(text):
    """Return the README with the table made anew."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n\n{END}{rest.partition(END)[2]}"


@pytest.mark.usefixtures("torch")
def test_the_table_says_what_the_frameworks_do():
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text


LAYERS = {
    "the last of TensorFlow's U-Net tutorial": (
        ("keras", "torch", True),
        {"kernel_size": (3, 3), "strides": 2, "padding": "same"},
        ((1, 8, 8, 16), (3, 3, 3, 16)),
    ),
    "a generator's in torch's DCGAN tutorial": (
        ("torch", "keras", True),
        {"kernel_size": (4, 4), "stride": 2, "padding": 1},
        ((1, 16, 4, 4), (16, 8, 4, 4)),
    ),
    "the first of torchvision's FCN head": (
        ("torch", "tensorflow", False),
        {"kernel_size": (3, 3), "padding": 1},
        ((1, 16, 6, 7), (4, 16, 3, 3)),
    ),
}


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("layer", LAYERS)
def test_a_real_layer_translated(layer):
    """Run where it comes from and where it goes, by the frameworks themselves."""
    (source, target, transposed), arguments, shapes = LAYERS[layer]
    rng = np.random.default_rng(0)
    x, kernel = (small_integers(rng, shape, "float32") for shape in shapes)
    translation = translate(source, target, transposed=transposed, **arguments)
    arguments = {name: value for name, value in arguments.items() if name != "kernel_size"}
    there = importlib.import_module(f"convarith.conventions.{source}")
    name = there.spelling(2, transposed=transposed).function
    expected = globals()[source](name, x, kernel, **arguments)
    result = globals()[target](
        translation.function,
        x.transpose(translation.array_axes),
        kernel.transpose(translation.kernel_axes),
        **translation.arguments,
    )
    back = result.transpose(np.argsort(translation.array_axes))
    if translation.crop is not None:
        keep = [slice(low, -high or None) for low, high in translation.crop]
        back = back[:, keep[0], keep[1]] if source == "keras" else back[:, :, keep[0], keep[1]]
    assert translation.pad is None
    np.testing.assert_array_equal(back, expected)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
