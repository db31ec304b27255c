"""Few channels that do not meet: stretches of rows, for every vector path of the machine."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import convarith
from convarith import ConvGeometry, ConvOperator, conv
from convarith.backends.cpu.direct import DirectPlan
from convarith.backends.cpu.finish import NOTHING, Finish
from convarith.backends.cpu.rowwise import PART, RowwisePlan, applies
from convarith.backends.cpu.vector import PATHS, available, element_of
from convarith.testing import Guarded, random_array

every_path = pytest.mark.parametrize("path", available())
every_product = pytest.mark.parametrize("product", ["forward", "transpose"])


#: Near the ends of a row, or beyond all of it.
paddings = st.one_of(st.integers(-2, 9), st.integers(-40, 300))


@st.composite
def geometries(draw, product, lanes):
    """Draw one of up to three axes, whose rows are short, or of some tiles."""
    rank, channels = draw(st.integers(1, 3)), draw(st.integers(1, lanes - 1))
    outer = rank - 1
    return ConvGeometry(
        (*draws(draw, outer, st.integers(1, 5)), draw(st.integers(1, 250))),
        draws(draw, rank, st.integers(1, 5)),
        strides=(*draws(draw, outer, st.integers(1, 3 if product == "forward" else 1)), 1),
        dilations=(
            *draws(draw, outer, st.integers(1, 4)),
            draw(st.one_of(st.integers(1, 4), st.integers(1, 150))),
        ),
        padding=(
            *draws(draw, outer, st.tuples(st.integers(-2, 9), st.integers(-2, 9))),
            (draw(paddings), draw(paddings)),
        ),
        groups=channels,
        in_channels=channels,
        out_channels=channels,
    )


def draws(draw, count, strategy):
    return tuple(draw(strategy) for _ in range(count))


def results(path, element, geometry, product, x, weights, shape, finish=NOTHING):
    """Return what rows and tiles give, in arrays between guard bands that held other numbers."""
    found = []
    for kind, before in ((RowwisePlan, 77), (DirectPlan, 78)):
        made = kind(path, element, geometry, product)
        out = Guarded(np.full(shape, before, x.dtype), guard=Guarded.WRITE)
        made.run(x, made.pack(weights), out.array, finish)
        out.assert_untouched(inside=False)
        found.append(out.array.copy())
    return found


def with_infinities(rng, array):
    """Return a copy, some of whose numbers are none."""
    array = array.copy()
    for value in (np.inf, -np.inf, np.nan):
        array[tuple(rng.integers(0, array.shape))] = value
    return array


@every_path
@every_product
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@given(data=st.data())
@settings(max_examples=60)
def test_the_numbers_of_the_tiles(path, product, dtype, data):
    path, element = PATHS[path], element_of(np.dtype(dtype))
    geometry = data.draw(geometries(product, path.lanes(element)))
    assume(0 not in geometry.output_size and applies(path, element, geometry, product))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shapes = geometry.input_shape, geometry.output_shape
    source, shape = ((2, *s) for s in (shapes if product == "forward" else shapes[::-1]))
    weights, x = random_array(rng, geometry.kernel_shape, dtype), random_array(rng, source, dtype)
    finish = NOTHING
    if element.floating:
        if data.draw(st.booleans()):
            weights = with_infinities(rng, weights)
        if data.draw(st.booleans()):
            x = with_infinities(rng, x)
        if data.draw(st.booleans()):
            finish = Finish(
                random_array(rng, shape[-1:], dtype),
                random_array(rng, shape[-1:], dtype),
                Guarded(random_array(rng, shape, dtype)).array,
                data.draw(st.integers(0, 2)),
            )
    x = Guarded(x).array
    np.testing.assert_array_equal(
        *results(path, element, geometry, product, x, weights, shape, finish)
    )


@every_path
@every_product
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(100_003,), (600, 101), (400, 300)])
def test_threads_and_parts_of_a_row_change_no_bit(path, product, channels, size):
    path, element = PATHS[path], element_of(np.dtype("f4"))
    kernel = (1, 1) if size == (400, 300) else 3  # which are one row
    geometry = ConvGeometry(
        size, kernel, padding="SAME", groups=channels, in_channels=channels, out_channels=channels
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, *geometry.input_shape), np.float32)
    weights = rng.standard_normal(geometry.kernel_shape, np.float32)
    made = RowwisePlan(path, element, geometry, product)
    _, threads = made.layout(len(x), 3, False)
    assert threads == 3
    row = x[0].size if size != (600, 101) else 101 * channels
    assert (row > PART * made.large * made.block) == (size != (600, 101))
    found = []
    try:
        for threads in (1, 3):
            convarith.set_num_threads(threads)
            found += results(path, element, geometry, product, x, weights, x.shape)
    finally:
        convarith.set_num_threads(None)
    for result in found[1:]:
        np.testing.assert_array_equal(result, found[0])
    alone = results(path, element, geometry, product, x[1:2], weights, (1, *x.shape[1:]))
    np.testing.assert_array_equal(alone[0][0], found[0][1])


def test_what_is_not_finite_meets_no_padding():
    kernel = np.array([[1, np.inf, 2], [np.nan, 3, 4], [5, 6, -np.inf]], np.float32)
    x = np.ones((4, 40), np.float32)
    result = conv(x, kernel, padding="SAME")
    np.testing.assert_array_equal(result, conv(x, kernel, padding="SAME", backend="reference"))
    assert result[0, 0] == -np.inf  # 3 + 4 + 6 - inf
    assert result[-1, 0] == np.inf and np.isnan(result[1, 1])


@pytest.mark.parametrize(
    ("taps", "said"),
    [(np.arange(9.0).reshape(3, 3), "rows of 1 channels"), (np.ones((3, 3)), "separable")],
)
def test_what_is_chosen(taps, said):
    assert said in str(ConvOperator(taps, (50, 60), backend="cpu").plan)


@pytest.mark.parametrize("size", [2, 3, 9])
def test_one_call_has_the_bits_of_an_operator(size):
    kernel = np.outer(np.arange(1, size + 1), np.linspace(0.3, 1, size)).astype(np.float32)
    x = np.random.default_rng(0).standard_normal((40, 50), np.float32)
    operator = ConvOperator(kernel, x.shape, padding="SAME")
    np.testing.assert_array_equal(conv(x, kernel, padding="SAME"), operator(x))
    kernel[0, 0] += 1  # of which nothing was kept
    operator = ConvOperator(kernel, x.shape, padding="SAME")
    assert "separable" not in str(operator.plan)
    np.testing.assert_array_equal(conv(x, kernel, padding="SAME"), operator(x))
