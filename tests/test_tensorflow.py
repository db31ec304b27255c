"""Against TensorFlow itself: `tf.nn.conv2d`, its transpose, its gradients.

TensorFlow's CPU kernels admit less than its documentation: the transpose takes dilations and
groups in float32 alone, and not with explicit padding. Where oneDNN is on (as it is by default,
and must be for those), its float32 forward is wrong in places: with one output column, strides
and a batch above 1 (2.21: ``x (2, 2, 3, 1)``, ``kernel (1, 3, 1, 1)``, ``strides (1, 2)``).
The forward is therefore compared in float64, which oneDNN leaves alone.
"""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convarith import conv, conv_kernel_gradient, conv_transpose
from convarith.testing import assert_close, geometries, kernels_and_inputs

TF_WORDS = ("VALID", "SAME")


@st.composite
def tensorflow_cases(draw, *, paddings, **options):
    """Draw a case, the padding word or numbers as ours, and as TensorFlow writes it."""
    word = draw(st.sampled_from(paddings))
    dtypes = options.pop("dtypes")
    geometry = geometries(ranks=(2,), paddings=(word,), min_padding=0, **options)
    case = draw(kernels_and_inputs(geometry, dtypes=dtypes))
    theirs = word
    if word == "EXPLICIT":
        theirs = [[0, 0], *map(list, case.geometry.padding), [0, 0]]
    return case, word, theirs


def keywords(case, word):
    return case.arguments | ({} if word == "EXPLICIT" else {"padding": word})


def not_empty(case):
    """TensorFlow refuses or leaves unwritten what is empty."""
    geometry = case.geometry
    return len(case.x) and 0 not in geometry.input_size and 0 not in geometry.output_size


@given(
    drawn=tensorflow_cases(paddings=(*TF_WORDS, "EXPLICIT"), dtypes=("float64",)),
)
def test_conv2d(backend, drawn):
    import tensorflow as tf

    case, word, padding = drawn
    assume(not_empty(case))
    geometry = case.geometry
    theirs = tf.nn.conv2d(
        case.x, case.kernel, geometry.strides, padding, dilations=geometry.dilations
    ).numpy()
    ours = conv(case.x, case.kernel, **keywords(case, word), backend=backend)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert_close(ours, "forward", case)
    assert_close(theirs, "forward", case)


transposes = tensorflow_cases(paddings=TF_WORDS, dtypes=("float32",)) | tensorflow_cases(
    paddings=(*TF_WORDS, "EXPLICIT"),
    dtypes=("float32", "float64"),
    max_dilation=1,
    max_groups=1,
)


@given(drawn=transposes)
def test_conv2d_transpose(backend, drawn):
    """Every output_shape that TensorFlow admits: the drawn size is any that fits the output."""
    import tensorflow as tf

    case, word, padding = drawn
    assume(not_empty(case))
    geometry = case.geometry
    theirs = tf.nn.conv2d_transpose(
        case.y,
        case.kernel,
        case.x.shape,
        geometry.strides,
        padding,
        dilations=geometry.dilations,
    ).numpy()
    ours = conv_transpose(
        case.y,
        case.kernel,
        **keywords(case, word),
        output_size=geometry.input_size,
        backend=backend,
    )
    assert_close(ours, "transpose", case)
    assert_close(theirs, "transpose", case)


@given(drawn=tensorflow_cases(paddings=TF_WORDS, dtypes=("float32",)))
def test_default_output_size_is_admitted(backend, drawn):
    """Without output_size we give a size that TensorFlow takes too, with the same values."""
    import tensorflow as tf

    case, word, padding = drawn
    assume(not_empty(case))
    ours = conv_transpose(case.y, case.kernel, **keywords(case, word), backend=backend)
    theirs = tf.nn.conv2d_transpose(
        case.y,
        case.kernel,
        ours.shape,
        case.geometry.strides,
        padding,
        dilations=case.geometry.dilations,
    ).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@given(
    # With oneDNN, in float32, Conv2DBackpropFilter writes outside of its memory and now and then
    # takes the process with it (2.21). Without, it knows no dilations: those and groups, and
    # float32, are compared in test_jax.py.
    drawn=tensorflow_cases(
        paddings=(*TF_WORDS, "EXPLICIT"), dtypes=("float64",), max_groups=1, max_dilation=1
    )
)
def test_gradients(backend, drawn):
    import tensorflow as tf

    case, word, padding = drawn
    assume(not_empty(case))
    geometry = case.geometry
    x, kernel = tf.constant(case.x), tf.constant(case.kernel)
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = tf.nn.conv2d(x, kernel, geometry.strides, padding, dilations=geometry.dilations)
        loss = tf.reduce_sum(y * case.y)
    in_x, in_kernel = (gradient.numpy() for gradient in tape.gradient(loss, [x, kernel]))
    assert_close(in_x, "transpose", case)
    assert_close(in_kernel, "kernel_gradient", case)
    arguments = {**keywords(case, word), "backend": backend}
    ours = conv_transpose(case.y, case.kernel, output_size=geometry.input_size, **arguments)
    assert_close(ours, "transpose", case)
    ours = conv_kernel_gradient(case.x, case.y, geometry.kernel_size, **arguments)
    assert_close(ours, "kernel_gradient", case)


@pytest.mark.parametrize("out", [9, 10])
def test_same_crops_follow_the_size_asked_for(backend, out):
    """k = 3, s = 2: 5 -> 9 crops (1, 1), 5 -> 10 crops (0, 1), so 9 is no slice of 10."""
    import tensorflow as tf

    y, kernel = np.arange(1.0, 6).reshape(1, 5, 1, 1), np.array([1.0, 10, 100]).reshape(3, 1, 1, 1)
    theirs = tf.nn.conv2d_transpose(y, kernel, (1, out, 1, 1), (2, 1), "SAME").numpy()
    options = {"strides": (2, 1), "padding": "SAME", "backend": backend}
    ours = conv_transpose(y, kernel, output_size=(out, 1), **options)
    np.testing.assert_array_equal(ours, theirs)
    larger = conv_transpose(y, kernel, output_size=(10, 1), **options)
    assert out == 10 or not (ours[0, :, 0, 0] == larger[0, :9, 0, 0]).all()
