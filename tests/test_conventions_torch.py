"""`convarith.conventions.torch` against torch itself: the same arrays, the same refusals."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convarith import ConvGeometry, conv, conv_transpose
from convarith.conventions import Inexpressible
from convarith.conventions import torch as ours
from convarith.testing import geometries, small_integers

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

FLOATS = ("float32", "float64", "complex64", "complex128", "float16")
DTYPES = {False: (*FLOATS, "int64", "int32", "uint8"), True: (*FLOATS, "int64")}
#: What is drawn wrong in some calls; most are then refused by both.
MISTAKES = (None,) * 24 + ("stride", "dilation", "padding", "channels", "bias", "dtype", "size")


@st.composite
def calls(draw, transposed):
    """Draw a function's name, the shapes and dtypes of its operands, and its arguments."""
    rank, mistake = draw(st.integers(1, 3)), draw(st.sampled_from(MISTAKES))

    def per_axis(name, low, high):
        """One number, a list of one, or one an axis."""
        values = st.integers(-1, 0) if mistake == name else st.integers(low, high)
        length = draw(st.sampled_from((None, rank, rank, 1)))
        return draw(
            values if length is None else st.lists(values, min_size=length, max_size=length)
        )

    groups = draw(st.integers(1, 3))
    arguments = {
        "stride": per_axis("stride", 1, 4),
        "padding": per_axis("padding", 0, 2),
        "dilation": per_axis("" if transposed else "dilation", 1, 3),  # its oneDNN takes 0 there
        "groups": groups,
    }
    if transposed:
        most = int(np.max(arguments["stride"]) > 1 or np.max(arguments["dilation"]) > 1)
        arguments["output_padding"] = per_axis("", 0, most)
    elif draw(st.integers(0, 2)) == 0:
        arguments["padding"] = draw(st.sampled_from(("same", "valid", "SAME")))
        if arguments["padding"] == "same" and draw(st.integers(0, 4)):
            arguments["stride"] = 1
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    size = [draw(st.integers(1, 8) if transposed else st.integers(5, 12)) for _ in range(rank)]
    if mistake == "size":
        size[draw(st.integers(0, rank - 1))] = draw(st.integers(0, 2))
    per_group, others = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    weight = [per_group * groups, others] if transposed else [others * groups, per_group]
    if mistake == "channels":
        weight[draw(st.integers(0, 1))] += 1
    batch = draw(st.sampled_from(((2,), (1,), (), (0,))))
    bias = draw(st.sampled_from((None, (others * groups + (mistake == "bias"),))))
    dtype = draw(st.sampled_from(DTYPES[transposed]))
    dtypes = [dtype] * 3
    if mistake == "dtype":
        # Not the bias alone: some of torch's kernels read one of any dtype.
        dtypes[1:] = [draw(st.sampled_from((*DTYPES[False], "bool")))] * 2
    name = f"conv_transpose{rank}d" if transposed else f"conv{rank}d"
    shapes = ((*batch, per_group * groups, *size), (*weight, *kernel), bias)
    return name, shapes, dtypes, arguments, draw(st.integers(0, 2**32 - 1))


def compare(torch, agree, call):
    name, shapes, dtypes, arguments, seed = call
    rng = np.random.default_rng(seed)
    arrays = [
        None if shape is None else small_integers(rng, shape, dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]

    def compute(arrays):
        tensors = [None if array is None else torch.from_numpy(array) for array in arrays]
        result = getattr(torch.nn.functional, name)(*tensors, **arguments).numpy()
        if 0 in result.shape:  # see test_empty_output_of_a_transposed_call
            raise RuntimeError("its other kernels refuse an empty output")
        return result

    def theirs():
        if 0 in shapes[0][:1]:  # torch checks little of an empty batch
            return compute([np.ones((1, *shapes[0][1:]), dtypes[0]), *arrays[1:]])[:0]
        return compute(arrays)

    agree(
        "torch",
        theirs,
        lambda: getattr(ours, name)(*arrays, **arguments),
        (RuntimeError, TypeError),
    )


@settings(max_examples=3 * settings().max_examples)
@given(calls(transposed=False))
def test_conv(torch, agree, call):
    compare(torch, agree, call)


@settings(max_examples=3 * settings().max_examples)
@given(calls(transposed=True))
def test_conv_transpose(torch, agree, call):
    compare(torch, agree, call)


def both(torch, name, *arrays, **arguments):
    """Return ours once it has been found equal to torch's."""
    result = getattr(ours, name)(*arrays, **arguments)
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    theirs = getattr(torch.nn.functional, name)(*tensors, **arguments).numpy()
    np.testing.assert_array_equal(result, theirs)
    assert result.dtype == theirs.dtype
    return result


def refused(torch, name, *arrays, **arguments):
    with pytest.raises((RuntimeError, TypeError)):
        getattr(torch.nn.functional, name)(*map(torch.from_numpy, arrays), **arguments)
    with pytest.raises((TypeError, ValueError)) as caught:
        getattr(ours, name)(*arrays, **arguments)
    return str(caught.value)


Y, K3 = np.array([[[1.0, 2.0, 3.0]]]), np.array([[[1.0, 10.0, 100.0]]])


def test_output_padding_computes_cells(torch):
    """It does not append zeros: it moves the high crop, and the cells get what the kernel gives."""
    plain = both(torch, "conv_transpose1d", Y, K3, stride=2, padding=1)
    more = both(torch, "conv_transpose1d", Y, K3, stride=2, padding=1, output_padding=1)
    assert plain.tolist() == [[[10, 102, 20, 203, 30]]]
    assert more.tolist() == [[[10, 102, 20, 203, 30, 300]]]
    # only where no window reaches are they zero
    beyond = both(torch, "conv_transpose1d", Y, K3, stride=2, output_padding=1)
    assert beyond[0, 0, -2:].tolist() == [300, 0]


def test_output_padding_between_stride_and_dilation(torch):
    """It passes below max(stride, dilation), where no convolution of that size gives it back."""
    result = both(torch, "conv_transpose1d", Y, K3, stride=1, dilation=3, output_padding=2)
    geometry = ours.geometry_of(3, 3, transposed=True, stride=1, dilation=3, output_padding=2)
    assert geometry.output_size == result.shape[2:] == (11,)
    assert geometry.crops == ((0, -2),)
    assert ours.arguments(geometry)["output_padding"] == (2,)
    message = refused(torch, "conv_transpose1d", Y, K3, stride=2, output_padding=2)
    assert message == "output_padding[0]: expected less than max(stride, dilation) = 2, got 2"


def test_padding_beyond_the_kernel(torch):
    both(torch, "conv1d", Y, K3, padding=5)
    assert both(torch, "conv_transpose1d", Y, K3, stride=4, padding=4).tolist() == [[[2, 20, 200]]]


def test_stride_beyond_the_kernel(torch):
    result = both(torch, "conv_transpose1d", Y, K3, stride=5)
    assert result[0, 0, 3:5].tolist() == [0, 0] and result.shape[2] == 13
    both(torch, "conv1d", np.arange(24.0).reshape(2, 1, 12), K3, stride=5)


def test_empty_outputs(torch):
    message = refused(torch, "conv1d", Y[..., :2], K3)
    assert message.startswith("input: expected a size with an output, got (2,)")
    refused(torch, "conv1d", Y[..., :0], K3, padding=2)
    refused(torch, "conv_transpose1d", Y[..., :1], K3, padding=2)  # less than nothing


def test_empty_output_of_a_transposed_call(torch):
    """torch's own kernels refuse it, its oneDNN ones do not; we refuse it in every dtype."""
    y, kernel = np.ones((1, 1, 1, 1)), np.ones((1, 1, 2, 2))
    refused(torch, "conv_transpose2d", y, kernel, padding=1)
    with pytest.raises(ValueError, match="input: expected a size with an output"):
        ours.conv_transpose2d(y.astype("float32"), kernel.astype("float32"), padding=1)


def test_without_a_batch(torch):
    for name in ("conv1d", "conv_transpose1d"):
        alone = both(torch, name, Y[0], K3, stride=2)
        np.testing.assert_array_equal(alone, both(torch, name, Y, K3, stride=2)[0])


def test_complex_numbers_are_not_conjugated(torch):
    for name in ("conv1d", "conv_transpose1d"):
        result = both(torch, name, Y * 1j, K3 * 1j)
        np.testing.assert_array_equal(result, -both(torch, name, Y, K3))


def test_same_pads_the_odd_one_high(torch):
    kernel = np.array([[[1.0, 10.0]]])
    assert both(torch, "conv1d", Y, kernel, padding="same").tolist() == [[[21, 32, 3]]]
    assert "strides of 1" in refused(torch, "conv1d", Y, kernel, padding="same", stride=2)


@given(geometries(max_size=8), st.booleans(), st.integers(0, 2**32 - 1))
def test_arguments_are_those_of_torch(torch, geometry, transposed, seed):
    """torch itself takes them, and gives what the geometry's map gives."""
    try:
        arguments = ours.arguments(geometry, transposed=transposed)
    except Inexpressible as error:
        assume(error.arguments is not None)
        geometry = ConvGeometry(4, 3, strides=2, padding=2)
        arguments = ours.arguments(geometry, transposed=transposed)
    rng = np.random.default_rng(seed)
    kernel = small_integers(rng, geometry.kernel_shape, "float64")
    shape = geometry.output_shape if transposed else geometry.input_shape
    x = small_integers(rng, (1, *shape), "float64")
    options = {name: getattr(geometry, name) for name in ("strides", "dilations", "groups")}
    if transposed:
        size = geometry.input_size
        expected = conv_transpose(x, kernel, padding=geometry.padding, output_size=size, **options)
    else:
        expected = conv(x, kernel, padding=geometry.padding, **options)
    name = ours.spelling(geometry.rank, transposed=transposed).function
    operands = (np.moveaxis(x, -1, 1), np.moveaxis(kernel, (-1, -2), (0, 1)))
    tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in operands)
    theirs = getattr(torch.nn.functional, name)(*tensors, **arguments).numpy()
    np.testing.assert_array_equal(np.moveaxis(theirs, 1, -1), expected)


def test_a_bias_of_another_dtype_and_longdouble_are_refused():
    with pytest.raises(TypeError, match="bias: expected the dtype of input, float64, got float32"):
        ours.conv_transpose1d(Y, K3, np.ones(1, "float32"))
    with pytest.raises(TypeError, match="input: expected one of float16, "):
        ours.conv1d(Y.astype("longdouble"), K3.astype("longdouble"))
    swapped = Y.astype(Y.dtype.newbyteorder())
    np.testing.assert_array_equal(ours.conv1d(swapped, K3), ours.conv1d(Y, K3))


def test_arguments_name_the_pad_or_crop():
    geometry = ConvGeometry((8, 9), 3, strides=2, padding="SAME")
    with pytest.raises(Inexpressible) as caught:
        ours.arguments(geometry)
    assert caught.value.pad == ((0, 1), (1, 1)) and caught.value.crop is None
    with pytest.raises(Inexpressible) as caught:
        ours.arguments(geometry, transposed=True)
    assert caught.value.crop == ((0, 1), (1, 1)) and caught.value.pad is None
    assert caught.value.arguments["stride"] == (2, 2)
    assert ours.arguments(ConvGeometry((9, 9), 3, strides=2, padding="SAME"))["padding"] == (1, 1)
    with pytest.raises(Inexpressible, match="input") as caught:
        ours.arguments(ConvGeometry(2, 3))
    assert caught.value.arguments is None
