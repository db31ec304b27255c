"""`convarith.conventions.jax` against JAX itself: the same arrays, the same refusals.

Numbers are drawn as integers: JAX keeps compiled calls by values that compare equal, so that a
bool or float drawn once would come back as the 1 or 2 of a later call.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convarith import ConvGeometry, conv, conv_transpose
from convarith.conventions import jax as ours
from convarith.testing import geometries, small_integers

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # a stride of 0

#: What JAX raises; RuntimeError is its answer to an unknown word.
REFUSALS = (TypeError, ValueError, RuntimeError, AssertionError)
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
FLOATS = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
#: What is drawn wrong in some calls; most are then refused by both.
MISTAKES = (None,) * 30 + (
    *("strides", "dilation", "length", "padding", "channels", "groups"),
    *("dtype", "preferred", "letters", "ndim", "precision"),
)
PRECISIONS = (None,) * 6 + ("highest", "tensorfloat32", ("high", "default"))


@pytest.fixture(scope="module")
def jax():
    import jax

    return jax


@st.composite
def calls(draw, transposed):
    """Draw a function's name, the shapes and dtypes of its operands, and its arguments."""
    rank, mistake = draw(st.integers(1, 3)), draw(st.sampled_from(MISTAKES))

    def per_axis(low, high, wrong=""):
        values = st.integers(-1, 0) if mistake == wrong else st.integers(low, high)
        length = rank + (wrong == "strides" and mistake == "length")
        return tuple(draw(st.lists(values, min_size=length, max_size=length)))

    kernel, size = per_axis(1, 3), per_axis(0 if draw(st.integers(0, 3)) == 0 else 2, 5)
    spread = draw(st.sampled_from((None, per_axis(1, 2, "dilation"))))
    pads = tuple(zip(per_axis(-1, 3), per_axis(-1, 3), strict=True))
    arguments = {"padding": pads}
    if spread is not None or mistake == "dilation":
        arguments["rhs_dilation"] = spread
    steps = per_axis(1, 3, "strides")
    groups = batches = 1
    if transposed:
        arguments["strides"] = steps
        arguments["use_consistent_padding"] = draw(st.booleans())
        arguments["transpose_kernel"] = draw(st.booleans())
        words = ("SAME", "VALID")
        if draw(st.integers(0, 5)) == 0:
            words = ("same", "SAME_LOWER", "Valid")
            arguments["strides"] = draw(st.sampled_from(((1,) * rank, steps)))
            arguments["use_consistent_padding"] = False
    else:
        arguments["window_strides"] = steps
        words = ("SAME", "VALID", "SAME_LOWER", "same")
        kind = draw(st.sampled_from(("", "", "feature", "batch")))
        number = draw(st.integers(2, 3)) if kind else 1
        groups, batches = (number, 1) if kind == "feature" else (1, number)
        if kind:
            arguments[f"{kind}_group_count"] = number
    if draw(st.booleans()):
        arguments["padding"] = draw(st.sampled_from(words))
    if not transposed and (
        not isinstance(arguments["padding"], str) or not draw(st.integers(0, 5))
    ):
        arguments["lhs_dilation"] = draw(st.sampled_from((None, per_axis(1, 3, "dilation"))))
    if mistake == "padding":
        wrong = ("other", 1, (1,) * rank, ((-9, 0),) * rank, ((1, 1),) * (rank + 1), ((1,),) * rank)
        arguments["padding"] = draw(st.sampled_from(wrong))
        if transposed:  # which then neither counts the axes nor the amounts
            arguments["use_consistent_padding"] = False
    if mistake == "groups":
        arguments |= {"feature_group_count": 2, "batch_group_count": draw(st.sampled_from((0, 2)))}

    stretch = arguments.get("strides") or arguments.get("lhs_dilation")
    if stretch and not isinstance(arguments["padding"], str):
        assume(not aborts(arguments, kernel, pads, steps, stretch))

    c_in, c_out = draw(st.integers(1, 2)), draw(st.integers(1, 2)) * groups * batches
    lengths = {"N": draw(st.integers(0, 2)) * batches, "C": c_in * groups, "I": c_in, "O": c_out}
    if mistake == "channels":
        lengths[draw(st.sampled_from("NCIO"))] += 1
    if arguments.get("transpose_kernel"):
        lengths["I"], lengths["O"] = lengths["O"], lengths["I"]
    spatial = "HWD"[:rank]
    words = [f"N{spatial}C", f"{spatial}IO"] if transposed else [f"NC{spatial}", f"OI{spatial}"]
    numbers = draw(st.sampled_from((None, "words", "words", "object")))
    if numbers is not None:
        words = ["".join(draw(st.permutations(word))) for word in (*words, words[0])]
        # The numbers an axis are in the order of the kernel's axes.
        spatial = "".join(letter for letter in words[1] if letter in spatial)
        arguments["dimension_numbers"] = [numbers, *words]
        if mistake == "letters":
            arguments["dimension_numbers"][draw(st.integers(1, 3))] = draw(
                st.sampled_from(("NCHH", "NC", "OIH", "nch", "NCX"))
            )
    shapes = [
        [{**lengths, **dict(zip(spatial, lens, strict=True))}[letter] for letter in word]
        for word, lens in zip(words[:2], (size, kernel), strict=True)
    ]
    if mistake == "ndim":
        shapes[1].append(1)
    dtype = draw(st.sampled_from((*INTEGERS, *FLOATS, *FLOATS)))
    dtypes = [dtype, dtype]
    if mistake == "dtype":
        dtypes[1] = draw(st.sampled_from((*INTEGERS, *FLOATS)))
    if mistake == "preferred":
        arguments["preferred_element_type"] = draw(st.sampled_from((*INTEGERS, *FLOATS)))
    elif draw(st.integers(0, 3)) == 0:
        wider = {"i": "int64", "u": "int64", "f": "float64", "c": "complex128", "V": "float32"}
        arguments["preferred_element_type"] = wider[as_dtype(dtype).kind]
    arguments["precision"] = draw(st.sampled_from(PRECISIONS))
    if mistake == "precision":
        arguments["precision"] = draw(st.sampled_from(("higher", (None, None), ("high",), 1)))
    name = "conv_transpose" if transposed else "conv_general_dilated"
    return name, shapes, dtypes, arguments, draw(st.integers(0, 2**32 - 1))


def aborts(arguments, kernel, pads, steps, stretch):
    """Whether XLA's compiler may end the process (jaxlib 0.10.2, ``algebraic_simplifier.cc``).

    ``jax.lax.conv_general_dilated(ones(1, 1, 1, 3), ones(1, 1, 2, 2), (1, 1), [(0, 1), (0, 0)],
    (1, 2))`` fails its check "Window dimensions do not match RHS shape": an axis that is not
    padded, stretched by the kernel's size and strided by one less, of a kernel larger than the
    input.
    """
    transposed = "strides" in arguments
    spread = arguments.get("rhs_dilation") or (1,) * len(kernel)
    for k, d, (a, b), step, s in zip(kernel, spread, pads, steps, stretch, strict=False):
        if arguments.get("use_consistent_padding"):
            a, b = ((k - 1) * d - p for p in (a, b))
        if (a, b) == (0, 0) and s == k and (1 if transposed else step) == k - 1:
            return True
    return False


def as_dtype(name):
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def compare(jax, agree, name, arrays, *positional, **arguments):
    def theirs():
        with jax.enable_x64(True):
            return np.asarray(getattr(jax.lax, name)(*arrays, *positional, **arguments))

    agree("jax", theirs, lambda: getattr(ours, name)(*arrays, *positional, **arguments), REFUSALS)


def compare_drawn(jax, agree, call):
    name, shapes, dtypes, arguments, seed = call
    rng = np.random.default_rng(seed)
    arrays = [
        small_integers(rng, tuple(shape), as_dtype(dtype))
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    arguments = dict(arguments)
    if "preferred_element_type" in arguments:
        arguments["preferred_element_type"] = as_dtype(arguments["preferred_element_type"])
    if "dimension_numbers" in arguments:
        kind, *words = arguments["dimension_numbers"]
        arguments["dimension_numbers"] = tuple(words)
        if kind == "object":
            try:
                arguments["dimension_numbers"] = jax.lax.conv_dimension_numbers(
                    *shapes, tuple(words)
                )
            except TypeError:
                pass  # drawn wrong: both refuse the words
    compare(jax, agree, name, arrays, **arguments)


@settings(max_examples=max(1, settings().max_examples // 4))
@given(calls(transposed=False))
def test_conv_general_dilated(jax, agree, call):
    compare_drawn(jax, agree, call)


@settings(max_examples=max(1, settings().max_examples // 4))
@given(calls(transposed=True))
def test_conv_transpose(jax, agree, call):
    compare_drawn(jax, agree, call)


@settings(max_examples=max(1, settings().max_examples // 10))
@given(geometries(max_size=8), st.booleans(), st.integers(0, 2**32 - 1))
def test_arguments_are_those_of_jax(jax, geometry, transposed, seed):
    """JAX itself takes them, and gives what the geometry's map gives."""
    assume(geometry.groups == 1 or not transposed)
    assume(0 not in geometry.input_size and 0 not in geometry.output_size)
    arguments = ours.arguments(geometry, transposed=transposed)
    pads = arguments["padding"]
    if transposed and not isinstance(pads, str):
        steps = (1,) * geometry.rank
        assume(not aborts(arguments, geometry.kernel_size, pads, steps, geometry.strides))
    rng = np.random.default_rng(seed)
    kernel = small_integers(rng, geometry.kernel_shape, "float64")
    shape = geometry.output_shape if transposed else geometry.input_shape
    x = small_integers(rng, (1, *shape), "float64")
    options = {name: getattr(geometry, name) for name in ("strides", "dilations", "groups")}
    options["padding"] = geometry.padding
    with jax.enable_x64(True):
        if transposed:
            theirs = np.asarray(jax.lax.conv_transpose(x, kernel, **arguments))
            expected = conv_transpose(x, kernel, output_size=geometry.input_size, **options)
        else:
            operands = (np.moveaxis(x, -1, 1), np.moveaxis(kernel, (-1, -2), (0, 1)))
            theirs = np.asarray(jax.lax.conv_general_dilated(*operands, **arguments))
            theirs, expected = np.moveaxis(theirs, 1, -1), conv(x, kernel, **options)
    np.testing.assert_array_equal(theirs, expected)


def arrays(*shapes, dtype="float32"):
    rng = np.random.default_rng(0)
    return [small_integers(rng, shape, dtype) for shape in shapes]


def test_the_default_kernel_is_not_the_transposed_one(jax, agree):
    """By default the kernel is read back to front: not the gradient of the convolution."""
    x, kernel = arrays((1, 4, 2), (3, 2, 2))
    geometry = ConvGeometry.of_transpose(4, 3, strides=2)
    call = dict(strides=(2,), padding="VALID")
    compare(jax, agree, "conv_transpose", (x, kernel), **call)
    compare(jax, agree, "conv_transpose", (x, kernel), transpose_kernel=True, **call)
    plain = ours.conv_transpose(x, kernel, **call)
    mirrored = kernel[::-1].swapaxes(1, 2)
    np.testing.assert_array_equal(
        plain, ours.conv_transpose(x, mirrored, transpose_kernel=True, **call)
    )
    assert not np.array_equal(plain, ours.conv_transpose(x, kernel, transpose_kernel=True, **call))
    assert ours.arguments(geometry, transposed=True) == {
        **call,
        "rhs_dilation": (1,),
        "transpose_kernel": True,
    }


@pytest.mark.parametrize("pads", [(0, 0), (2, 1), (5, 4), (-1, 0)])
@pytest.mark.parametrize("consistent", [False, True])
def test_pairs_pad_the_stretched_input_unless_consistent(jax, agree, pads, consistent):
    operands = arrays((1, 4, 2), (3, 2, 3))
    call = dict(strides=(2,), padding=(pads,), rhs_dilation=(2,), use_consistent_padding=consistent)
    compare(jax, agree, "conv_transpose", operands, **call)
    low, high = pads if consistent else (4 - pads[0], 4 - pads[1])
    made = ours.geometry_of(4, 3, transposed=True, **call)
    assert made.padding == ((low, high),)
    assert made.output_size == (6 + 5 - low - high,)


def test_consistent_padding_wants_tuples(jax, agree):
    operands = arrays((1, 4, 2), (3, 2, 3))
    for consistent in (False, True):
        compare(
            *(jax, agree, "conv_transpose", operands, (2,), [[1, 1]]),
            use_consistent_padding=consistent,
        )


@pytest.mark.parametrize("word", ["SAME", "VALID"])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
def test_words_of_conv_transpose(jax, agree, word, kernel, stride):
    """The stride above the kernel too, where SAME crops nothing low."""
    operands = arrays((1, 3, 1), (kernel, 1, 1))
    compare(jax, agree, "conv_transpose", operands, (stride,), word)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_stretched_input_is_a_transpose(jax, agree, groups):
    x, kernel = arrays((2, 4, 5, 4), (3, 2, 4 // groups, 6))
    layout = ("NHWC", "HWIO", "NHWC")
    stretched = dict(
        padding=[(1, 2), (0, 1)],
        lhs_dilation=(2, 3),
        dimension_numbers=layout,
        feature_group_count=groups,
    )
    compare(jax, agree, "conv_general_dilated", (x, kernel), (1, 1), **stretched)
    compare(jax, agree, "conv_general_dilated", (x, kernel), (3, 2), **stretched)
    result = ours.conv_general_dilated(x, kernel, (1, 1), **stretched)
    made = ours.geometry_of(
        *((4, 5), (3, 2)), window_strides=(1, 1), in_channels=4, out_channels=6, **stretched
    )
    assert made.transposed and made.strides == (2, 3) and made.crops == ((1, 0), (1, 0))
    assert made.output_shape == result.shape[1:]
    if groups == 1:
        np.testing.assert_array_equal(
            result, ours.conv_transpose(x, kernel, (2, 3), stretched["padding"])
        )
    with pytest.raises(ValueError, match="window_strides: expected 1 with an lhs_dilation"):
        ours.geometry_of((4, 5), (3, 2), window_strides=(3, 2), **stretched)
    with pytest.raises(ValueError, match="groups: jax.lax.conv_transpose has none"):
        ours.arguments(ConvGeometry(9, 3, groups=2, in_channels=2, out_channels=2).adjoint)


def test_batch_groups(jax, agree):
    x, kernel = arrays((6, 2, 5), (3, 2, 3))
    for arguments in (
        dict(batch_group_count=3),
        dict(batch_group_count=3, lhs_dilation=(2,)),
        dict(batch_group_count=2),
        dict(batch_group_count=3, feature_group_count=2),
        dict(batch_group_count=4),
    ):
        compare(jax, agree, "conv_general_dilated", (x, kernel), (2,), [(1, 1)], **arguments)
    expected = [
        np.concatenate([ours.conv(x[2 * g + n : 2 * g + n + 1], kernel[g : g + 1], (1,), "SAME")])
        for n in range(2)
        for g in range(3)
    ]
    result = ours.conv_general_dilated(x, kernel, (1,), "SAME", batch_group_count=3)
    np.testing.assert_array_equal(result.reshape(6, 1, 1, 5), expected)


@pytest.mark.parametrize("pads", [(4, 0), (0, 7), (9, 9), (-2, 0), (-4, 3), (-5, 1), (-9, 9)])
@pytest.mark.parametrize("stretch", [1, 3])
def test_paddings_beyond_the_kernel_and_below_zero(jax, agree, pads, stretch):
    operands = arrays((1, 2, 5), (3, 2, 3))
    for stride in (1, 2):
        compare(
            *(jax, agree, "conv_general_dilated", operands, (stride,), [pads]),
            lhs_dilation=(stretch,),
        )


@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(0, 0)], [(0, -1)], [(1, 0)], [(-2, 0)]])
def test_empty_inputs_and_outputs(jax, agree, size, padding):
    x, kernel = arrays((2, 1, size), (3, 1, 3))
    compare(jax, agree, "conv", (x, kernel), (2,), padding)
    stretch = None if isinstance(padding, str) else (2,)
    compare(
        *(jax, agree, "conv_with_general_padding", (x, kernel), (1,), padding, stretch, (2,)),
    )
    operands = x.transpose(0, 2, 1), kernel.transpose(2, 1, 0)
    for consistent in (False, True):
        for pads in (padding, [(3, 3)]):
            compare(
                *(jax, agree, "conv_transpose", operands, (2,), pads),
                use_consistent_padding=consistent,
            )


def test_operands_are_converted_before_they_are_summed(jax, agree):
    operands = [np.array(v, "float16").reshape(1, 1, 2) for v in ((257, 256), (1, -1))]
    for dtype in ("bfloat16", "float16", "float32"):
        compare(
            *(jax, agree, "conv_general_dilated", operands, (1,), "VALID"),
            preferred_element_type=as_dtype(dtype),
        )
    for dtype in ("uint8", "uint32", "uint64"):
        operands = [np.full((1, 1, 2), np.iinfo(dtype).max, dtype)] * 2
        compare(
            *(jax, agree, "conv_general_dilated", operands, (1,), "VALID"),
            preferred_element_type=np.dtype(dtype.lstrip("u")),
        )


def test_more_than_64_bits_are_refused(jax, agree):
    if np.dtype(np.longdouble).itemsize == 8:
        return  # there is none here
    operands = arrays((1, 1, 4), (1, 1, 2))
    compare(jax, agree, "conv", operands, (1,), "VALID", preferred_element_type=np.longdouble)
    operands = [array.astype(np.longdouble) for array in operands]
    compare(jax, agree, "conv", operands, (1,), "VALID")


def test_precisions(jax, agree):
    Precision = jax.lax.Precision
    for precision in (Precision.HIGH, (Precision.HIGH, Precision.DEFAULT), "fastest", 3, "HIGHEST"):
        compare(
            jax, agree, "conv", arrays((1, 1, 4), (1, 1, 2)), (1,), "VALID", precision=precision
        )


def test_more_axes_than_conv_transpose_has_a_layout_for(jax, agree):
    operands = arrays((1, 2, 2, 2, 2, 1), (2, 2, 2, 2, 1, 1))
    for numbers in (None, ("NABDEC", "ABDEIO", "NABDEC")):
        compare(
            *(jax, agree, "conv_transpose", operands, (2,) * 4, "SAME"), dimension_numbers=numbers
        )
