"""`convarith.conventions.onnx` against ONNX Runtime and the standard's reference evaluator."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convarith import ConvGeometry
from convarith.conventions import Inexpressible
from convarith.conventions import onnx as ours
from convarith.testing import geometries, small_integers

#: Of these ONNX Runtime has kernels on the CPU; the evaluator has all types.
RUNTIME_DTYPES = ("float32", "float16")
DTYPES = ("float32", "float32", "float32", "float16", "float64", ml_dtypes.bfloat16)
#: What is drawn wrong in some calls; most are then refused by both.
MISTAKES = (
    *(None,) * 40,
    *("strides", "dilations", "pads", "output_padding", "output_shape", "kernel_shape"),
    *("length", "integer", "auto_pad", "group", "channels", "bias", "dtype", "rank"),
)
#: After these the attributes' numbers stand for nothing.
UNREADABLE = ("strides", "dilations", "length", "integer", "rank")


def model(op, arrays, attributes):
    """Return a model of one node, and what it is fed."""
    from onnx import helper

    def declared(name, array, shape):
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor_value_info(name, dtype, shape)

    feeds = {n: array for n, array in zip("XWB", arrays, strict=False) if array is not None}
    graph = helper.make_graph(
        [helper.make_node(op, list(feeds), ["Y"], **attributes)],
        "one",
        [declared(name, array, array.shape) for name, array in feeds.items()],
        [declared("Y", arrays[0], None)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    return made, feeds


def runtime(op, *arrays, **attributes):
    """Return what ONNX Runtime gives; it refuses by RuntimeError."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    made, feeds = model(op, arrays, attributes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, feeds)[0]
    # They have no base of their own. Not among them: NotImplemented, a dtype without a kernel.
    except (state.Fail, state.InvalidArgument, state.InvalidGraph) as error:
        raise RuntimeError(str(error)) from None


def evaluator(op, *arrays, **attributes):
    """Return what the standard's reference evaluator gives."""
    from onnx.reference import ReferenceEvaluator

    made, feeds = model(op, arrays, attributes)
    return ReferenceEvaluator(made).run(None, feeds)[0]


def our(op, *arrays, **attributes):
    return (ours.conv if op == "Conv" else ours.conv_transpose)(*arrays, **attributes)


@st.composite
def nodes(draw, op):
    """Draw the shapes and dtypes of a node's operands, its attributes, and a mistake or None."""
    rank, mistake = draw(st.integers(1, 3)), draw(st.sampled_from(MISTAKES))
    transposed = op == "ConvTranspose"

    def listed(name, low, high, length=rank):
        values = st.integers(-1, 0) if mistake == name else st.integers(low, high)
        return [draw(values) for _ in range(length)]

    kernel = listed("", 1, 3)
    size = listed("", 1 if transposed else 2, 8)  # ONNX Runtime crashes on some that are 0
    strides, group = listed("strides", 1, 4), draw(st.integers(1, 3))
    attributes = {
        "strides": strides,
        "dilations": listed("dilations", 1, 3),
        "kernel_shape": [k + (mistake == "kernel_shape") for k in kernel],
        "group": 0 if mistake == "group" else group,
        "auto_pad": draw(st.sampled_from(("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))),
    }
    for name in ("strides", "dilations", "kernel_shape", "auto_pad"):
        if mistake is None and draw(st.integers(0, 3)) == 0:
            del attributes[name]
    if attributes.get("auto_pad", "NOTSET") == "NOTSET" or mistake == "pads":
        if draw(st.integers(0, 3)):
            attributes["pads"] = listed("pads", 0, 2, 2 * rank)
    if transposed:
        if draw(st.booleans()):
            beyond = 2 * (mistake == "output_padding")
            steps = attributes.get("strides", [1] * rank)
            attributes["output_padding"] = [
                draw(st.integers(0, max(s, 1) - 1)) + draw(st.integers(0, beyond)) for s in steps
            ]
        if draw(st.integers(0, 2)) == 0:
            attributes["output_shape"] = listed("output_shape", 0, 14)
    if mistake == "auto_pad":
        attributes["auto_pad"] = "same_upper"
    if mistake in ("length", "integer"):
        name = draw(st.sampled_from(sorted(set(attributes) - {"group", "auto_pad"})))
        value = attributes[name]
        attributes[name] = value[0] if mistake == "integer" else [*value, value[0]]
    per_group, others = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    weight = [per_group * group, others] if transposed else [others * group, per_group]
    if mistake == "channels":
        weight[draw(st.integers(0, 1))] += 1
    bias = draw(st.sampled_from((None, (others * group + (mistake == "bias"),))))
    shapes = (
        (draw(st.integers(0, 2)), per_group * group, *size),
        (*weight, *kernel, *(1,) * (mistake == "rank")),
        bias,
    )
    dtypes = [draw(st.sampled_from(DTYPES if mistake is None else RUNTIME_DTYPES))] * 3
    if mistake == "dtype":
        wrong = draw(st.sampled_from(("int32", "int64", "uint8", "complex64", "bool")))
        for operand in draw(st.sampled_from(((0, 1, 2), (1, 2), (0,)))):
            dtypes[operand] = wrong if operand == 0 else draw(st.sampled_from((wrong, "float64")))
    return shapes, dtypes, attributes, mistake, draw(st.integers(0, 2**32 - 1))


def departs(op, shapes, attributes):
    """Whether ONNX Runtime reads a node otherwise than the standard: each has a test below."""
    (_, _, *size), (_, _, *kernel), _ = shapes
    ones = [1] * len(size)
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    pads = attributes.get("pads", [0, 0] * len(size))
    extra = attributes.get("output_padding", [0] * len(size))
    same = attributes.get("auto_pad", "NOTSET").startswith("SAME")
    for axis, (i, k, s, d) in enumerate(zip(size, kernel, strides, dilations, strict=True)):
        span, padded = (k - 1) * d + 1, pads[axis] + pads[axis + len(size)]
        if op == "Conv":
            total = (-(-i // s) - 1) * s + span - i
            if same and (d > 1 or i == 0 or total < 0) or not same and i + padded < span:
                return True
        else:
            full = s * (i - 1) + span + extra[axis]
            wanted = i * s if same else full - padded
            if "output_shape" in attributes:
                wanted = attributes["output_shape"][axis]
            if wanted <= 0 or wanted > full:  # padded is 0 or more
                return True
    return False


def compare(agree, op, node):
    shapes, dtypes, attributes, mistake, seed = node
    rng = np.random.default_rng(seed)
    arrays = [None if shape is None else small_integers(rng, shape, "int8") for shape in shapes]
    if ml_dtypes.bfloat16 in dtypes:  # the evaluator sums in it, exactly up to 256
        arrays = [None if array is None else np.sign(array) for array in arrays]
    arrays = [
        None if array is None else array.astype(dtype)
        for array, dtype in zip(arrays, dtypes, strict=True)
    ]
    theirs, said = runtime, attributes
    if mistake is None and (departs(op, shapes, attributes) or dtypes[0] not in RUNTIME_DTYPES):
        theirs = evaluator
        if op == "ConvTranspose":
            # It fails on empty arrays, and takes other channels than a group's own, and the
            # first one's bias, where groups have more than one channel or a bias.
            single = (attributes["group"], 1) == shapes[1][:2] and shapes[2] is None
            assume(0 not in shapes[0] and (attributes["group"] == 1 or single))
            # An output_shape alone it crops by pads of 0; the standard's equations send it, as
            # all that is not SAME_UPPER, the way of SAME_LOWER.
            if "output_shape" in attributes and attributes.get("auto_pad") != "SAME_UPPER":
                said = {k: v for k, v in attributes.items() if k != "pads"}
                said["auto_pad"] = "SAME_LOWER"
    else:
        assume(mistake in UNREADABLE or not departs(op, shapes, attributes))
    agree(
        "onnx",
        lambda: theirs(op, *arrays, **said),
        lambda: our(op, *arrays, **attributes),
        (RuntimeError, ValueError) if theirs is evaluator else RuntimeError,
    )


@settings(max_examples=3 * settings().max_examples)
@given(nodes("Conv"))
def test_conv(agree, node):
    compare(agree, "Conv", node)


@settings(max_examples=3 * settings().max_examples)
@given(nodes("ConvTranspose"))
def test_conv_transpose(agree, node):
    compare(agree, "ConvTranspose", node)


@given(geometries(max_size=8), st.booleans(), st.integers(0, 2**32 - 1))
def test_arguments_suit_runtime(agree, geometry, transposed, seed):
    """It reads them as we do, whatever else it departs in."""
    try:
        attributes = ours.arguments(geometry, transposed=transposed)
    except Inexpressible:
        assume(False)
    op, (*size, channels) = "Conv", geometry.input_shape
    if transposed:
        op, (*size, channels) = "ConvTranspose", geometry.output_shape
    rng = np.random.default_rng(seed)
    x = small_integers(rng, (1, channels, *size), "float32")
    # Its layout is the same for both: what the convolution gives, and takes in a group.
    per_group = geometry.in_channels // geometry.groups
    kernel = (geometry.out_channels, per_group, *geometry.kernel_size)
    w = small_integers(rng, kernel, "float32")
    agree(
        "onnx",
        lambda: runtime(op, x, w, **attributes),
        lambda: our(op, x, w, **attributes),
        (),
    )


def ramp(*shape, dtype="float32"):
    return np.arange(1, 1 + math.prod(shape), dtype=dtype).reshape(shape)


X = ramp(1, 1, 3)


def equal(result, *expected):
    """Whether a result of one channel is these numbers."""
    np.testing.assert_array_equal(result, np.reshape(expected, (1, 1, -1)))


def refuse(call, *arrays, error=(RuntimeError, TypeError, ValueError), **attributes):
    with pytest.raises(error):
        call(*arrays, **attributes)


def test_an_output_shape_alone_crops_the_odd_cell_at_the_beginning():
    node = ("ConvTranspose", X, ramp(1, 1, 4))
    said = {"strides": [2], "output_shape": [7]}
    for auto_pad in ("NOTSET", "SAME_LOWER", "VALID"):
        for call in (our, runtime):
            equal(call(*node, **said, auto_pad=auto_pad), 2, 5, 8, 9, 14, 9, 12)
    for call in (our, runtime, evaluator):
        equal(call(*node, **said, auto_pad="SAME_UPPER"), 1, 2, 5, 8, 9, 14, 9)
    refuse(evaluator, *node, **said)  # departs: it takes pads of 0 there


def test_same_upper_and_lower_put_the_odd_cell_high_and_low():
    forward, transposed = ("Conv", ramp(1, 1, 6), ramp(1, 1, 3)), ("ConvTranspose", X, X)
    for call in (our, runtime, evaluator):
        equal(call(*forward, strides=[2], auto_pad="SAME_UPPER"), 14, 26, 17)
        equal(call(*forward, strides=[2], auto_pad="SAME_LOWER"), 8, 20, 32)
    equal(our(*forward, strides=[2], auto_pad=b"SAME_LOWER"), 8, 20, 32)  # as a model has it
    with pytest.raises(ValueError, match="^auto_pad: expected .* got 'SAM"):
        our(*forward, auto_pad=b"SAM\xff")
        equal(call(*transposed, strides=[2], auto_pad="SAME_UPPER"), 1, 2, 5, 4, 9, 6)
        equal(call(*transposed, strides=[2], auto_pad="SAME_LOWER"), 2, 5, 4, 9, 6, 9)


def test_runtime_takes_0_for_a_negative_total():
    """Where a transpose is to be longer than what its windows and output padding cover."""
    node, said = ("ConvTranspose", X, ramp(1, 1, 1)), {"strides": [3], "auto_pad": "SAME_UPPER"}
    equal(runtime(*node, **said), 1, 0, 0, 2, 0, 0, 3)
    for call in (our, evaluator):
        equal(call(*node, **said), 0, 1, 0, 0, 2, 0, 0, 3, 0)
    node = ("ConvTranspose", X, ramp(1, 1, 4))
    said = {"strides": [2], "auto_pad": "SAME_UPPER", "output_shape": [9]}
    equal(runtime(*node, **said), 1, 2, 5, 8, 9, 14, 9, 12, 0)
    for call in (our, evaluator):
        equal(call(*node, **said), 0, 1, 2, 5, 8, 9, 14, 9, 12)
    said["output_shape"] = [10]  # of 0 padding, no convolution gives 3 back
    refuse(runtime, *node, **said)
    for call in (our, evaluator):
        equal(call(*node, **said), 0, 1, 2, 5, 8, 9, 14, 9, 12, 0)


def test_runtime_crops_by_same_where_the_stride_leaves_cells_over():
    node, said = ("Conv", ramp(1, 1, 8), ramp(1, 1, 1)), {"strides": [4], "auto_pad": "SAME_UPPER"}
    equal(runtime(*node, **said), 2, 6)
    for call in (our, evaluator):
        equal(call(*node, **said), 1, 5)


def test_runtime_refuses_same_with_dilations():
    node = ("Conv", ramp(1, 1, 6), ramp(1, 1, 3))
    said = {"dilations": [2], "auto_pad": "SAME_LOWER"}
    refuse(runtime, *node, **said)
    for call in (our, evaluator):
        equal(call(*node, **said), 11, 16, 22, 28, 13, 16)
    equal(runtime(*node, dilations=[2], pads=[2, 2]), 11, 16, 22, 28, 13, 16)


def test_runtime_refuses_empty_outputs():
    """The standard's evaluator gives them; of a size that comes out negative none makes sense."""
    for op, size, said in (
        ("Conv", 2, {}),
        ("Conv", 1, {"strides": [2]}),
        ("Conv", 0, {"auto_pad": "SAME_UPPER"}),
        ("ConvTranspose", 3, {"strides": [2], "pads": [3, 4]}),
        ("ConvTranspose", 3, {"strides": [2], "auto_pad": "SAME_LOWER", "output_shape": [0]}),
    ):
        node = (op, np.ones((2, 1, size), "float32"), X)
        refuse(runtime, *node, **said)
        assert our(*node, **said).shape == evaluator(*node, **said).shape == (2, 1, 0)
    for op, size, said in (("Conv", 1, {}), ("ConvTranspose", 3, {"pads": [3, 3]})):
        for call in (our, runtime, evaluator):
            refuse(call, op, np.ones((2, 1, size), "float32"), X, **said)


def test_the_transpose_of_an_empty_input_is_the_bias():
    """ONNX Runtime crashes on some such calls of three axes; the evaluator has none."""
    from onnx.shape_inference import infer_shapes

    empty, bias = np.ones((1, 1, 0, 2), "float32"), np.float32([7])
    for said in ({}, {"strides": [2, 1], "output_padding": [1, 0]}, {"output_shape": [5, 4]}):
        node = ("ConvTranspose", (empty, ramp(1, 1, 3, 3), bias), said)
        shape = infer_shapes(model(*node)[0]).graph.output[0].type.tensor_type.shape
        result = our(node[0], *node[1], **said)
        assert result.shape == tuple(axis.dim_value for axis in shape.dim)
        assert (result == 7).all()


def test_output_padding_computes_its_cells():
    said = {"strides": [2], "pads": [1, 1]}
    for call in (our, runtime, evaluator):
        equal(call("ConvTranspose", X, X, **said), 2, 5, 4, 9, 6)
        equal(call("ConvTranspose", X, X, **said, output_padding=[1]), 2, 5, 4, 9, 6, 9)


def test_output_padding_below_the_dilation_but_not_the_stride():
    """The standard's "less than the corresponding stride/dilation" both read as the stride."""
    for call in (our, runtime, evaluator):
        refuse(call, "ConvTranspose", X, X, dilations=[2], output_padding=[1])


def test_shape_inference_adds_output_padding_to_same():
    """It departs from the standard's ``i*s``, which both evaluators give."""
    from onnx.shape_inference import infer_shapes

    said = {"strides": [2], "auto_pad": "SAME_UPPER", "output_padding": [1]}
    made, _ = model("ConvTranspose", (X, X), said)
    inferred = infer_shapes(made).graph.output[0].type.tensor_type.shape
    assert inferred.dim[2].dim_value == 7
    for call in (our, runtime, evaluator):
        equal(call("ConvTranspose", X, X, **said), 2, 5, 4, 9, 6, 9)


def test_an_output_shape_overrides_pads_and_may_be_below_the_input():
    for call in (our, runtime):
        for wanted, expected in ((2, [8, 9]), (1, [9])):
            said = {"strides": [2], "pads": [0, 3], "output_shape": [wanted]}
            equal(call("ConvTranspose", X, ramp(1, 1, 4), **said), *expected)
        refuse(call, "ConvTranspose", X, X, output_shape=[1, 1, 5])  # spatial entries only


def test_a_stride_beyond_the_kernel_and_pads_beyond_it():
    for call in (our, runtime, evaluator):
        equal(call("ConvTranspose", X, ramp(1, 1, 2), strides=[3]), 1, 2, 0, 2, 4, 0, 3, 6)
        equal(call("ConvTranspose", X, X, pads=[3, 0]), 12, 9)
        equal(call("Conv", X, X, pads=[4, 3]), 0, 0, 3, 8, 14, 8, 3, 0)


def test_pads_beside_an_auto_pad():
    for op in ("Conv", "ConvTranspose"):
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            for call in (our, runtime):
                refuse(call, op, X, X, pads=[0, 0], auto_pad=auto_pad)
            assert evaluator(op, X, X, pads=[0, 0], auto_pad=auto_pad).size  # departs


def test_runtime_takes_zero_channels_and_an_empty_auto_pad():
    none = np.ones((1, 0, 3), "float32")
    equal(runtime("Conv", none, none), 0)
    equal(runtime("Conv", X, X, auto_pad=""), 14)
    refuse(our, "Conv", none, none, error=ValueError)
    refuse(our, "Conv", X, X, auto_pad="", error=ValueError)


def test_four_spatial_axes(agree):
    x, w = ramp(1, 2, 3, 3, 3, 3, dtype="float64") % 5, ramp(2, 2, 2, 2, 2, 2, dtype="float64") % 3
    for op in ("Conv", "ConvTranspose"):
        agree("onnx", lambda op=op: evaluator(op, x, w), lambda op=op: our(op, x, w), ())


def test_unknown_attributes():
    for call in (our, runtime):
        refuse(call, "Conv", X, X, output_padding=[0])
    with pytest.raises(TypeError, match="foo"):
        ours.conv_transpose(X, X, foo=[1])


def test_geometry_of_takes_the_kernel_from_either():
    said = {"in_channels": 4, "out_channels": 2, "group": 2}
    made = ours.geometry_of((5, 6), kernel_shape=[3, 2], **said)
    assert made == ours.geometry_of((5, 6), (3, 2), **said)
    for wrong in ({"kernel_shape": [3, 3]}, {"output_shape": [3, 4]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ours.geometry_of((5, 6), (3, 2), **said, **wrong)


def test_arguments_are_numbers():
    high = ConvGeometry(7, 3, strides=3, padding=[(1, -1)])  # as many windows as 0
    assert ours.arguments(high)["pads"] == [1, 0]
    longer = ConvGeometry.of_transpose(3, 3, strides=2, padding=1, output_size=6)
    said = ours.arguments(longer.adjoint)
    assert (said["pads"], said["output_padding"]) == ([1, 0], [0])
    longer = ConvGeometry.of_transpose(3, 3, strides=2, output_size=8)
    said = ours.arguments(longer, transposed=True)
    assert (said["pads"], said["output_padding"]) == ([0, 0], [1])
    equal(runtime("ConvTranspose", X, X, **said), 1, 2, 5, 4, 9, 6, 9, 0)
    with pytest.raises(Inexpressible) as caught:
        ours.arguments(ConvGeometry.of_transpose(3, 1, strides=3, padding=[(-1, -1)]).adjoint)
    assert caught.value.crop == ((-1, -1),)
    with pytest.raises(Inexpressible, match="empty"):
        ours.arguments(ConvGeometry.of_transpose(0, 3).adjoint)


@pytest.mark.filterwarnings("ignore")  # the collection computes other operators' overflows
def test_the_standards_own_cases():
    """Every node test that ONNX ships for the two operators."""
    from onnx import helper
    from onnx.backend.test.case.node import collect_testcases

    checked = {"Conv": 0, "ConvTranspose": 0}
    for case in collect_testcases(None):
        (node, *others) = case.model.graph.node
        if others or node.op_type not in checked:
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if "auto_pad" in attributes:
            attributes["auto_pad"] = attributes["auto_pad"].decode()
        for inputs, (expected,) in case.data_sets:
            result = our(node.op_type, *inputs, **attributes)
            assert result.shape == expected.shape and result.dtype == expected.dtype
            np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)
            checked[node.op_type] += 1
    assert checked["Conv"] >= 6 and checked["ConvTranspose"] >= 11
