"""The layers of `fcn`: every result and every gradient against TensorFlow's."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn.layers import (
    Add,
    BatchNorm,
    Conv,
    ConvTranspose,
    Crop,
    MaxPool,
    ReLU,
    Softmax,
    ZeroPadding,
    softmax_cross_entropy,
)

few = settings(max_examples=40)
numbers = st.integers(0, 2**32 - 1)
steps = st.tuples(st.integers(1, 3), st.integers(1, 3))
sides = st.tuples(st.integers(0, 2), st.integers(0, 2))
#: TensorFlow's words, or zeros on each side.
paddings = st.sampled_from(["SAME", "VALID"]) | st.tuples(sides, sides)


@pytest.fixture(scope="module")
def tf():
    """TensorFlow, imported when the first test asks for it: that takes seconds."""
    import tensorflow

    return tensorflow


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """Keras as it is without a configuration of the user's."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    import keras

    return keras


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def small_whole(rng, *shape):
    """Small whole numbers: many of them equal, some of them where a function bends."""
    return rng.integers(-3, 9, shape).astype(np.float32)


def agrees(layer, theirs, *xs, train=True, tolerance=1e-5, dtype="float64"):
    """Compare a layer with a function of TensorFlow's: its result, its gradients, its shape.

    `theirs` takes the inputs, then the layer's parameters by name.
    """
    import tensorflow as tf

    rng = np.random.default_rng(len(xs[0]))
    before = [x.copy() for x in xs]
    y, saved = layer.forward(*xs, train=train)
    parameters = {name: getattr(layer, name) for name in layer.parameters}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    inputs = [tf.Variable(x, dtype=dtype) for x in xs]
    weights = {name: tf.Variable(value, dtype=dtype) for name, value in parameters.items()}
    with tf.GradientTape() as tape:
        expected = theirs(*inputs, **weights)
    assert y.dtype == np.float32 and y.shape == expected.shape
    np.testing.assert_allclose(y, expected.numpy(), rtol=tolerance, atol=tolerance)
    assert layer.output_shape(*(x.shape for x in xs)) == y.shape
    g = normal(rng, *y.shape)
    kept = g.copy()
    gradients, of_parameters = layer.backward(saved, g)
    assert len(gradients) == len(xs) and of_parameters.keys() == parameters.keys()
    wanted = tape.gradient(expected, [inputs, weights], tf.constant(g, dtype))
    for ours, his in [
        *zip(gradients, wanted[0], strict=True),
        *((of_parameters[name], wanted[1][name]) for name in parameters),
    ]:
        if his is None:
            assert ours is None
            continue
        assert ours.dtype == np.float32 and ours.shape == his.shape
        scale = max(1, abs(his.numpy()).max(initial=0))
        np.testing.assert_allclose(ours, his.numpy(), rtol=tolerance, atol=tolerance * scale)
    np.testing.assert_array_equal(g, kept)
    for x, old in zip(xs, before, strict=True):
        np.testing.assert_array_equal(x, old)


def padded(tf, x, padding):
    """Return TensorFlow's array and word for a padding of ours."""
    if isinstance(padding, str):
        return x, padding
    return tf.pad(x, [(0, 0), *padding, (0, 0)]), "VALID"


@few
@given(numbers, st.tuples(*[st.integers(1, 4)] * 2), steps, paddings, steps, st.data())
def test_convolution(tf, seed, window, strides, padding, dilations, data):
    """Ordinary, in groups and depthwise; dilated or not; with a bias or without."""
    rng = np.random.default_rng(seed)
    groups, inside, out = (data.draw(st.integers(1, 3)) for _ in range(3))
    spans = [(k - 1) * d + 1 for k, d in zip(window, dilations, strict=True)]
    h, w = (data.draw(st.integers(span, span + 4)) for span in spans)
    x = normal(rng, 2, h, w, groups * inside)
    bias = normal(rng, groups * out) if data.draw(st.booleans()) else None
    layer = Conv(
        normal(rng, *window, inside, groups * out), bias, strides, padding, dilations, groups
    )

    def theirs(x, kernel, bias=None):
        # TensorFlow has groups and dilated gradients in float32 alone: cut, and put zeros between.
        spread = tf.scatter_nd(
            [
                [(i * dilations[0], j * dilations[1]) for j in range(window[1])]
                for i in range(window[0])
            ],
            kernel,
            (*spans, *kernel.shape[2:]),
        )
        x, word = padded(tf, x, padding)
        y = tf.concat(
            [
                tf.nn.conv2d(*pair, strides=strides, padding=word)
                for pair in zip(tf.split(x, groups, -1), tf.split(spread, groups, -1), strict=True)
            ],
            -1,
        )
        return y if bias is None else y + bias

    agrees(layer, theirs, x)


@settings(max_examples=15)
@given(numbers, st.integers(1, 3), st.integers(1, 3), st.sampled_from(["SAME", "VALID"]))
def test_depthwise(tf, seed, channels, stride, padding):
    rng = np.random.default_rng(seed)
    layer = Conv(normal(rng, 3, 3, 1, 2 * channels), None, stride, padding, groups=channels)

    def theirs(x, kernel):
        kernel = tf.reshape(kernel, (3, 3, channels, 2))
        return tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), padding)

    agrees(layer, theirs, normal(rng, 2, 6, 5, channels))


@few
@given(numbers, st.tuples(*[st.integers(1, 5)] * 2), steps, st.sampled_from(["SAME", "VALID"]))
def test_transposed_convolution(keras, seed, window, strides, padding):
    """Keras's layer on the same kernel: its size, its result, its gradients."""
    rng = np.random.default_rng(seed)
    n, h, w, c, out = (int(size) for size in rng.integers(1, 5, 5))
    layer = ConvTranspose(normal(rng, *window, out, c), normal(rng, out), strides, padding)

    def theirs(x, kernel, bias):
        return keras.ops.conv_transpose(x, kernel, strides, padding.lower()) + bias

    agrees(layer, theirs, normal(rng, n, h, w, c))


@few
@given(numbers, st.tuples(*[st.integers(1, 4)] * 2), steps, st.tuples(sides, sides))
def test_transposed_convolution_of_explicit_padding(tf, seed, window, strides, padding):
    """What the padding of the convolution adds is cut off."""
    rng = np.random.default_rng(seed)
    n, h, w, c, out = (int(size) for size in rng.integers(1, 5, 5))
    size = [(m - 1) * s + k for m, s, k in zip((h, w), strides, window, strict=True)]
    rows, columns = (
        slice(low, full - high) for full, (low, high) in zip(size, padding, strict=True)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    layer = ConvTranspose(normal(rng, *window, out, c), None, strides, padding)

    def theirs(x, kernel):
        y = tf.nn.conv2d_transpose(x, kernel, (n, *size, out), strides, "VALID")
        return y[:, rows, columns]

    agrees(layer, theirs, normal(rng, n, h, w, c))


@few
@given(numbers, st.booleans(), st.booleans(), st.booleans())
def test_batch_norm(keras, seed, train, gamma, beta):
    """Keras's layer in both modes, with what it does to the moving statistics."""
    rng = np.random.default_rng(seed)
    n, h, w, c = (int(size) for size in rng.integers(1, 6, 4))
    epsilon, momentum = float(rng.uniform(1e-3, 1e-1)), float(rng.uniform(0, 1))
    layer = BatchNorm(
        normal(rng, c) if gamma else None,
        normal(rng, c) if beta else None,
        normal(rng, c),
        abs(normal(rng, c)),
        epsilon,
        momentum,
    )
    peer = keras.layers.BatchNormalization(
        momentum=momentum, epsilon=epsilon, center=beta, scale=gamma, dtype="float64"
    )
    peer.build((None, None, None, c))
    peer.moving_mean.assign(layer.moving_mean)
    peer.moving_variance.assign(layer.moving_variance)

    def theirs(x, **weights):
        with keras.StatelessScope() as scope:
            for name, value in weights.items():
                scope.add_update((getattr(peer, name), value))
            y = peer(x, training=train)
        for variable in (peer.moving_mean, peer.moving_variance):
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        return y

    agrees(layer, theirs, normal(rng, n, h, w, c) + 3, train=train, tolerance=1e-4)
    np.testing.assert_allclose(layer.moving_mean, peer.moving_mean.numpy(), 1e-5, 1e-5)
    np.testing.assert_allclose(layer.moving_variance, peer.moving_variance.numpy(), 1e-5, 1e-5)


def test_batch_norm_sums_in_float64():
    """A million pixels far from zero: float32 sums would lose the variance."""
    x = 1000 + np.random.default_rng(0).normal(size=(4, 512, 512, 2)).astype(np.float32)
    zeros = np.zeros(2, np.float32)
    layer = BatchNorm(None, zeros, zeros.copy(), zeros.copy(), momentum=0)
    y, saved = layer.forward(x, train=True)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(layer.moving_mean, exact.mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(layer.moving_variance, exact.var((0, 1, 2)), rtol=1e-6)
    g = y + np.random.default_rng(1).normal(size=x.shape).astype(np.float32) + np.float32(0.1)
    (gx,), gradients = layer.backward(saved, g)
    spread = 1 / np.sqrt(exact.var((0, 1, 2)) + 1e-3)
    normalised, g = (exact - exact.mean((0, 1, 2))) * spread, g.astype(np.float64)
    wanted = g - g.mean((0, 1, 2)) - normalised * (g * normalised).mean((0, 1, 2))
    np.testing.assert_allclose(gx, spread * wanted, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(gradients["beta"], g.sum((0, 1, 2)), rtol=1e-7)
    again, _ = layer.forward(x, train=True)
    assert again.tobytes() == y.tobytes()


def test_batch_norm_trains_on_nothing():
    ones = np.ones(1, np.float32)
    with pytest.raises(ValueError, match="x: expected a pixel or more"):
        BatchNorm(None, None, ones, ones).forward(np.ones((0, 2, 2, 1), np.float32), train=True)


@pytest.mark.parametrize(("maximum", "name"), [(None, "relu"), (6, "relu6")])
def test_relu(tf, maximum, name):
    """Also where it bends, at 0 and at 6."""
    agrees(ReLU(maximum), getattr(tf.nn, name), small_whole(np.random.default_rng(0), 2, 3, 4, 5))


@few
@given(numbers, st.tuples(*[st.integers(1, 4)] * 2), steps, paddings, st.booleans())
def test_max_pool(tf, seed, window, strides, padding, train):
    """Windows that overlap or leave gaps, and ties, which are many among small whole numbers."""
    rng = np.random.default_rng(seed)
    if not isinstance(padding, str):
        padding = tuple(
            tuple(min(side, k - 1) for side in sides)
            for sides, k in zip(padding, window, strict=True)
        )
    n, h, w, c = (int(size) for size in rng.integers(4, 8, 4))
    word = padding if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]

    def theirs(x):
        return tf.nn.max_pool2d(x, window, strides, word)

    x = small_whole(rng, n, h, w, c) - 4
    agrees(MaxPool(window, strides, padding), theirs, x, train=train, dtype="float32")


def test_max_pool_of_infinities():
    """Entries of -inf are entries: the padding beside them does not win."""
    x = np.full((1, 3, 3, 1), -np.inf, np.float32)
    for train in (False, True):
        y, saved = MaxPool(3, 2, 1).forward(x, train=train)
        (gx,), _ = MaxPool(3, 2, 1).backward(saved, np.ones_like(y))
        assert (y == -np.inf).all()
        assert gx[0, :, :, 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_max_pool_saves_a_byte_an_output():
    x = normal(np.random.default_rng(0), 1, 8, 8, 4)
    _, (shape, winners) = MaxPool(2, 2, "SAME").forward(x, train=True)
    assert winners.nbytes == 64 and shape == x.shape
    _, (_, winners) = MaxPool(17, 1, "SAME").forward(x, train=True)
    assert winners.dtype == np.uint16


def test_max_pool_passes_nan():
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 1, 1] = np.nan
    for train in (False, True):
        y, saved = MaxPool(2, 2, "VALID").forward(x, train=train)
        assert np.isnan(y[0, 0, 0, 0]) and np.isnan(y).sum() == 1
        (gx,), _ = MaxPool(2, 2, "VALID").backward(saved, np.ones_like(y))
        assert gx.sum() == 3  # the other windows'


@few
@given(numbers, st.integers(2, 4))
def test_add(tf, seed, terms):
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers(1, 5, 4))
    agrees(Add(), lambda *xs: tf.add_n(xs), *(normal(rng, *shape) for _ in range(terms)))


@few
@given(numbers, sides)
def test_crop(seed, excess):
    rng = np.random.default_rng(seed)
    n, h, w, c = (int(size) for size in rng.integers(1, 5, 4))
    x = normal(rng, n, h + excess[0], w + excess[1], c)
    agrees(Crop(), lambda x, _: x[:, :h, :w], x, normal(rng, n, h, w, 2))


@few
@given(numbers, st.tuples(sides, sides))
def test_zero_padding(tf, seed, padding):
    rng = np.random.default_rng(seed)
    x = normal(rng, *rng.integers(1, 5, 4))
    agrees(ZeroPadding(padding), lambda x: tf.pad(x, [(0, 0), *padding, (0, 0)]), x)


@few
@given(numbers)
def test_softmax(tf, seed):
    rng = np.random.default_rng(seed)
    agrees(Softmax(), tf.nn.softmax, 100 * normal(rng, *rng.integers(1, 5, 4)))


@few
@given(numbers, st.sampled_from([np.uint8, np.int32, np.int64]))
def test_softmax_cross_entropy(tf, seed, dtype):
    """The mean over what is labelled, of TensorFlow's loss a pixel."""
    rng = np.random.default_rng(seed)
    n, h, w, classes = (int(size) for size in rng.integers(1, 6, 4))
    logits = 10 * normal(rng, n, h, w, classes)
    labels = rng.integers(0, classes, (n, h, w)).astype(dtype)
    labelled = rng.random(labels.shape) < 0.7
    with tf.GradientTape() as tape:
        theirs = tf.Variable(logits, dtype=tf.float64)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels.astype(np.int64), theirs)
        expected = tf.reduce_sum(losses * labelled) / max(1, labelled.sum())
    loss, g = softmax_cross_entropy(logits, np.where(labelled, labels, 255).astype(dtype))
    assert isinstance(loss, float) and g.dtype == np.float32 and g.shape == logits.shape
    np.testing.assert_allclose(loss, expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(g, tape.gradient(expected, theirs).numpy(), rtol=1e-4, atol=1e-6)
    assert not g[~labelled].any()


def test_cross_entropy_of_nothing_labelled():
    loss, g = softmax_cross_entropy(np.ones((1, 2, 2, 3), np.float32), np.full((1, 2, 2), 255))
    assert loss == 0.0 and not g.any() and np.isfinite(g).all()


def test_cross_entropy_far_from_zero():
    """Logits whose powers float32 does not hold."""
    logits = np.array([[[[1e4, -1e4, 0]]]], np.float32)
    loss, g = softmax_cross_entropy(logits, np.array([[[1]]]))
    assert loss == 2e4 and g.tolist() == [[[[1, -1, 0]]]]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.full((1, 2, 2), 3), "expected 0 to 2 or 255"),
        (np.full((1, 2, 2), -1), "got -1"),
        (np.zeros((1, 2, 2)), "expected integers"),
        (np.zeros((2, 2), int), r"of shape \(1, 2, 2\)"),
    ],
)
def test_labels_that_are_no_classes(labels, said):
    with pytest.raises(ValueError, match=f"labels: .*{said}"):
        softmax_cross_entropy(np.zeros((1, 2, 2, 3), np.float32), labels)


ONES = np.ones((3, 3, 2, 4), np.float32)
FOUR = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Conv(ONES[0]), ValueError, "kernel: expected a float32 array with 4 axes"),
        (lambda: Conv(ONES.astype(float)), ValueError, "kernel: .*got float64 of shape"),
        (lambda: Conv(ONES[:0]), ValueError, "kernel: .*none empty"),
        (lambda: Conv(ONES.tolist()), TypeError, "kernel: .*got list"),
        (lambda: Conv(ONES, FOUR[:3]), ValueError, r"bias: expected shape \(4,\), .*got \(3,\)"),
        (lambda: Conv(ONES, strides=1.0), TypeError, "strides: expected an integer from 1"),
        (lambda: Conv(ONES, padding=-1), ValueError, r"padding\[0\]: expected an integer from 0"),
        (lambda: Conv(ONES, padding="same"), ValueError, "padding: expected 'SAME', 'VALID' or"),
        (lambda: Conv(ONES, groups=5), ValueError, "groups: expected an integer from 1 to 4"),
        (lambda: Conv(ONES, groups=3), ValueError, "groups: expected a divisor of .* 4 output"),
        (lambda: ConvTranspose(ONES, FOUR), ValueError, r"bias: expected shape \(2,\)"),
        (lambda: BatchNorm(None, None, FOUR, FOUR[:1]), ValueError, r"moving_variance: .*\(4,\)"),
        (lambda: BatchNorm(FOUR[:1], None, FOUR, FOUR), ValueError, r"gamma: .*\(4,\)"),
        (lambda: BatchNorm(None, None, FOUR, FOUR, epsilon=None), TypeError, "epsilon: "),
        (lambda: BatchNorm(None, None, FOUR, FOUR, momentum=2), ValueError, "momentum: .*0 to 1"),
        (lambda: ReLU(1), ValueError, "maximum: expected None or 6, got 1"),
        (lambda: ZeroPadding("SAME"), TypeError, "padding"),
        (lambda: MaxPool(2, 2, 2), ValueError, r"padding: expected less than the window \(2, 2\)"),
        (lambda: Crop().output_shape((1, 2, 2, 1), (1, 3, 1, 1)), ValueError, "inputs: .*at least"),
        (lambda: Add().forward(ONES, ONES[:1]), ValueError, "inputs: expected equal shapes"),
    ],
)
def test_layers_that_are_none(make, error, said):
    with pytest.raises(error, match=said):
        make()
