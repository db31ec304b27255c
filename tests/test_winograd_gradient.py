"""Kernel gradients by Winograd on the CPU: right for every shape, the same on any threads."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convarith import ConvGeometry, conv_kernel_gradient, set_num_threads
from convarith.backends import BACKENDS, Options
from convarith.backends.cpu import cook_toom, vector, winograd, winograd_gradient
from convarith.backends.cpu import plan as cpu_plan
from convarith.backends.cpu.gradient import GradientPlan
from convarith.backends.cpu.winograd_gradient import WinogradGradientPlan
from convarith.backends.cpu.winograd_gradient_layout import RUN_SQUARES
from convarith.testing.checks import exactly
from convarith.testing.guards import Guarded

PATHS = [vector.PATHS[name] for name in vector.available()]
FLOATS = {element.dtype.name: element for element in vector.ELEMENTS if element.floating}
CHANNELS = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 21, 32, 33, 48, 49, 65)

assert "cpu" in BACKENDS


def arrays(geometry, batch, dtype, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (batch, *geometry.input_shape), (batch, *geometry.output_shape)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def gradient(plan, x, g, out=None):
    if out is None:
        out = np.full(plan.geometry.kernel_shape, np.nan, plan.element.dtype)
    plan.run(x, g, out)
    return out


@st.composite
def cases(draw):
    """Draw a path, an element, m, and a geometry whose gradient F(m, r) computes on it."""
    path = draw(st.sampled_from(PATHS))
    element = FLOATS[draw(st.sampled_from(sorted(FLOATS)))]
    channels = st.sampled_from([n for n in CHANNELS if n >= path.lanes(element)])
    m, r = draw(st.sampled_from(sorted(cook_toom.POINTS)))
    pads, sizes = st.integers(-2, 4), st.integers(1, 17)
    strides = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    geometry = ConvGeometry(
        (draw(sizes), draw(sizes)),
        [r * stride for stride in strides],
        strides=strides,
        padding=[(draw(pads), draw(pads)) for _ in range(2)],
        in_channels=draw(channels),
        out_channels=draw(channels),
    )
    assume(0 not in geometry.output_size)
    return path, element, geometry, m, draw(st.integers(0, 3))


@settings(max_examples=300)
@given(case=cases(), threads=st.sampled_from([1, 2, 8]))
def test_results_and_guards(case, threads):
    path, element, geometry, m, batch = case
    assert winograd.applies(geometry, "kernel_gradient", element, path)
    plan = WinogradGradientPlan(path, element, geometry, m)
    x, g = arrays(geometry, batch, element.dtype)
    out = Guarded(np.zeros(geometry.kernel_shape, element.dtype), guard=Guarded.WRITE)
    try:
        set_num_threads(threads)
        gradient(plan, Guarded(x).array, Guarded(g).array, out.array)
    finally:
        set_num_threads(None)
    out.assert_untouched(inside=False)
    exact = exactly("kernel_gradient", geometry, x, g)
    largest = exactly("kernel_gradient", geometry, np.abs(x), np.abs(g)).max(initial=0)
    eps = float(np.finfo(element.dtype).eps)
    assert np.abs(out.array - exact).max() <= 16 * eps * largest


@settings(max_examples=50)
@given(st.sampled_from(sorted(cook_toom.POINTS)), st.integers(0, 2**32), st.floats(0, 3))
def test_the_bound(mr, seed, spread):
    """Numbers of very different sizes err within the bound that is stated."""
    m, r = mr
    path, element, n = PATHS[0], FLOATS["float32"], m + r - 1
    size, channels = 3 * m + r - 1, path.lanes(element)
    geometry = ConvGeometry((size, size), r, in_channels=channels, out_channels=channels)
    x, g = arrays(geometry, 2, element.dtype, seed)
    rng = np.random.default_rng(seed + 1)
    x *= np.exp(spread * rng.standard_normal(x.shape))
    g *= np.exp(spread * rng.standard_normal(g.shape))
    plan = WinogradGradientPlan(path, element, geometry, m)
    error = np.abs(gradient(plan, x, g) - exactly("kernel_gradient", geometry, x, g))
    allowed = np.zeros((channels, channels))
    for image, y, x_ in np.ndindex(2, 3, 3):
        d = x[image, m * y : m * y + n, m * x_ : m * x_ + n]
        u = g[image, m * y : m * (y + 1), m * x_ : m * (x_ + 1)]
        allowed += np.outer(np.abs(d).max((0, 1)), np.abs(u).max((0, 1)).astype(float))
    growth = float(plan.algorithm.gradient_growth)
    assert (error <= (18 + winograd.STEPS) * 2.0**-23 * growth * allowed).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m, r", cook_toom.POINTS)
@pytest.mark.parametrize("size, batch", [((40, 40), 1), ((21, 18), 2), ((80, 120), 1)])
def test_the_error_is_within_four_times_directs(m, r, dtype, size, batch):
    path, element = PATHS[0], FLOATS[dtype]
    geometry = ConvGeometry(size, r, padding=1, in_channels=48, out_channels=32)
    x, g = arrays(geometry, batch, dtype)
    wide = np.float64 if dtype == "float32" else np.longdouble
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).astype(wide)
    exact = np.zeros(geometry.kernel_shape, wide)
    height, width = geometry.output_size
    columns = np.ascontiguousarray(g.reshape(-1, 32).T.astype(wide))
    for ky, kx in np.ndindex(r, r):
        window = padded[:, ky : ky + height, kx : kx + width].reshape(-1, 48)
        if dtype == "float32":
            exact[ky, kx] = (columns @ window).T
        else:
            for at in range(0, len(window), 64):
                exact[ky, kx] += np.einsum(
                    "pi,op->io", window[at : at + 64], columns[:, at : at + 64]
                )
    direct, ours = (
        np.abs(gradient(plan, x, g) - exact).max()
        for plan in (
            GradientPlan(path, element, geometry),
            WinogradGradientPlan(path, element, geometry, m),
        )
    )
    assert ours <= 4 * direct


@pytest.mark.parametrize(
    "size, batch, channels, kernel, stride",
    [
        ((23, 30), 3, (64, 80), 3, 1),
        ((50, 61), 3, (33, 97), 3, 1),
        ((9, 13), 2, (192, 208), 2, 1),
        ((28, 31), 3, (65, 33), 4, 2),
        ((300, 310), 1, (33, 49), 3, 1),  # several chunks, and overlapping blocks and panels
    ],
)
def test_threads_change_no_bit(size, batch, channels, kernel, stride):
    geometry = ConvGeometry(
        size,
        kernel,
        strides=stride,
        padding=1,
        in_channels=channels[0],
        out_channels=channels[1],
    )
    plan = WinogradGradientPlan(PATHS[0], FLOATS["float32"], geometry)
    x, g = arrays(geometry, batch, np.float32)
    try:
        results = []
        for threads in (1, 2, 3, 8):
            set_num_threads(threads)
            results.append(gradient(plan, x, g))
    finally:
        set_num_threads(None)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    layout = plan.layout(batch, 2)
    assert size != (300, 310) or (len(layout.calls) > 2 and layout.chunk > RUN_SQUARES)
    exact = np.empty(geometry.kernel_shape)
    GradientPlan(PATHS[0], FLOATS["float64"], geometry).run(x.astype(float), g.astype(float), exact)
    assert np.abs(results[0] - exact).max() <= 1e-5 * np.abs(exact).max() + 1e-3


def test_what_is_not_read_does_not_matter():
    """What lies behind the last window may be anything, also where a square reaches it."""
    geometry = ConvGeometry(
        (12, 12), 3, padding=[(0, -3), (0, -3)], in_channels=16, out_channels=16
    )
    x, g = arrays(geometry, 1, np.float32)
    plan = WinogradGradientPlan(PATHS[0], FLOATS["float32"], geometry, 4)
    expected = gradient(plan, x, g)
    x[:, 9:] = x[:, :, 9:] = np.nan
    np.testing.assert_array_equal(gradient(plan, x, g), expected)


def test_what_is_not_finite_stays_in_its_channel():
    geometry = ConvGeometry((24, 24), 3, padding=1, in_channels=32, out_channels=48)
    plan = WinogradGradientPlan(PATHS[0], FLOATS["float32"], geometry, 4)
    x, g = arrays(geometry, 1, np.float32)
    clean = gradient(plan, x, g)
    x[0, 9, 9, 5] = g[0, 7, 3, 40] = np.nan
    spoilt = gradient(plan, x, g)
    assert np.isnan(spoilt[:, :, 5]).all() and np.isnan(spoilt[..., 40]).all()
    spoilt[:, :, 5], spoilt[..., 40] = clean[:, :, 5], clean[..., 40]
    np.testing.assert_array_equal(spoilt, clean)


def test_where_it_is_chosen():
    path, element = vector.PATHS["avx512"], FLOATS["float32"]

    def preferred(size, channels, kernel=3, stride=1):
        geometry = ConvGeometry(
            size, kernel, strides=stride, padding=1, in_channels=channels, out_channels=channels
        )
        return winograd_gradient.preferred(geometry, "kernel_gradient", element, path)

    for size, channels in (((80, 120), 64), ((40, 60), 128), ((20, 30), 256), ((10, 15), 512)):
        assert preferred(size, channels)
    assert preferred((32, 32), 128, 4, 2)
    assert not preferred((80, 120), 8)
    assert not preferred((7, 7), 512), "a sum of four squares does not pay for its transform"
    assert not preferred((8, 8), 1024)


def test_what_is_asked_for_is_planned():
    geometry = ConvGeometry((9, 9), 3, padding=1, in_channels=32, out_channels=32)
    words = {
        algorithm: str(
            cpu_plan("kernel_gradient", geometry, np.dtype("f4"), Options(algorithm=algorithm))
        )
        for algorithm in ("direct", "winograd", None)
    }
    assert "cpu: winograd F(" in words["winograd"] and "asked for" in words["winograd"]
    assert "winograd" not in words["direct"] + words[None]
    x, g = arrays(geometry, 2, np.float32)
    np.testing.assert_allclose(
        *(
            conv_kernel_gradient(x, g, 3, padding=1, algorithm=name, backend="cpu")
            for name in ("direct", "winograd")
        ),
        atol=1e-4,
    )


@pytest.mark.parametrize(
    "change",
    [{"dilations": 2}, {"groups": 2}, {"kernel_size": 5}, {"kernel_size": (3, 2)}, {"strides": 2}],
    ids=str,
)
def test_it_is_refused_where_it_does_not_apply(change):
    arguments = {"kernel_size": 3, **change}
    size = arguments.pop("kernel_size")
    x = np.ones((1, 12, 12, 32), np.float32)
    geometry = ConvGeometry((12, 12), size, in_channels=32, out_channels=32, **arguments)
    g = np.ones((1, *geometry.output_shape), np.float32)
    with pytest.raises(ValueError, match="^algorithm: expected None or 'direct' here"):
        conv_kernel_gradient(x, g, size, algorithm="winograd", backend="cpu", **arguments)
