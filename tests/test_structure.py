"""A kernel's structure, and the plan that is made for it: separable, channel by channel."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import convarith
from convarith import ConvGeometry, bilinear_kernel
from convarith.backends.cpu import pool, separable_blend
from convarith.backends.cpu.finish import NOTHING, Finish
from convarith.backends.cpu.separable import SeparablePlan, applies
from convarith.backends.cpu.separable_blend import ROWS
from convarith.backends.cpu.separable_taps import MOST_TAPS
from convarith.backends.cpu.vector import PATHS, available, element_of
from convarith.backends.structure import diagonal, separable
from convarith.testing import Guarded, assert_product, quick, random_array

FLOATS = ["float32", "float64"]
CHANNELS = (1, 3, 5, 15, 16, 17, 21, 33, 2, 8)
floats = pytest.mark.parametrize("dtype", FLOATS)
seeds = st.integers(0, 2**32 - 1)


def outer(rng, size, channels, dtype, *, alike=False):
    """Return weights ``(kh, kw, c)`` of either sign that are separable but for rounding."""
    y, x = (rng.standard_normal((k, 1 if alike else channels)) for k in size)
    weights = (y[:, None] * x).astype(dtype)
    return np.broadcast_to(weights, (*size, channels)).copy()


def assert_factors(factors, weights):
    eps = np.finfo(weights.dtype).eps
    y, x = (part.astype(np.longdouble) for part in factors)
    product = y[:, None] * x
    assert factors.y.dtype == factors.x.dtype == weights.dtype
    assert (np.abs(product - weights) <= 2 * eps * np.abs(weights)).all()
    assert (np.abs(factors.y) <= 1).all()


# What is found.


@floats
@given(c=st.integers(2, 9), size=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=seeds)
@settings(max_examples=60)
def test_diagonal(dtype, c, size, seed):
    rng = np.random.default_rng(seed)
    weights = random_array(rng, (*size, c), dtype)
    kernel = np.zeros((*size, c, c), dtype)
    kernel[..., np.arange(c), np.arange(c)] = weights
    np.testing.assert_array_equal(diagonal(kernel), weights)
    strided = np.repeat(kernel, 2, axis=-1)[..., ::2]
    np.testing.assert_array_equal(diagonal(strided), weights)
    place = tuple(int(rng.integers(length)) for length in size)
    for value in (1e-30, np.nan, -np.inf):
        kernel[(*place, 0, c - 1)] = value
        assert diagonal(kernel) is None
    kernel[(*place, 0, c - 1)] = -0.0
    kernel[(*place, 0, 0)] = np.nan
    np.testing.assert_array_equal(diagonal(kernel)[(*place, 0)], np.nan)


def test_no_diagonal():
    assert diagonal(np.ones((3, 3, 4, 4))) is None
    assert diagonal(np.zeros((3, 3, 4, 5))) is None
    assert diagonal(np.ones((3, 3, 1, 1))) is None
    assert diagonal(np.zeros((2, 3, 3))).shape == (2, 3)


@floats
@pytest.mark.parametrize("alike", [True, False])
@given(size=st.tuples(*[st.integers(2, 12)] * 2), c=st.sampled_from(CHANNELS), seed=seeds)
@settings(max_examples=60)
def test_separable(dtype, alike, size, c, seed):
    rng = np.random.default_rng(seed)
    weights = outer(rng, size, c, dtype, alike=alike)
    assert_factors(separable(weights), weights)
    # Whole rows, columns and channels of zeros.
    weights[rng.integers(size[0])] = 0
    weights[:, rng.integers(size[1])] = 0
    weights[..., rng.integers(c)] = 0
    assert_factors(separable(weights), weights)
    # No scale is too large or too small, as long as all of it is normal.
    for factor in (2.0**-80, 2.0**90):
        scaled = weights * np.asarray(factor, dtype)
        if (np.abs(scaled[scaled != 0]) > 1e4 * np.finfo(dtype).smallest_normal).all():
            assert_factors(separable(scaled), scaled)


@floats
@given(size=st.tuples(*[st.integers(2, 9)] * 2), c=st.sampled_from(CHANNELS), seed=seeds)
@settings(max_examples=60)
def test_not_separable(dtype, size, c, seed):
    rng = np.random.default_rng(seed)
    weights = outer(rng, size, c, dtype)
    place = tuple(int(rng.integers(length)) for length in weights.shape)
    off = 1e-5 if dtype == "float32" else 1e-13
    for value in (weights[place] * (1 + off), 0, -weights[place], np.nan, np.inf, -np.inf):
        changed = weights.copy()
        changed[place] = value
        assert separable(changed) is None
    signs = (-1) ** np.add.outer(*(np.arange(length) for length in size))[..., None]
    noisy = weights * (1 + off * signs * rng.uniform(0.5, 1, weights.shape))
    assert separable(noisy.astype(dtype)) is None
    zeros = np.zeros_like(weights)
    zeros[place] = 1e-40 if dtype == "float32" else 1e-310
    factors = separable(zeros)
    assert factors is None or (factors.y[:, None] * factors.x == zeros).all()


def test_sizes_without_structure():
    assert separable(np.ones((1, 5, 2))) is None
    assert separable(np.ones((5, 1, 2))) is None
    assert separable(np.ones((5, 5, 0))) is None


@pytest.mark.parametrize("size", [*range(2, 20), 31, 32, 63, 64, 127, 128])
def test_bilinear_kernels_are_separable(size):
    kernel = bilinear_kernel(2, 2, size)
    weights = diagonal(kernel)
    factors = separable(weights)
    assert_factors(factors, weights)
    if size & (size - 1) == 0:  # exactly, so that interpolated ones are ones
        np.testing.assert_array_equal(factors.y[:, None] * factors.x, weights)


# What is computed with it.


@st.composite
def geometries(draw):
    axes = []
    for _ in range(2):
        k, d = draw(st.sampled_from((2, 3, 4, 5, 8))), draw(st.sampled_from((1, 1, 1, 2, 3)))
        s = draw(st.sampled_from((1, 2, 2, 3, 4, 5)))
        padding = [draw(st.integers(-3, (k - 1) * d + 2)) for _ in range(2)]
        axes.append((draw(st.integers(1, 17)), k, s, d, padding))
    size, kernel, strides, dilations, padding = zip(*axes, strict=True)
    c = draw(st.sampled_from(CHANNELS))
    return ConvGeometry(
        size,
        kernel,
        strides=strides,
        dilations=dilations,
        padding=padding,
        groups=draw(st.sampled_from((c, c, 1))),
        in_channels=c,
        out_channels=c,
    )


class Problem:
    """Arrays between guard bands, for one product of one geometry with a separable kernel."""

    def __init__(self, product, geometry, dtype, *, batch=1, alike=False, seed=0):
        rng = np.random.default_rng(seed)
        self.product, self.geometry, self.dtype = product, geometry, np.dtype(dtype)
        c = geometry.in_channels
        weights = outer(rng, geometry.kernel_size, c, dtype, alike=alike)
        self.factors = separable(weights)
        self.kernel = np.zeros(geometry.kernel_shape, dtype)
        channels = np.arange(c)
        self.kernel[..., channels if geometry.groups == 1 else 0, channels] = weights
        shapes = geometry.input_shape, geometry.output_shape
        source, self.shape = shapes if product == "forward" else shapes[::-1]
        self.source = Guarded(random_array(rng, (batch, *source), dtype)).array
        self.shape = (batch, *self.shape)
        self.parts = {
            "scale": random_array(rng, (c,), dtype),
            "bias": random_array(rng, (c,), dtype),
            "residual": Guarded(random_array(rng, self.shape, dtype)).array,
        }

    def run(self, path, parts=(), activation=None):
        plan = SeparablePlan(PATHS[path], element_of(self.dtype), self.geometry, self.product)
        out = Guarded(np.zeros(self.shape, self.dtype), guard=Guarded.WRITE)
        finish = Finish(
            **{name: self.parts[name] for name in parts},
            activation=[None, "relu", "relu6"].index(activation),
        )
        plan.run(self.source, plan.pack(self.factors), out.array, finish)
        out.assert_untouched(inside=False)
        return out.array.copy()

    def check(self, path, parts=(), activation=None):
        result = self.run(path, parts, activation)
        epilogue = {name: self.parts[name] for name in parts} | {"activation": activation}
        assert_product(result, self.product, self.geometry, self.source, self.kernel, **epilogue)
        return result


@pytest.fixture
def threads():
    """Set the number of threads; the default comes back."""
    yield convarith.set_num_threads
    convarith.set_num_threads(None)


@pytest.mark.parametrize("path", available())
@pytest.mark.parametrize("product", ["forward", "transpose"])
@floats
@given(
    geometry=geometries(),
    batch=st.integers(1, 3),
    alike=st.booleans(),
    parts=st.sets(st.sampled_from(["scale", "bias", "residual"])),
    activation=st.sampled_from([None, None, "relu", "relu6"]),
    seed=seeds,
)
@settings(max_examples=60)
def test_against_the_oracle(path, product, dtype, geometry, batch, alike, parts, activation, seed):
    assume(0 not in geometry.output_size)
    problem = Problem(product, geometry, dtype, batch=batch, alike=alike, seed=seed)
    problem.check(path, sorted(parts), activation)


@pytest.mark.parametrize("path", available())
@pytest.mark.parametrize("product", ["forward", "transpose"])
@pytest.mark.parametrize("c, width, k, s", [(3, 40, 4, 2), (21, 48, 5, 1), (1, 512, 3, 2)])
@floats
def test_results_past_the_caches(monkeypatch, path, product, dtype, c, width, k, s):
    """The same bits, and nothing beside them, in rows that begin with whole vectors or do not."""
    band = PATHS[path].nbytes // np.dtype(dtype).itemsize
    for size in (width, width + 1):
        geometry = ConvGeometry(
            (9, size), k, strides=s, padding="SAME", groups=c, in_channels=c, out_channels=c
        )
        problem = Problem(product, geometry, dtype, batch=2)
        expected = problem.check(path)
        plan = SeparablePlan(PATHS[path], element_of(np.dtype(dtype)), geometry, product)
        monkeypatch.setattr("convarith.backends.cpu.separable.past_bytes", lambda: 0)
        for shift in (0, 1):
            around = pool.aligned(expected.size + 2 * band + shift, np.dtype(dtype))
            around[...] = 77
            out = around[band + shift : -band].reshape(expected.shape)
            plan.run(problem.source, plan.pack(problem.factors), out, NOTHING)
            np.testing.assert_array_equal(out, expected)
            assert (around[: band + shift] == 77).all() and (around[-band:] == 77).all()
        monkeypatch.undo()


@pytest.mark.parametrize("path", available())
@pytest.mark.parametrize("product", ["forward", "transpose"])
@floats
def test_strips_blocks_threads_and_batches_change_no_bit(path, product, dtype, threads):
    for c, size, k, s in ((3, (54, 1700), 4, 2), (21, (60, 200), 5, 3), (1, (50, 6001), 3, 1)):
        geometry = ConvGeometry(
            size, k, strides=s, padding="SAME", groups=c, in_channels=c, out_channels=c
        )
        problem = Problem(product, geometry, dtype, batch=2)
        threads(1)
        expected = problem.check(path)
        for count in (2, 3):
            threads(count)
            np.testing.assert_array_equal(problem.run(path), expected)
        whole = problem.source
        problem.shape = (1, *problem.shape[1:])
        for n in range(2):
            problem.source = whole[n : n + 1]
            np.testing.assert_array_equal(problem.run(path), expected[n : n + 1])


@pytest.mark.parametrize("path", available())
@pytest.mark.parametrize("c", [1, 3, 8, 21])
@pytest.mark.parametrize("parts", [[], ["bias", "residual"]])
def test_rows_at_once_change_no_bit(path, c, parts, monkeypatch):
    """Also of three and four taps a phase, as a bicubic interpolation has them."""
    for k, stride in ((4, 2), (5, 3), (8, 4), (6, 2), (16, 8), (3, 5), (16, 4), (13, 4), (12, 4)):
        geometry = ConvGeometry(
            (41, 37), k, strides=stride, padding="SAME", groups=c, in_channels=c, out_channels=c
        )
        problem = Problem("transpose", geometry, "float32", alike=True)
        plan = SeparablePlan(PATHS[path], element_of(problem.dtype), geometry, "transpose")
        if k % stride == 0:
            assert plan.y.alike == stride
        expected = problem.check(path, parts)
        monkeypatch.setattr("convarith.backends.cpu.separable.MOST_ROWS", 1)
        np.testing.assert_array_equal(problem.run(path, parts), expected)
        monkeypatch.undo()


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_blend_of_several_rows_has_a_vector_of_each_or_is_not_made(path):
    for taps, rows in itertools.product(range(1, MOST_TAPS + 1), ROWS):
        room = separable_blend._room(path, False, taps, rows)
        assert 0 <= room <= separable_blend.UNROLLED
        assert room or rows > 1
        if path.name in available():
            table = separable_blend.kernels(path, 0, False, taps, rows)
            assert (table[ROWS.index(rows), taps] != 0) == (room > 0)


@pytest.mark.parametrize("product", ["forward", "transpose"])
def test_non_finite_sources_reach_what_they_should(product):
    """Absent taps, zeros around the source and other pixels of a vector bring no NaN."""
    for stride, k, c in ((1, 3, 5), (2, 3, 3), (2, 4, 21), (3, 5, 1), (4, 8, 3)):
        geometry = ConvGeometry(
            (12, 12), k, strides=stride, padding="SAME", groups=c, in_channels=c, out_channels=c
        )
        problem = Problem(product, geometry, "float32")
        problem.source[0, 1, 1, 0] = np.inf
        problem.source[0, -1, -1, -1] = np.nan
        expected = quick(product, geometry, problem.source, problem.kernel)
        for path in available():
            np.testing.assert_array_equal(np.isnan(problem.run(path)), np.isnan(expected))
            np.testing.assert_array_equal(np.isinf(problem.run(path)), np.isinf(expected))


def test_interpolated_ones_are_ones():
    for factor, c in ((2, 3), (4, 1), (8, 21), (32, 21)):
        k = 2 * factor
        geometry = ConvGeometry.of_transpose(
            (3, 4), k, strides=factor, padding=factor // 2, in_channels=c, out_channels=c
        )
        plan = SeparablePlan(
            PATHS[available()[0]], element_of(np.dtype("f4")), geometry, "transpose"
        )
        weights = np.repeat(diagonal(bilinear_kernel(2, 2, k))[..., :1], c, axis=-1)
        out = np.empty((1, *geometry.input_shape), np.float32)
        packed = plan.pack(separable(weights))
        plan.run(np.ones((1, *geometry.output_shape), np.float32), packed, out, Finish())
        inside = slice(factor // 2, -(factor // 2))
        assert (out[:, inside, inside] == 1).all()


def test_where_it_applies():
    f4, i4 = element_of(np.dtype("f4")), element_of(np.dtype("i4"))
    channels = {"in_channels": 21, "out_channels": 21}
    up = ConvGeometry((80, 80), 16, strides=8, padding="SAME", **channels)
    assert applies(up, "transpose", f4)
    assert not applies(up, "transpose", i4)
    assert not applies(up, "kernel_gradient", f4)
    many = {"groups": 144, "in_channels": 144, "out_channels": 144}
    assert applies(ConvGeometry((80, 80), 3, padding="SAME", **many), "forward", f4)
    # A tile takes nine steps where four rows in two streams each are no fewer.
    assert not applies(ConvGeometry((80, 80), 3, strides=2, **many), "forward", f4)
    for geometry in (
        ConvGeometry((80, 80), 3, groups=7, **channels),
        ConvGeometry((80, 80), 3, in_channels=21, out_channels=42, groups=21),
        ConvGeometry((80, 80), (1, 3), **channels),
        ConvGeometry((80,), 3, **channels),
        ConvGeometry((10**6, 80), 2, dilations=(10**5, 1), **channels),
        ConvGeometry((80, 10**6), 2, dilations=(1, 10**5), **channels),
        ConvGeometry((10**6, 10**6), 2, strides=10**5, **channels),
    ):
        assert not applies(geometry, "transpose", f4)
    wide = ConvGeometry((3, 10**6), 9, strides=(1, 1000), padding="SAME")
    plan = SeparablePlan(PATHS["plain"], f4, wide, "forward")
    assert plan.scratch(1, threads=1) <= 2**22
    assert "separable" in str(plan)
