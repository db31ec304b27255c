"""`convarith.conventions.tensorflow` against `tf.nn`: the same arrays, the same refusals.

TensorFlow 2.21 on the CPU is an oracle in parts. In float64, float16, int32 its own kernels check
what the operations define, and are compared everywhere but for what they lack: channels first
(the call is compared with theirs channels last), dilations along three axes, dilated or grouped
transposes, groups along three axes, depthwise strides that differ. All but the groups along three
axes its float32 computes, by oneDNN, which however

- returns an array of the wrong shape, never written to, for a forward call with an empty output,
- is wrong forward where a strided last axis has one output and others (in 2-D, and the batch)
  have several: it reads what lies beyond the input,
- lets through transposes of a wrong size or batch, explicit padding of the batch, and
- ends the process where the input has an axis too few,

so in float32 only right calls are drawn, forward of two outputs or more along the last axis.
"""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convarith import ConvGeometry
from convarith.conventions import tensorflow as ours
from convarith.conventions.inexpressible import Inexpressible
from convarith.testing import geometries, small_integers

FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}
DTYPES = ("float64", "float16", "int32", "float32", "float32")
#: What is drawn wrong in some calls; most are then refused by both.
MISTAKES = (None,) * 30 + (
    *("strides", "dilations", "padding", "channels", "groups", "dtype", "size", "size"),
    *("rank", "data_format", "length", "batch", "depth"),
)


class Wrong(Exception):
    """TensorFlow only warns, and computes what is no convolution."""


@st.composite
def calls(draw, kind):
    """Draw a function's name, the shapes and dtypes of its operands, and its arguments."""
    transposed, depthwise = kind == "transpose", kind == "depthwise"
    rank = 2 if depthwise else draw(st.integers(1, 3))
    dtype = draw(st.sampled_from(DTYPES))
    if dtype == "int32" and (rank == 3 or depthwise):
        dtype = "float64"
    single = dtype == "float32"
    mistake = None if single else draw(st.sampled_from(MISTAKES))
    first = draw(st.booleans())
    every = depthwise or (rank == 3 and not transposed)

    def ends(spatial, n, c):
        return [n, c, *spatial] if first else [n, *spatial, c]

    def entries(name, high, *, alike=False, whole=False):
        """Numbers an axis, and a way to write them: one, a list of one, one an axis, all axes."""
        values = st.integers(-1, 0) if mistake == name else st.integers(1, high)
        values = [draw(values) for _ in range(rank)]
        length = rank + 2 if whole else draw(st.sampled_from((None, 1, rank, rank + 2)))
        if alike or length in (None, 1):
            values = values[:1] * rank
        written = ends(values, *draw(st.sampled_from(((1, 1),) * 9 + ((1, 2),))))
        if length != rank + 2 or single:
            written = values[:length]
        if single and whole:
            written = ends(values, 1, 1)
        if mistake == "length":
            written = [*values, 1]
        return values, written[0] if length is None and mistake != "length" else tuple(written)

    # The kernels that know dilations and groups: see above.
    dilated = single or not (transposed or rank == 3)
    grouped = dilated and rank < 3
    groups = draw(st.integers(1, 3)) if grouped else 1
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    padding = draw(st.sampled_from(("SAME", "VALID", "EXPLICIT")))
    if rank != 2 or (transposed and single):
        padding = draw(st.sampled_from(("SAME", "VALID")))
    # See test_conv3d_same_with_a_stride_above_the_kernel.
    fastest = min(kernel) if every and not depthwise and not single and padding == "SAME" else 4
    steps, strides = entries("strides", fastest, alike=depthwise and not single, whole=every)
    spreads, dilations = [1] * rank, None
    slow = depthwise and max(steps) > 1 and draw(st.integers(0, 9)) > 0
    if (dilated and not slow) or mistake in ("dilations", "length"):
        spreads, dilations = entries("dilations", 3, whole=every and not depthwise)
        if depthwise:
            dilations = spreads if mistake != "length" else 2
    if depthwise and mistake == "padding":  # dilated, it drops a padding of the batch unseen
        spreads, dilations = [1] * rank, None
    spans = [(k - 1) * max(d, 0) + 1 for k, d in zip(kernel, spreads, strict=True)]
    pads = [(0, 0)] * rank
    if padding == "EXPLICIT":
        amount = st.integers(0, 4)
        pads = [(draw(amount), draw(amount)) for _ in range(rank)]
        padding = ends(pads, (0, 0), (0, 0))
    if mistake == "padding":
        wrong = ["same", "EXPLICIT", "SAME_LOWER", 1, [[0, 0]] * 3, [(1, 0)] + [(0, 0)] * 3]
        wrong += [[(0, 0), (-1, 1), (0, 0), (0, 0)], ends([(1, 1)] * rank, (0, 0), (0, 0))]
        padding = draw(st.sampled_from(wrong))

    size = []
    for axis, span in enumerate(spans):
        smallest = 1 if transposed else span - sum(pads[axis])
        smallest = max(1, smallest) if padding != "SAME" else 1
        if single and not transposed and axis == rank - 1:
            smallest += steps[axis]
        if mistake == "size" and not (transposed and rank == 3):  # it would end the process
            smallest = 0
        size.append(draw(st.integers(smallest, smallest + 6)))
    per_group, others = draw(st.integers(1, 2)), draw(st.integers(1, 2)) * groups
    # Of an empty batch, TensorFlow does not check whether the groups divide what comes out.
    batch = draw(st.integers(single or mistake is not None, 2))
    extra = [2] if kind == "conv" and not single and draw(st.integers(0, 5)) == 0 else []
    given = others if transposed else per_group * groups
    arguments = {"stride" if kind == "conv" and rank == 1 else "strides": strides}
    arguments |= {"padding": padding, "dilations": dilations, "data_format": FORMATS[rank][first]}
    if depthwise:
        given = groups
        weight = [*kernel, groups, others // groups]
    else:
        weight = [*kernel, per_group, others]
    if transposed:
        out = []
        for i, span, s, pair in zip(size, spans, steps, pads, strict=True):
            least = (i - 1) * s + (1 if padding == "SAME" else span - sum(pair))
            wide = mistake == "size"
            out.append(max(0, draw(st.integers(least - wide, least + max(s, 1) - 1 + wide))))
        whole = ends(out, batch, per_group * groups)
        whole[0] += mistake == "batch"
        # Twice as many would be two groups, which no kernel but float32's knows.
        whole[1 if first else -1] += mistake == "depth" and per_group == 2
        short = rank == 2 and groups == 1 and draw(st.booleans())
        arguments["output_shape"] = out if short else whole
        if mistake == "length":
            arguments["output_shape"] = [*out, 1]
    if mistake == "channels" and (rank < 3 or per_group == 2):
        given += 1  # might make groups, of which the kernels of three axes know nothing
    if mistake == "groups":
        weight[-1] += 1
    if mistake == "data_format":
        right = () if first else (None, "NHWC")  # the latter for conv1d, too, but it alone
        arguments["data_format"] = draw(st.sampled_from(("NHCW", "ncw", "", *right)))
    shape = extra + ends(size, batch, given)
    if mistake == "rank":
        shape = shape[1:]
    dtypes = [dtype] * 2
    if mistake == "dtype":
        wrong = ("int64", "uint8", "int16", "complex64", "complex128", "bool")
        dtypes[draw(st.integers(0, 1)) :] = [draw(st.sampled_from(wrong))] * 2
    name = f"conv{rank}d" + "_transpose" * transposed if not depthwise else "depthwise_conv2d"
    return name, (shape, weight), dtypes[:2], arguments, draw(st.integers(0, 2**32 - 1))


def channels_last(rank, arguments):
    """Rewrite the arguments of a channels-first call, which no kernel for the CPU takes."""
    moved = {"data_format": FORMATS[rank][0]}
    for name, value in arguments.items():
        if isinstance(value, (list, tuple)) and len(value) == rank + 2:
            n, c, *spatial = value
            value = [n, *spatial, c]
        moved.setdefault(name, value)
    return moved


def compare(agree, name, x, kernel, arguments):
    import tensorflow as tf

    rank = kernel.ndim - 2
    first = arguments.get("data_format") == FORMATS[rank][1] and x.ndim >= rank + 2

    def theirs():
        # As tensors: arrays of another dtype, TensorFlow would cast to the first one's.
        source = tf.constant(np.moveaxis(x, -rank - 1, -1) if first else x)
        options = channels_last(rank, arguments) if first else arguments
        try:
            result = getattr(tf.nn, name)(source, tf.constant(kernel), **options).numpy()
        except UserWarning as warning:  # see test_depthwise_strides_with_dilations
            raise Wrong from warning
        return np.moveaxis(result, -1, -rank - 1) if first else result

    # The last is what depthwise_conv2d runs into on its way, where the input has an axis too few.
    refusals = (tf.errors.OpError, TypeError, ValueError, Wrong, IndexError)
    agree("tensorflow", theirs, lambda: getattr(ours, name)(x, kernel, **arguments), refusals)


def run(agree, call):
    name, shapes, dtypes, arguments, seed = call
    rng = np.random.default_rng(seed)
    arrays = [small_integers(rng, tuple(s), d) for s, d in zip(shapes, dtypes, strict=True)]
    compare(agree, name, *arrays, arguments)


@settings(max_examples=3 * settings().max_examples)
@given(calls("conv"))
def test_conv(agree, call):
    run(agree, call)


@settings(max_examples=3 * settings().max_examples)
@given(calls("transpose"))
def test_conv_transpose(agree, call):
    run(agree, call)


@given(calls("depthwise"))
def test_depthwise_conv2d(agree, call):
    run(agree, call)


@given(
    geometry=geometries(max_size=6, max_kernel=3, max_channels=2, max_groups=2, min_padding=0),
    transposed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_arguments_are_those_of_tensorflow(agree, geometry, transposed, seed):
    """What `arguments` gives, with the pad or crop beside it, `tf.nn` takes as well."""
    plain = max(geometry.dilations) == geometry.groups == 1
    assume(0 not in (*geometry.input_size, *geometry.output_size))
    assume(geometry.groups == 1 or geometry.rank < 3)
    pad = None
    try:
        arguments = ours.arguments(geometry, transposed=transposed)
    except Inexpressible as error:
        arguments, pad = error.arguments, error.pad
        assume(arguments is not None)
    assume(plain or not transposed or isinstance(arguments["padding"], str))
    shape = list(geometry.output_shape if transposed else geometry.input_shape)
    for axis, (low, high) in enumerate(pad or ()):
        shape[axis] += low + high
    dtype = "float64" if plain and (transposed or geometry.rank < 3) else "float32"
    assume(dtype == "float64" or transposed or geometry.output_size[-1] > 1)
    rng = np.random.default_rng(seed)
    kernel = small_integers(rng, geometry.kernel_shape, dtype)
    name = ours.spelling(geometry.rank, transposed=transposed).function
    compare(agree, name, small_integers(rng, (1, *shape), dtype), kernel, arguments)


def ramp(*shape, dtype="float64"):
    """1, 2, 3 ... so that a wrong entry shows."""
    return np.arange(1, 1 + math.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("size", [9, 10])
def test_same_crops_follow_the_output_shape(agree, size):
    """k = 3, s = 2: 5 -> 9 crops (1, 1), 5 -> 10 crops (0, 1), so 9 is no slice of 10."""
    x, filters = ramp(1, 5, 1), ramp(3, 1, 1)
    arguments = {"strides": 2, "padding": "SAME"}
    compare(agree, "conv1d_transpose", x, filters, {"output_shape": (1, size, 1), **arguments})
    smaller, larger = (ours.conv1d_transpose(x, filters, (1, n, 1), 2) for n in (9, 10))
    assert not (smaller == larger[:, :9]).all() and (smaller[:, :-1] == larger[:, 1:9]).all()


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("kernel, strides", [(1, 3), (2, 4), (3, 4)])
def test_stride_above_the_kernel(agree, padding, kernel, strides):
    x, filters = ramp(1, 7, 9, 2), ramp(kernel, kernel, 2, 2)
    compare(agree, "conv2d", x, filters, {"strides": strides, "padding": padding})
    for size in (12, 13, 14, 15, 16):
        arguments = {"output_shape": (size, 16), "strides": strides, "padding": padding}
        compare(agree, "conv2d_transpose", ramp(1, 4, 4, 2), filters, arguments)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_conv3d_same_with_a_stride_above_the_kernel(agree, size):
    """In float64, TensorFlow's kernel crops (k = 1, s = 3: of 3 entries it reads the second)."""
    x, filters = ramp(1, 1, size, 1, 1, dtype="float32"), ramp(1, 1, 1, 1, 1, dtype="float32")
    arguments = {"strides": (1, 1, 3, 1, 1), "padding": "SAME"}
    compare(agree, "conv3d", x, filters, arguments)
    assert ours.conv3d(x, filters, **arguments)[0, 0, 0] == 1


@pytest.mark.parametrize("low, high", [(3, 3), (0, 5), (4, 0), (7, 6)])
def test_explicit_padding_above_the_kernel(agree, low, high):
    filters = ramp(3, 3, 2, 2)
    arguments = {"strides": 2, "padding": [(0, 0), (low, high), (1, 0), (0, 0)]}
    compare(agree, "conv2d", ramp(2, 5, 5, 2), filters, arguments)
    for size in range(7):
        compare(
            agree,
            "conv2d_transpose",
            ramp(2, 5, 5, 2),
            filters,
            {"output_shape": (2, size, 10, 2), **arguments},
        )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", range(5))
def test_empty_outputs(agree, rank, stride, size):
    """An input below the kernel: empty or, where it is too far below, refused."""
    strides = (1, *[stride] * rank, 1)
    arguments = {"stride" if rank == 1 else "strides": strides, "padding": "VALID"}
    x, filters = ramp(1, size, *[5] * (rank - 1), 2), ramp(*[4] * rank, 2, 2)
    compare(agree, f"conv{rank}d", x, filters, arguments)
    if size + 2 * stride <= 4:
        with pytest.raises(ValueError, match=f"input: expected {5 - 2 * stride} or more .* {size}"):
            getattr(ours, f"conv{rank}d")(x, filters, **arguments)
    # An empty input: zeros of any size that the convolution makes nothing of.
    x = np.zeros((1, 0, *[1] * (rank - 1), 2))
    arguments = {"output_shape": (1, size, *[4] * (rank - 1), 2), "strides": strides}
    if rank < 3:  # of an empty input, TensorFlow's kernel of three axes ends the process
        compare(agree, f"conv{rank}d_transpose", x, filters, {**arguments, "padding": "VALID"})


@pytest.mark.parametrize(
    "padding, size, expected",
    [
        ("SAME", 8, "9 to 10"),
        ("SAME", 11, "9 to 10"),
        ("VALID", 10, "11 to 12"),
        ("VALID", 13, "11 to 12"),
        ([(0, 0), (1, 0), (0, 0), (0, 0)], 12, "10 to 11"),
        ([(0, 0), (9, 9), (0, 0), (0, 0)], 1, "no size at all"),
    ],
)
def test_the_range_of_output_shapes(agree, padding, size, expected):
    arrays = ramp(1, 5, 1, 2), ramp(3, 1, 2, 2)
    arguments = {"output_shape": (1, size, 1, 2), "strides": (2, 1), "padding": padding}
    compare(agree, "conv2d_transpose", *arrays, arguments)
    with pytest.raises(ValueError, match=f"^output_shape: expected {expected} .*got {size}$"):
        ours.conv2d_transpose(*arrays, **arguments)


@pytest.mark.parametrize(
    "shape", [(1, 6, 6, 2), (2, 6, 6, 3), (-1, 6, 6, 2), (None, 6, 6, 2), (6,), 6, (2, 6, 6), None]
)
def test_wrong_output_shapes(agree, shape):
    arrays = ramp(2, 6, 6, 2), ramp(3, 3, 2, 2)
    compare(agree, "conv2d_transpose", *arrays, {"output_shape": shape, "strides": 1})
    with pytest.raises((TypeError, ValueError), match="^output_shape"):
        ours.conv2d_transpose(*arrays, shape, 1)


@pytest.mark.parametrize("name", ["conv1d", "conv3d", "conv1d_transpose", "conv3d_transpose"])
def test_explicit_padding_is_for_two_axes(agree, name):
    rank = int(name[4])
    x, filters = ramp(1, *[4] * rank, 1), ramp(*[3] * rank, 1, 1)
    arguments = {"padding": [(0, 0), *[(1, 1)] * rank, (0, 0)]}
    arguments["stride" if name == "conv1d" else "strides"] = [1] * (rank + 2)
    if name.endswith("transpose"):
        arguments["output_shape"] = x.shape
    compare(agree, name, x, filters, arguments)
    with pytest.raises(ValueError, match="^padding: expected one of 'VALID', 'SAME', got"):
        getattr(ours, name)(x, filters, **arguments)


@pytest.mark.parametrize("name", [n for n in ours.__all__ if "conv" in n])
def test_channels_first(name):
    """Against oneDNN's kernels, which know it, and against channels last moved."""
    import tensorflow as tf

    rank = int(name[name.index("d", 4) - 1]) if name != "depthwise_conv2d" else 2
    x = ramp(1, 3, *(5, 6, 4)[:rank], dtype="float32")
    filters = ramp(*(3, 2, 2)[:rank], 3, 3, dtype="float32")
    last, first = FORMATS[rank]
    arguments = {"padding": "SAME"}
    arguments["stride" if name == "conv1d" else "strides"] = (1, 1, *(2,) * rank)
    if "transpose" in name:
        arguments["output_shape"] = (1, 3, *(9, 12, 7)[:rank])
    actual = getattr(ours, name)(x, filters, **arguments, data_format=first)
    theirs = getattr(tf.nn, name)(x, filters, **arguments, data_format=first).numpy()
    np.testing.assert_array_equal(actual, theirs)
    moved = channels_last(rank, arguments)
    actual = getattr(ours, name)(np.moveaxis(x, 1, -1), filters, **moved)
    np.testing.assert_array_equal(np.moveaxis(actual, -1, 1), theirs)


@pytest.mark.parametrize("name", ["conv2d", "conv2d_transpose", "depthwise_conv2d", "conv3d"])
@pytest.mark.parametrize(
    "dtype",
    [
        *("float16", "bfloat16", "float32", "float64", "int32"),
        *("int8", "uint8", "int16", "int64", "complex64", "complex128", "bool"),
    ],
)
def test_dtypes(agree, name, dtype):
    rank = 3 if name == "conv3d" else 2
    dtype = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    x, filters = np.ones((1, *[3] * rank, 2), dtype), np.ones((*[2] * rank, 2, 2), dtype)
    arguments = {"strides": (1,) * (rank + 2), "padding": "SAME"}
    if name == "conv2d_transpose":
        arguments["output_shape"] = x.shape
    compare(agree, name, x, filters, arguments)


def test_int32_wraps_around(agree):
    x, filters = np.full((1, 3, 2), 2**30, "int32"), np.full((2, 2, 1), 5, "int32")
    compare(agree, "conv1d", x, filters, {"stride": 1, "padding": "VALID"})


def test_groups_along_three_axes():
    """TensorFlow's kernels for the CPU refuse them: each group by itself, then."""
    import tensorflow as tf

    x, filters = ramp(1, 3, 4, 3, 4), ramp(2, 2, 2, 2, 6)
    parts = [(x[..., :2], filters[..., :3]), (x[..., 2:], filters[..., 3:])]
    theirs = [tf.nn.conv3d(*part, [1] * 5, "SAME").numpy() for part in parts]
    actual = ours.conv3d(x, filters, [1] * 5, "SAME")
    np.testing.assert_array_equal(actual, np.concatenate(theirs, -1))
    y = ramp(1, 3, 4, 3, 6)
    parts = [(y[..., :3], filters[..., :3]), (y[..., 3:], filters[..., 3:])]
    theirs = [tf.nn.conv3d_transpose(*part, (1, 5, 7, 6, 2), 2).numpy() for part in parts]
    actual = ours.conv3d_transpose(y, filters, (1, 5, 7, 6, 4), 2)
    np.testing.assert_array_equal(actual, np.concatenate(theirs, -1))


def test_depthwise_strides_with_dilations():
    """TensorFlow warns, and computes what is no convolution, not even in size."""
    import tensorflow as tf

    x, filters = ramp(1, 9, 9, 1), ramp(2, 2, 1, 1)
    arguments = {"strides": (1, 2, 2, 1), "padding": "VALID", "dilations": (2, 2)}
    with pytest.warns(UserWarning, match="all values of strides must be 1"):
        theirs = tf.nn.depthwise_conv2d(x, filters, **arguments).numpy()
    convolution = tf.nn.conv2d(x, filters, 2, "VALID", dilations=2).numpy()
    assert (theirs.shape, convolution.shape) == ((1, 3, 3, 1), (1, 4, 4, 1))
    with pytest.raises(ValueError, match="^dilations: expected 1 with strides"):
        ours.depthwise_conv2d(x, filters, **arguments)


def test_arguments_of_a_batch(agree):
    """Along two axes and without groups the size alone will do, for every batch."""
    one = ConvGeometry((9, 8), 3, strides=2, padding="SAME")
    assert ours.arguments(one, transposed=True, batch=5)["output_shape"] == (9, 8)
    two = ConvGeometry(
        (9, 8), 3, strides=2, padding="SAME", groups=2, in_channels=2, out_channels=2
    )
    arguments = ours.arguments(two, transposed=True, batch=5)
    assert arguments["output_shape"] == (5, 9, 8, 2)
    arrays = ramp(5, 5, 4, 2, dtype="float32"), ramp(3, 3, 1, 2, dtype="float32")
    compare(agree, "conv2d_transpose", *arrays, arguments)
