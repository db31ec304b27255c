"""Winograd on the CPU: exact matrices, results within its bound, and where it is not used."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convarith import ConvGeometry, ConvOperator, conv, set_num_threads
from convarith.backends import BACKENDS
from convarith.backends.cpu import cook_toom, vector, winograd
from convarith.backends.cpu.direct import DirectPlan
from convarith.backends.cpu.finish import Finish
from convarith.testing import naive
from convarith.testing.guards import Guarded

PATHS = [vector.PATHS[name] for name in vector.available()]
FLOATS = {element.dtype.name: element for element in vector.ELEMENTS if element.floating}

assert "cpu" in BACKENDS


@pytest.mark.parametrize("m, r", cook_toom.POINTS)
def test_the_matrices_are_exact(m, r):
    """``A ((G g) * (B d))`` is the correlation of whole numbers, in fractions."""
    algorithm = cook_toom.algorithm(m, r)

    def times(matrix, values):
        return [sum(a * value for a, value in zip(row, values, strict=True)) for row in matrix]

    g, d = [3, -5, 7][:r], [2, -3, 5, 11, -13, 17][: m + r - 1]
    products = [
        a * b for a, b in zip(times(algorithm.kernel, g), times(algorithm.source, d), strict=True)
    ]
    expected = [sum(g[t] * d[i + t] for t in range(r)) for i in range(m)]
    assert times(algorithm.output, products) == expected

    # The steps that the kernels take are the same map.
    def add_up(terms):
        return sum((coefficient * value for coefficient, value in terms), Fraction(0))

    for matrix, values in ((algorithm.source, d), (algorithm.output, products)):
        program = cook_toom.program(matrix)
        assert program.run([Fraction(v) for v in values], add_up) == times(matrix, values)


@st.composite
def cases(draw):
    """Draw a path, an element and what Winograd applies to on it."""
    path = draw(st.sampled_from(PATHS))
    element = FLOATS[draw(st.sampled_from(sorted(FLOATS)))]
    lanes = path.lanes(element)
    channels = st.sampled_from(
        [lanes, lanes + 1, 2 * lanes - 1, 2 * lanes, 2 * lanes + 1, 3 * lanes]
    )
    product = draw(st.sampled_from(["forward", "transpose"]))
    stride = draw(st.integers(1, 3)) if product == "transpose" else 1
    r = draw(st.sampled_from([2, 3]))
    pads = st.integers(-1, 4)
    size = [draw(st.integers(r * stride + 2, 14)), draw(st.integers(r * stride + 2, 17))]
    geometry = ConvGeometry(
        size,
        r * stride,
        strides=stride,
        padding=[(draw(pads), draw(pads)) for _ in range(2)],
        in_channels=draw(channels),
        out_channels=draw(channels),
    )
    m = draw(st.sampled_from([m for m, taps in cook_toom.POINTS if taps == r]))
    return path, element, geometry, product, m, draw(st.integers(1, 3)), draw(st.booleans())


def arrays(geometry, product, batch, dtype, seed=0):
    rng = np.random.default_rng(seed)
    source, result = geometry.input_shape, geometry.output_shape
    if product == "transpose":
        source, result = result, source
    shapes = (batch, *source), geometry.kernel_shape, (batch, *result)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def correlate(product, geometry, x, kernel):
    """Return a product in float64, by the reference."""
    from convarith.backends import Options, reference
    from convarith.backends.protocol import PLAIN

    plan = reference.plan(product, geometry, np.dtype(np.float64), Options())
    return plan.run(x.astype(float), plan.pack(kernel.astype(float)), None, PLAIN)


@settings(max_examples=150)
@given(case=cases())
def test_results_epilogue_and_guards(case):
    path, element, geometry, product, m, batch, finished = case
    assert winograd.applies(geometry, product, element, path)
    plan = winograd.WinogradPlan(path, element, geometry, product, m)
    x, kernel, residual = arrays(geometry, product, batch, element.dtype)
    scale, bias = residual[0, 0, 0] * 2, residual[0, 0, 0] - 1
    finish = Finish(scale.copy(), bias.copy(), residual, 1) if finished else Finish()
    exact = correlate(product, geometry, x, kernel)
    largest = correlate(product, geometry, np.abs(x), np.abs(kernel)).max()
    if finished:
        largest = largest * np.abs(scale).max() + np.abs(bias).max() + np.abs(residual).max()
        exact = np.maximum(exact * scale + bias + residual, 0)
    guarded, out = Guarded(x), Guarded(np.zeros_like(residual), guard=Guarded.WRITE)
    plan.run(guarded.array, plan.pack(kernel), out.array, finish)
    out.assert_untouched(inside=False)
    eps = float(np.finfo(element.dtype).eps)
    assert np.abs(out.array - exact).max() <= 8 * eps * largest


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m, r", cook_toom.POINTS)
def test_the_error_is_within_four_times_directs(m, r, dtype):
    path, element = PATHS[0], FLOATS[dtype]
    geometry = ConvGeometry((40, 40), r, padding=1, in_channels=64, out_channels=32)
    x, kernel, out = arrays(geometry, "forward", 1, dtype)
    wide = np.float64 if dtype == "float32" else np.longdouble
    exact = np.zeros(out.shape, wide)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(wide)
    height, width = geometry.output_size
    for ky, kx in np.ndindex(r, r):
        window = padded[:, ky : ky + height, kx : kx + width]
        for channel in range(64):
            exact += window[..., channel, None] * kernel[ky, kx, channel].astype(wide)
    errors = []
    for plan in (
        DirectPlan(path, element, geometry, "forward"),
        winograd.WinogradPlan(path, element, geometry, "forward", m),
    ):
        plan.run(x, plan.pack(kernel), out, Finish())
        errors.append(np.abs(out - exact).max())
    assert errors[1] <= 4 * errors[0]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_a_kernel_that_is_not_finite_goes_to_direct(value):
    x, kernel = np.ones((1, 9, 9, 32), np.float32), np.ones((3, 3, 32, 32), np.float32)
    kernel[0, 0, 0, 0] = value
    ours = conv(x, kernel, padding=1, algorithm="winograd", backend="cpu")
    direct = conv(x, kernel, padding=1, algorithm="direct", backend="cpu")
    np.testing.assert_array_equal(ours, direct)
    assert np.isfinite(ours[0, 0]).all(), "a tap in the padding contributed"


def test_threads_and_batches_change_no_bit():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 40, 44, 64)).astype(np.float32)
    op = ConvOperator(
        rng.standard_normal((3, 3, 64, 80)).astype(np.float32), (40, 44), padding="SAME"
    )
    assert str(op.plan).startswith("cpu: winograd")
    try:
        results = []
        for threads in (1, 2, 3, 8):
            set_num_threads(threads)
            results.append(op(x))
            np.testing.assert_array_equal(op(x[1:])[0], results[-1][1])
    finally:
        set_num_threads(None)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(
    "change",
    [{"strides": 2}, {"dilations": 2}, {"groups": 2}, {"kernel": (4, 4, 32, 32)}],
    ids=str,
)
def test_it_is_refused_where_it_does_not_apply(change):
    kernel = np.ones(change.pop("kernel", (3, 3, 32 // change.get("groups", 1), 32)), np.float32)
    with pytest.raises(ValueError, match="^algorithm: expected None or 'direct' here"):
        ConvOperator(kernel, (12, 12), algorithm="winograd", backend="cpu", **change).T.T(
            np.ones((1, 12, 12, 32), np.float32)
        )


def test_the_oracle_is_one():
    geometry = ConvGeometry((5, 4), 3, padding=1, in_channels=2, out_channels=3)
    x, kernel, _ = arrays(geometry, "forward", 1, np.float64)
    expected = naive("forward", geometry, x, kernel).astype(float)
    np.testing.assert_allclose(
        correlate("forward", geometry, x, kernel), expected, rtol=1e-12, atol=1e-12
    )
