"""Winograd on the CPU: exact matrices, results within its bound, and where it is not used."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
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
    """``A ((G g) * (B d))`` is the correlation of whole numbers, and its adjoint is too."""
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

    u = [2, -7, 3, 5][:m]
    back_u, back_g = (cook_toom.transposed(a) for a in (algorithm.output, algorithm.kernel))
    sums = [a * b for a, b in zip(times(back_u, u), times(algorithm.source, d), strict=True)]
    assert times(back_g, sums) == [sum(u[i] * d[i + t] for i in range(m)) for t in range(r)]
    for matrix, values in (
        (algorithm.source, d),
        (algorithm.output, products),
        (back_u, u),
        (back_g, sums),
    ):
        program = cook_toom.program(matrix)
        assert program.run([Fraction(v) for v in values], add_up) == times(matrix, values)


@st.composite
def cases(draw):
    """Draw a path, an element and what Winograd applies to on it."""
    path = draw(st.sampled_from(PATHS))
    element = FLOATS[draw(st.sampled_from(sorted(FLOATS)))]
    lanes = path.lanes(element)
    edges = {n for k in (1, 2, 3) for n in (k * lanes - 1, k * lanes, k * lanes + 1)}
    channels = st.sampled_from([n for n in (*sorted(edges), 21, 64, 65) if n >= lanes])
    product = draw(st.sampled_from(["forward", "transpose"]))
    stride = draw(st.integers(1, 3)) if product == "transpose" else 1
    r = draw(st.sampled_from([2, 3]))
    pads, sizes = st.integers(-2, 4), st.integers(1, 17)
    geometry = ConvGeometry(
        (draw(sizes), draw(sizes)),
        r * stride,
        strides=stride,
        padding=[(draw(pads), draw(pads)) for _ in range(2)],
        in_channels=draw(channels),
        out_channels=draw(channels),
    )
    assume(0 not in geometry.output_size)
    m = draw(st.sampled_from([m for m, taps in cook_toom.POINTS if taps == r]))
    return path, element, geometry, product, m, draw(st.integers(0, 3))


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


@settings(max_examples=200)
@given(case=cases(), data=st.data())
def test_results_epilogue_and_guards(case, data):
    path, element, geometry, product, m, batch = case
    assert winograd.applies(geometry, product, element, path)
    plan = winograd.WinogradPlan(path, element, geometry, product, m)
    x, kernel, residual = arrays(geometry, product, batch, element.dtype)
    scale, bias, _ = np.random.default_rng(1).standard_normal((3, residual.shape[-1]))
    parts = {"scale": scale, "bias": bias, "residual": residual}
    given_parts = data.draw(st.sets(st.sampled_from(sorted(parts))))
    parts = {name: Guarded(parts[name].astype(element.dtype)) for name in given_parts}
    activation = data.draw(st.integers(0, 2))
    values = {name: part.array.astype(float) for name, part in parts.items()}
    magnitudes = {name: np.abs(value) for name, value in values.items()}

    def finished(result, scale=1, bias=0, residual=0):
        return result * scale + bias + residual

    exact = finished(correlate(product, geometry, x, kernel), **values)
    exact = np.clip(exact, 0 if activation else -np.inf, 6 if activation == 2 else np.inf)
    largest = correlate(product, geometry, np.abs(x), np.abs(kernel)).max(initial=0)
    largest = np.max(finished(np.full(exact.shape, largest), **magnitudes), initial=0)
    guarded, packed = Guarded(x), plan.pack(Guarded(kernel).array)
    out = Guarded(np.zeros_like(residual), guard=Guarded.WRITE)
    finish = Finish(**{name: part.array for name, part in parts.items()}, activation=activation)
    plan.run(guarded.array, packed, out.array, finish)
    out.assert_untouched(inside=False)
    eps = float(np.finfo(element.dtype).eps)
    assert np.max(np.abs(out.array - exact), initial=0) <= 16 * eps * largest


@given(st.sampled_from(list(cook_toom.POINTS)), st.integers(0, 2**32), st.floats(0, 3))
@settings(max_examples=50)
def test_the_bound(mr, seed, spread):
    """Numbers of very different sizes in a square err within the bound that is stated."""
    m, r = mr
    path, element, n = PATHS[0], FLOATS["float32"], m + r - 1
    size, channels = 2 * m + r - 1, path.lanes(element)
    geometry = ConvGeometry((size, size), r, in_channels=channels, out_channels=channels)
    x, kernel, out = arrays(geometry, "forward", 1, element.dtype, seed)
    rng = np.random.default_rng(seed + 1)
    x *= np.exp(spread * rng.standard_normal(x.shape))
    kernel *= np.exp(spread * rng.standard_normal(kernel.shape))
    plan = winograd.WinogradPlan(path, element, geometry, "forward", m)
    plan.run(x, plan.pack(kernel), out, Finish())
    error = np.abs(out - correlate("forward", geometry, x, kernel))[0]
    worst = (channels + winograd.STEPS) * 2.0**-23 * float(plan.algorithm.growth)
    for y, x_ in np.ndindex(2, 2):
        square = np.s_[m * y : m * (y + 1), m * x_ : m * (x_ + 1)]
        window = x[0, m * y : m * y + n, m * x_ : m * x_ + n]
        allowed = np.abs(window).max((0, 1)) @ np.abs(kernel).max((0, 1)).astype(float)
        assert (error[square] <= worst * allowed).all()


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


def test_what_is_not_finite_stays_in_its_square():
    path, element = PATHS[0], FLOATS["float32"]
    geometry = ConvGeometry((24, 24), 3, padding=1, in_channels=32, out_channels=32)
    plan = winograd.WinogradPlan(path, element, geometry, "forward", 4)
    x, kernel, out = arrays(geometry, "forward", 1, element.dtype)
    packed, clean = plan.pack(kernel), np.empty_like(out)
    plan.run(x, packed, clean, Finish(activation=2))
    x[0, 9, 9, 5] = np.nan  # a source of the square of results from 8 to 11 alone
    plan.run(x, packed, out, Finish(activation=2))
    assert np.isnan(out[0, 8:11, 8:11]).all(), "NaN passes an activation"
    out[0, 8:12, 8:12] = clean[0, 8:12, 8:12]
    np.testing.assert_array_equal(out, clean)


def test_the_choice_of_m():
    def chosen(size, channels):
        geometry = ConvGeometry(size, 3, padding=1, in_channels=channels, out_channels=channels)
        arguments = vector.PATHS["avx512"], FLOATS["float32"]
        assert winograd.preferred(geometry, "forward", arguments[1], arguments[0])
        return winograd.WinogradPlan(*arguments, geometry, "forward").algorithm.m

    assert chosen((80, 120), 64) == chosen((20, 30), 256) == 4
    assert chosen((10, 15), 512) == 2, "a kernel of 36 products would be read for 12 squares"


@pytest.mark.parametrize(
    "product, size, channels, kernel",
    [
        ("forward", (23, 30), (64, 80), 3),
        ("forward", (12, 9), (192, 208), 3),  # a large kernel: two calls
        ("transpose", (14, 13), (65, 33), 4),  # few squares
    ],
)
def test_neither_threads_nor_batches_nor_callers_change_a_bit(product, size, channels, kernel):
    path, element = PATHS[0], FLOATS["float32"]
    geometry = ConvGeometry(
        size,
        kernel,
        strides=kernel - 2 if product == "transpose" else 1,
        padding=1,
        in_channels=channels[0],
        out_channels=channels[1],
    )
    plan = winograd.WinogradPlan(path, element, geometry, product)
    x, kernel, out = arrays(geometry, product, 3, element.dtype)

    def result(source):
        made = np.full((len(source), *out.shape[1:]), np.nan, np.float32)
        plan.run(source, packed, made, Finish())
        return made

    try:
        results, singles = [], []
        for threads in (1, 2, 3, 8):
            set_num_threads(threads)
            packed = plan.pack(kernel)
            results.append(result(x))
            singles.append(np.concatenate([result(x[i : i + 1]) for i in range(3)]))
        with ThreadPoolExecutor(4) as callers:
            results += callers.map(result, [x] * 16)
    finally:
        set_num_threads(None)
    for other in results + singles:
        np.testing.assert_array_equal(other, results[0])


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


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("product", ["forward", "transpose"])
def test_a_compact_plan_keeps_the_taps_and_changes_no_bit(path, product):
    """Also where panels overlap, squares reach outside, and a batch takes several blocks."""
    element = FLOATS["float32"]
    geometry = ConvGeometry((21, 30), 3, padding=1, in_channels=200, out_channels=216)
    plain = winograd.WinogradPlan(path, element, geometry, product, 4)
    plan = winograd.WinogradPlan(path, element, geometry, product, 4, compact=True)
    assert plan.streamed and not plain.streamed
    x, kernel, out = arrays(geometry, product, 14, element.dtype)
    bias, residual = np.ones(out.shape[-1], np.float32), out.copy()
    finish = Finish(bias=bias, residual=residual, activation=1)
    packed, expected = plan.pack(kernel), out.copy()
    assert packed.kernel.nbytes == kernel.nbytes
    assert np.shares_memory(packed.kernel, kernel) or product == "transpose"
    plain.run(x, plain.pack(kernel), expected, finish)
    assert np.unique(expected).size > 1000
    assert len(plan.layout(14, 1).calls) > 2
    try:
        for threads in (1, 2, 3, 40):
            set_num_threads(threads)
            made = Guarded(np.full_like(out, np.nan), guard=Guarded.WRITE)
            plan.run(x, packed, made.array, finish)
            made.assert_untouched(inside=False)
            np.testing.assert_array_equal(made.array, expected)
            one = np.full_like(out[:1], np.nan)
            plan.run(x[3:4], packed, one, finish._replace(residual=residual[3:4]))
            np.testing.assert_array_equal(one, expected[3:4])
    finally:
        set_num_threads(None)
    kernel[0, 0, 0, 0] = np.nan
    assert plan.pack(kernel).direct is not None


def test_what_a_compact_plan_transforms_in_each_call():
    """Large kernels, where it is a small part of the work, and no scratch makes up for it."""

    def streamed(size, channels, **more):
        geometry = ConvGeometry(size, 3, padding=1, in_channels=channels, out_channels=channels)
        arguments = vector.PATHS["avx512"], FLOATS["float32"], geometry, "forward", 4
        return winograd.WinogradPlan(*arguments, **more).streamed

    assert streamed((20, 30), 256, compact=True) and streamed((40, 60), 512, compact=True)
    assert not streamed((40, 60), 512)
    assert not streamed((40, 60), 128, compact=True), "a small kernel"
    assert not streamed((10, 15), 512, compact=True), "few squares"
    assert not streamed((160, 240), 256, compact=True), "many squares, which take more memory"
