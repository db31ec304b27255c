"""`convarith.conventions.keras` against Keras on TensorFlow: the same arrays, the same refusals."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import convarith
from convarith import ConvGeometry
from convarith.conventions import Inexpressible
from convarith.conventions import keras as ours
from convarith.conventions.layout import moved
from convarith.testing import small_integers

# Of strides of 0 with dilations, which are then refused.
pytestmark = pytest.mark.filterwarnings("ignore:When dilation rate is greater than 1")

LAYOUTS = {None: "n*c", "channels_last": "n*c", "channels_first": "nc*", "Channels_First": "nc*"}
#: What is drawn wrong in some calls, and is then refused by both.
MISTAKES = (None,) * 24 + tuple(
    "strides dilation_rate padding output_padding data_format channels dtype axes size".split()
)


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """Keras as it is without a configuration of the user's."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    import keras

    return keras


@st.composite
def calls(draw, name):
    """Draw a function's operands as shapes and dtypes, and its arguments."""
    transposed, depthwise = name == "conv_transpose", name == "depthwise_conv"
    rank, mistake = draw(st.integers(1, 2 if depthwise else 3)), draw(st.sampled_from(MISTAKES))

    def per_axis(low, high, *, wrong):
        """One number, or one an axis; Keras takes no list in depthwise_conv."""
        values = st.integers(0, 0) if wrong else st.integers(low, high)
        if draw(st.booleans()):
            return draw(values)
        entries = draw(st.lists(values, min_size=rank, max_size=rank))
        return entries if draw(st.booleans()) and not depthwise else tuple(entries)

    arguments = {
        "strides": per_axis(1, 4, wrong=mistake == "strides"),
        "dilation_rate": 1,
        "padding": draw(st.sampled_from(("valid", "same", "same", "Valid", "SAME"))),
        "data_format": draw(st.sampled_from(tuple(LAYOUTS))),
    }
    if mistake == "dilation_rate" or draw(st.integers(0, 2)) == 0:
        arguments["dilation_rate"] = per_axis(1, 3, wrong=mistake == "dilation_rate")
        if name == "conv" and draw(st.integers(0, 5)):
            arguments["strides"] = 1
    if mistake == "padding":
        arguments["padding"] = draw(st.sampled_from(("causal", "same_lower", "", None, 1)))
    if mistake == "data_format":
        arguments["data_format"] = draw(st.sampled_from(("NHWC", "", 1)))
    if depthwise and draw(st.integers(0, 3)):
        arguments["strides"] = draw(st.integers(0 if mistake == "strides" else 1, 4))
    steps, spreads = (
        (value,) * rank if isinstance(value, int) else tuple(value)
        for value in (arguments["strides"], arguments["dilation_rate"])
    )
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, spreads, strict=True)]
    size = [draw(st.integers(1 if transposed else 3, 4 if transposed else 9)) for _ in range(rank)]
    if mistake == "size":
        size[draw(st.integers(0, rank - 1))] = draw(st.integers(0, 1))
        if depthwise and max(steps) > 1 and max(spreads) > 1:
            size = [max(1, i) for i in size]  # Keras pads an empty axis by less than the kernel
    dtypes = ["float32", "float64", "float16"]
    if rank < 3 and not depthwise:
        dtypes.append("int32")
    if name == "conv" and rank == 3 and max(steps) > 1:
        dtypes.remove("float32")  # wrong as below, with several planes for the several inputs
    if transposed and max(spreads) > 1 and (mistake == "size" or draw(st.integers(0, 9))):
        # The others by XLA alone (see `by_xla`), which is slow, and wrong for empty inputs.
        dtypes = ["float32"]
    if transposed and mistake in ("strides", "dilation_rate", "output_padding", "axes"):
        # oneDNN, in float32, lets some of each pass, and ends the process for sizes below 0.
        dtypes = ["float64"]
    if transposed and mistake != "size" and draw(st.booleans()):
        same = str(arguments["padding"]).lower() == "same"
        arguments["output_padding"] = extra = []
        for ke, s in zip(spans, steps, strict=True):
            first = 1 - ke % 2 if same else 0
            values = st.integers(first, first + max(s, 1) - 1)
            if mistake == "output_padding":
                values = st.integers(0, 6)
            extra.append(draw(st.none() | values if draw(st.booleans()) else values))
        if draw(st.booleans()):
            arguments["output_padding"] = extra[0] if rank == 1 else tuple(extra)
    dtypes = [draw(st.sampled_from(dtypes))] * 2
    if mistake == "dtype":
        some = st.sampled_from(("float32", "float64", "int32", "int64", "uint8", "complex64"))
        dtypes = [draw(some), draw(some)]
    # Keras compiles every grouped call anew, by XLA, which refuses dilations of empty inputs.
    grouped = name == "conv" and mistake != "size" and draw(st.integers(0, 19)) == 0
    groups = draw(st.integers(2, 3)) if grouped else 1
    per_group, others = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    channels = [others, per_group] if transposed else [per_group, others * groups]
    c_in = per_group * groups
    if mistake == "channels":
        c_in += 1
    batch = draw(st.integers(1 if grouped else 0, 2))
    if not transposed and dtypes[0] == "float32":
        # oneDNN gives something of the input's shape where input or output are empty, and wrong
        # values where strides leave one column of several inputs.
        batch, size = 1, list(map(max, size, spans))
    kernel += channels
    if mistake == "axes":
        kernel.insert(0, 1)
    source = moved_shape((batch, *size, c_in), LAYOUTS.get(arguments["data_format"], "n*c"))
    return name, (source, tuple(kernel)), dtypes, arguments, draw(st.integers(0, 2**32 - 1))


def moved_shape(shape, layout):
    """Return the shape in a layout of an array ``(n, *spatial, c)`` of `shape`."""
    return moved(np.empty(shape), "n*c", layout).shape


def by_xla(name, x, kernel, strides, dilation_rate, padding, **_):
    """Whether TensorFlow computes a call right only by XLA; `x` is channels last.

    Its CPU kernels refuse depthwise strides that differ, and dilated transposes other than in
    float32. Those of Conv3D, but for float32, take a negative padding for "same" where the last
    window ends before the input does, so that they begin past its first entry; in two dimensions
    they begin at it. See test_stride_above_the_kernel.
    """
    rank, size = x.ndim - 2, x.shape[1:-1]
    steps, spreads = (np.broadcast_to(value, rank) for value in (strides, dilation_rate))
    if name == "depthwise_conv":
        return len(set(steps)) > 1 and max(spreads) == 1
    if name == "conv_transpose":
        return max(spreads) > 1 and x.dtype != "float32"
    if rank < 3 or x.dtype == "float32" or str(padding).lower() != "same" or 0 in steps:
        return False
    axes = zip(size, kernel.shape, steps, strict=False)
    return any((-(-i // s) - 1) * s + k < i - 1 for i, k, s in axes)


def computed(keras, name, x, kernel, arguments):
    """Return what Keras makes of two arrays."""
    import tensorflow as tf

    call = getattr(keras.ops, name)
    layout = LAYOUTS.get(arguments.get("data_format"), "n*c")
    if layout == "nc*" and name != "depthwise_conv":
        # TensorFlow's CPU kernels lack most of it: see test_channels_first.
        last = computed(
            keras, name, moved(x, layout, "n*c"), kernel, arguments | {"data_format": None}
        )
        return moved(last, "n*c", layout)
    compiled = kernel.ndim == x.ndim and by_xla(name, moved(x, layout, "n*c"), kernel, **arguments)
    function = tf.function(call, jit_compile=True) if compiled else call
    result = function(tf.constant(x), tf.constant(kernel), **arguments).numpy()
    if name != "conv_transpose" and str(arguments["padding"]).lower() == "valid":
        if 0 in moved(result, layout, "n*c").shape[1:]:  # see test_empty_outputs
            raise ValueError("passes for some sizes below the kernel's")
    return result


def compare(keras, agree, call):
    import tensorflow as tf

    name, shapes, dtypes, arguments, seed = call
    rng = np.random.default_rng(seed)
    x, kernel = (
        small_integers(rng, shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)
    )
    agree(
        "keras",
        lambda: computed(keras, name, x, kernel, arguments),
        lambda: getattr(ours, name)(x, kernel, **arguments),
        (ValueError, TypeError, AttributeError, IndexError, tf.errors.OpError),
    )


@settings(max_examples=2 * settings().max_examples)
@given(calls("conv"))
def test_conv(keras, agree, call):
    compare(keras, agree, call)


@settings(max_examples=3 * settings().max_examples)
@given(calls("conv_transpose"))
def test_conv_transpose(keras, agree, call):
    compare(keras, agree, call)


@given(calls("depthwise_conv"))
def test_depthwise_conv(keras, agree, call):
    compare(keras, agree, call)


def operands(*shapes, dtype="float32"):
    """Return arrays no two of whose windows are alike."""
    return [
        small_integers(np.random.default_rng(i), shape, dtype) for i, shape in enumerate(shapes)
    ]


def both(keras, name, x, kernel, **arguments):
    """Return our result, once it is Keras's."""
    import tensorflow as tf

    theirs = getattr(keras.ops, name)(tf.constant(x), tf.constant(kernel), **arguments).numpy()
    result = getattr(ours, name)(x, kernel, **arguments)
    assert result.dtype == theirs.dtype
    np.testing.assert_array_equal(result, theirs)
    return result


def refused(keras, name, x, kernel, message, **arguments):
    """Check that both refuse, and what we say."""
    import tensorflow as tf

    with pytest.raises((ValueError, TypeError, tf.errors.OpError)):
        getattr(keras.ops, name)(tf.constant(x), tf.constant(kernel), **arguments)
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(ours, name)(x, kernel, **arguments)


SPANS = [(k, s, d) for k in range(1, 5) for s in range(1, 5) for d in (1, 2)]


@pytest.mark.parametrize("k, s, d", SPANS)
def test_same_with_output_padding(keras, k, s, d):
    """The span counts, not the length: odd ones take 0 to s - 1, even ones 1 to s."""
    x, kernel = operands((1, 4, 1), (k, 1, 1))
    ke = (k - 1) * d + 1
    full = ours.conv_transpose(x, kernel, strides=s, dilation_rate=d)[:, : 3 * s + ke]
    arguments = {"strides": s, "padding": "same", "dilation_rate": d}
    for extra in range(1 - ke % 2, 1 - ke % 2 + s):
        result = both(keras, "conv_transpose", x, kernel, output_padding=extra, **arguments)
        size, low = 3 * s + ke % 2 + extra, max(0, (ke - ke % 2 - extra) // 2)
        expected = np.zeros((1, size, 1), "float32")
        kept = full[:, low : low + size]
        expected[:, : kept.shape[1]] = kept
        np.testing.assert_array_equal(result, expected)
    for extra in (-(ke % 2), 1 - ke % 2 + s):
        refused(
            keras,
            "conv_transpose",
            x,
            kernel,
            r"output_padding\[0\]: expected",
            output_padding=extra,
            **arguments,
        )


@pytest.mark.parametrize("k, s, d", SPANS)
def test_default_sizes(keras, k, s, d):
    x, kernel = operands((2, 4, 3), (k, 2, 3))
    arguments = {"strides": s, "dilation_rate": d}
    ke = (k - 1) * d + 1
    valid = both(keras, "conv_transpose", x, kernel, padding="valid", **arguments)
    same = both(keras, "conv_transpose", x, kernel, padding="same", **arguments)
    assert (valid.shape[1], same.shape[1]) == (4 * s + max(ke - s, 0), 4 * s)
    low = max(0, ke - s) // 2
    np.testing.assert_array_equal(same, valid[:, low : low + 4 * s])


def test_same_is_no_slice_of_a_larger_same(keras):
    """The low crop follows the size: 1 of 9 entries, 0 of 10."""
    x, kernel = operands((1, 5, 1), (3, 1, 1))
    nine, ten = (
        both(
            keras, "conv_transpose", x, kernel, strides=2, padding="same", output_padding=extra
        ).ravel()
        for extra in (0, 1)
    )
    assert (len(nine), len(ten)) == (9, 10)
    assert not np.array_equal(nine, ten[:9])
    np.testing.assert_array_equal(nine, np.append(ten[1:], 0)[:9])


def test_output_padding_an_axis(keras):
    x, kernel = operands((1, 3, 4, 2), (3, 2, 2, 2))
    for padding, extra, size in (
        ("valid", (1, None), (8, 8)),
        ("same", (None, 1), (6, 7)),
        ("same", [0, 2], (5, 8)),
    ):
        result = both(
            keras, "conv_transpose", x, kernel, strides=2, padding=padding, output_padding=extra
        )
        assert result.shape == (1, *size, 2)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_stride_above_the_kernel(keras, rank, padding):
    """Windows begin at the first entry; float64's Conv3D on the CPU does not (TensorFlow 2.21)."""
    x, kernel = operands((1, *(5, 6, 7)[:rank], 1), (*(1, 2, 1)[:rank], 1, 1))
    result = both(keras, "conv", x, kernel, strides=5, padding=padding)
    window = x[(0, *map(slice, kernel.shape[:rank]))]
    assert result.ravel()[0] == np.sum(window * kernel[..., 0])
    both(keras, "conv_transpose", x, kernel, strides=5, padding=padding)


def test_empty_outputs(keras):
    """None from inputs smaller than the kernel, though Keras lets some pass; see the docstring."""
    x, kernel = operands((2, 2, 3), (3, 3, 3), dtype="float64")
    refused(keras, "conv", x, kernel, "inputs: expected a size of", strides=2)
    with pytest.raises(ValueError, match="inputs: expected a size of"):
        ours.depthwise_conv(x, kernel, strides=2)
    for name in ("conv", "depthwise_conv"):
        assert both(keras, name, x[:, :0], kernel, padding="same").shape[:2] == (2, 0)
    for s in (1, 2, 3, 4):
        for padding, size in (("valid", max(0, 3 - s)), ("same", 0)):
            result = both(keras, "conv_transpose", x[:, :0], kernel, strides=s, padding=padding)
            assert result.shape == (2, size, 3)


def test_strides_with_dilations(keras):
    x, kernel = operands((1, 9, 9, 2), (3, 3, 2, 2))
    arguments = {"strides": (2, 1), "dilation_rate": (1, 2)}
    refused(keras, "conv", x, kernel, "dilation_rate: expected 1", **arguments)
    for name in ("conv_transpose", "depthwise_conv"):
        for padding in ("valid", "same"):
            both(keras, name, x, kernel, padding=padding, **arguments)
    with pytest.raises(Inexpressible, match="dilation_rate: expected 1"):
        ours.arguments(ConvGeometry(9, 3, strides=2, dilations=2))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", ["conv", "conv_transpose", "depthwise_conv"])
def test_channels_first(keras, name, rank):
    """In float32 TensorFlow has it on the CPU; what it gives is channels last, moved."""
    x, kernel = operands((2, 3, *(5, 6, 7)[:rank]), (*(3, 2, 2)[:rank], 3, 3))
    if name == "depthwise_conv" and rank == 3:
        refused(keras, name, x, kernel, "inputs: expected 1 to 2", data_format="channels_first")
        return
    for padding in ("valid", "same"):
        arguments = {"strides": 2, "padding": padding}
        first = both(keras, name, x, kernel, data_format="channels_first", **arguments)
        last = both(keras, name, moved(x, "nc*", "n*c"), kernel, **arguments)
        np.testing.assert_array_equal(first, moved(last, "n*c", "nc*"))


def test_dtypes(keras):
    """Half types are kept, integers are int32 and along one or two axes only."""
    names = "conv", "conv_transpose", "depthwise_conv"
    x, kernel = operands((1, 6, 6, 1), (2, 2, 1, 1))
    for name in names:
        # Sums of four products of at most 16, which bfloat16 holds exactly.
        both(keras, name, *(array.astype("bfloat16") for array in (x, kernel)))
        for dtype in ("int64", "uint8", "complex64", "bool"):
            a, b = x.astype(dtype), kernel.astype(dtype)
            refused(keras, name, a, b, "inputs: expected (one of|integers)")
        refused(keras, name, x, kernel.astype("float64"), "kernel: expected the dtype of inputs, ")
    a, b = x.astype("int32"), kernel.astype("int32")
    for name in names[:2]:
        both(keras, name, a, b)
        refused(keras, name, a[None], b[None], "inputs: expected one of")
    refused(keras, names[2], a, b, "inputs: expected one of")


def test_arguments_are_keras_own(keras):
    """They go to Keras as they are, and give our own transpose of every size it has."""
    x, kernel = operands((1, 4, 2), (4, 3, 2))
    expressed = 0
    for s in (1, 2, 3, 5):
        for padding in ("VALID", "SAME", 1):
            for size in ConvGeometry.input_sizes(4, 4, strides=s, padding=padding)[0]:
                expected = convarith.conv_transpose(
                    x, kernel, strides=s, padding=padding, output_size=size
                )
                geometry = ConvGeometry(
                    size, 4, strides=s, padding=padding, in_channels=3, out_channels=2
                )
                try:
                    arguments = ours.arguments(geometry, transposed=True)
                except Inexpressible as error:
                    assert padding == 1 and error.arguments is not None
                    continue
                result = both(keras, "conv_transpose", x, kernel, **arguments)
                np.testing.assert_array_equal(result, expected)
                expressed += 1
    assert expressed > 20
