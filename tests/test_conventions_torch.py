"""`convarith.conventions.torch` against torch itself: the same arrays, the same refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convarith.conventions import torch as ours
from convarith.testing import small_integers

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
        arguments["output_padding"] = draw(st.sampled_from((0, 0, 1))) or per_axis("", 0, 1)
    elif draw(st.integers(0, 2)) == 0:
        arguments["padding"] = draw(st.sampled_from(("same", "valid", "SAME")))
        if arguments["padding"] == "same" and draw(st.integers(0, 4)):
            arguments["stride"] = 1
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    size = [draw(st.integers(1 if transposed else 3, 8)) for _ in range(rank)]
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
