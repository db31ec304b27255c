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


@st.composite
def geometries(draw, product, lanes):
    """Draw one of up to three axes, whose rows are short, or of some tiles."""
    rank, channels = draw(st.integers(1, 3)), draw(st.integers(1, lanes - 1))
    size = [draw(st.integers(1, 5)) for _ in range(rank - 1)] + [draw(st.integers(1, 250))]
    return ConvGeometry(
        tuple(size),
        tuple(draw(st.integers(1, 5)) for _ in range(rank)),
        strides=tuple(
            draw(st.integers(1, 3)) if product == "forward" else 1 for _ in range(rank - 1)
        )
        + (1,),
        dilations=tuple(draw(st.integers(1, 4)) for _ in range(rank)),
        padding=tuple((draw(st.integers(-2, 9)), draw(st.integers(-2, 9))) for _ in range(rank)),
        groups=channels,
        in_channels=channels,
        out_channels=channels,
    )


def run(plan, source, weights, shape, finish=NOTHING):
    """Run a plan into an array between guard bands; every number of the array is written."""
    out = Guarded(np.zeros(shape, source.dtype), guard=Guarded.WRITE)
    plan.run(source, plan.pack(weights), out.array, finish)
    out.assert_untouched(inside=False)
    return out.array.copy()


@every_path
@every_product
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@given(data=st.data())
@settings(max_examples=60)
def test_the_bits_of_the_tiles(path, product, dtype, data):
    element = element_of(np.dtype(dtype))
    geometry = data.draw(geometries(product, PATHS[path].lanes(element)))
    assume(0 not in geometry.output_size and applies(PATHS[path], element, geometry, product))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shapes = geometry.input_shape, geometry.output_shape
    source, shape = ((2, *s) for s in (shapes if product == "forward" else shapes[::-1]))
    weights = random_array(rng, geometry.kernel_shape, dtype)
    finish = NOTHING
    if element.floating and data.draw(st.booleans()):
        channels = shape[-1:]
        finish = Finish(
            random_array(rng, channels, dtype),
            random_array(rng, channels, dtype),
            Guarded(random_array(rng, shape, dtype)).array,
            data.draw(st.integers(0, 2)),
        )
    x = Guarded(random_array(rng, source, dtype)).array
    arguments = PATHS[path], element, geometry, product
    results = [
        run(plan(*arguments), x, weights, shape, finish) for plan in (RowwisePlan, DirectPlan)
    ]
    np.testing.assert_array_equal(*results)


@every_path
@every_product
@pytest.mark.parametrize("channels", [1, 3])
def test_threads_and_parts_of_a_row_change_no_bit(path, product, channels):
    element = element_of(np.dtype("f4"))
    lanes = PATHS[path].lanes(element)
    for size in ((2 * PART * 12 * lanes + 5,), (40, 3 * lanes + 1)):
        geometry = ConvGeometry(
            size, 3, padding=1, groups=channels, in_channels=channels, out_channels=channels
        )
        plan = RowwisePlan(PATHS[path], element, geometry, product)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((2, *geometry.input_shape), np.float32)
        weights = rng.standard_normal(geometry.kernel_shape, np.float32)
        results = []
        try:
            for threads in (1, 2, 5):
                convarith.set_num_threads(threads)
                results.append(run(plan, x, weights, x.shape))
        finally:
            convarith.set_num_threads(None)
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])
        np.testing.assert_array_equal(run(plan, x[1:], weights, x[1:].shape), results[0][1:])


def test_what_is_not_finite_meets_no_padding():
    kernel = np.array([[1, np.inf, 2], [np.nan, 3, 4], [5, 6, -np.inf]], np.float32)
    x = np.ones((4, 40), np.float32)
    result = conv(x, kernel, padding="SAME")
    np.testing.assert_array_equal(result, conv(x, kernel, padding="SAME", backend="reference"))
    assert result[0, 0] == -np.inf  # 3 + 4 + 6 - inf
    assert result[-1, 0] == np.inf and np.isnan(result[1, 1])


@pytest.mark.parametrize(
    ("taps", "said"),
    [(np.arange(9.0).reshape(3, 3), "1 of a pixel"), (np.ones((3, 3)), "separable")],
)
def test_what_is_chosen(taps, said):
    assert said in str(ConvOperator(taps, (50, 60), backend="cpu").plan)
