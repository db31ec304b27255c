"""Every kernel of the package is right, in every order of threads and copies, and on a GPU too."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convarith import ConvGeometry
from convarith.backends.cuda import labels
from convarith.backends.cuda.compile import FOLDER
from convarith.backends.cuda.depthwise import DepthwiseStripMap
from convarith.backends.cuda.separable import SeparableMap
from convarith.namespace import on_host
from convarith.testing import geometries, random_array, tile_geometries

from . import build, host
from .aimed import AIMED
from .problems import INNER, Problem, assert_same_bits, laid

#: Seeds, and when asynchronous copies are made.
ORDERS = ((1, host.AT_ISSUE), (2, host.AT_WAIT), (3, host.RANDOM))
#: Whose sums are in an order that the tensor cores choose.
TENSOR_CORES = {"map_mma", "gradient_mma"}


def test_every_kernel_is_aimed_at():
    names = {name for aimed in AIMED for name in aimed.kernels}
    assert names | {"argmax"} == {path.stem for path in FOLDER.glob("*.cu")}


@pytest.mark.parametrize("aimed", AIMED, ids=str)
def test_a_kernel_runs_and_is_right(request, device, aimed):
    device.multiprocessors = aimed.multiprocessors
    result = aimed.problem.run(device)
    for name, constants in aimed.kernels.items():
        assert device.ran(name, **constants), f"{name} of {constants}: {device.launches} ran"
    aimed.problem.check(result)
    if device.on_host:
        for seed, cp_mode in ORDERS:
            with device.in_order(seed, cp_mode):
                assert_same_bits(aimed.problem.run(device), result)
    elif not TENSOR_CORES & set(aimed.kernels) and build.missing() is None:
        assert_same_bits(aimed.problem.run(request.getfixturevalue("host_device")), result)


SEEDS = st.integers(0, 2**32 - 1)
#: Kernels to draw geometries for, whatever planning would take, with a dtype and a precision.
DRAWN = {
    "map_plain": ("float64", "float32"),
    "map_few": ("float32", "float32"),
    "map_ffma": ("float32", "float32"),
    "map_mma": ("float16", "float32"),
    "depthwise": ("float32", "float32"),
    "gradient_plain": ("int32", "float32"),
    "gradient_ffma": ("float32", "float32"),
    "gradient_mma": ("float32", "tf32"),
}

#: Those that are compiled anew for other numbers of results, or of taps.
SMALL = ("map_few", "depthwise")
#: Those that copy asynchronously, whose races a sanitizer sees.
REDUCED = ("map_ffma", "gradient_mma")


@pytest.mark.parametrize(
    "kernel",
    [pytest.param(name, marks=pytest.mark.sanitized if name in REDUCED else ()) for name in DRAWN],
)
@settings(max_examples=max(5, settings().max_examples // 12))
@given(drawn=st.data())
def test_a_kernel_is_right_for_any_geometry(device, kernel, drawn):
    small = geometries(max_channels=1 if kernel == "depthwise" else 3)
    tiles = tile_geometries(max_products=40_000)
    geometry = drawn.draw(small if kernel in SMALL else small | tiles)
    dtype, precision = DRAWN[kernel]
    maps = ("forward", "transpose")
    products = ("kernel_gradient",) if kernel.startswith("gradient") else maps
    product = drawn.draw(st.sampled_from(products))
    numbers = {"dtype": dtype, "precision": precision, "kernel": kernel}
    problem = Problem(
        product, geometry, **numbers, batch=drawn.draw(st.integers(1, 3)), seed=drawn.draw(SEEDS)
    )
    way = {} if product == "kernel_gradient" else {"transposed": product == "transpose"}
    if kernel not in ("map_plain", "gradient_plain"):
        of_kernel = getattr(INNER[kernel], "func", INNER[kernel])
        assume(of_kernel.applies(geometry, np.dtype(dtype), **way))
    assume(problem.plan() is not None)
    device.multiprocessors = drawn.draw(st.sampled_from((1, 8, 132)))
    with device.in_order(problem.seed, drawn.draw(st.sampled_from(range(3)))):
        result = problem.run(device)
    assert device.ran(kernel)
    problem.check(result)


@settings(max_examples=max(5, settings().max_examples // 12))
@given(
    taps=st.sampled_from(((3, 3), (1, 2), (2, 4), (4, 1), (9, 1), (2, 2))),
    size=st.tuples(st.integers(1, 40), st.integers(1, 20)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    padding=st.tuples(*4 * [st.integers(-1, 9)]),
    channels=st.sampled_from((4, 8, 24, 40)),
    batch=st.integers(1, 4),
    dtype=st.sampled_from(("float32", "bfloat16")),
    multiprocessors=st.sampled_from((1, 4, 132)),
    seed=SEEDS,
)
def test_strips_are_right_for_any_geometry(
    device, taps, size, strides, padding, channels, batch, dtype, multiprocessors, seed
):
    geometry = ConvGeometry(
        size,
        taps,
        strides=strides,
        padding=(padding[:2], padding[2:]),
        groups=channels,
        in_channels=channels,
        out_channels=channels,
    )
    assume(0 not in geometry.output_size)
    problem = Problem("forward", geometry, dtype=dtype, batch=batch, seed=seed)
    way = {"dtype": problem.arrays["source"].dtype, "transposed": False}
    assume(DepthwiseStripMap.applies(geometry, **way))
    device.multiprocessors = multiprocessors
    result = problem.run(device)
    assert device.ran("depthwise_strip")
    problem.check(result)


@settings(max_examples=max(5, settings().max_examples // 4))
@given(
    product=st.sampled_from(("forward", "transpose")),
    structure=st.sampled_from(("bilinear", "separable")),
    size=st.tuples(st.integers(1, 14), st.integers(1, 70)),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    less=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dilations=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*4 * [st.integers(-1, 3)]),
    channels=st.sampled_from((2, 3, 4, 5, 21, 64)),
    batch=st.integers(1, 4),
    multiprocessors=st.sampled_from((1, 4, 132)),
    seed=SEEDS,
)
def test_rows_times_columns_are_right_for_any_geometry(
    device,
    product,
    structure,
    size,
    taps,
    less,
    strides,
    dilations,
    padding,
    channels,
    batch,
    multiprocessors,
    seed,
):
    transposed = product == "transpose"
    # So many taps a result, of some phases one less.
    of_results = strides if transposed else (1, 1)
    kernel = (max(2, t * s - m) for t, s, m in zip(taps, of_results, less, strict=True))
    geometry = ConvGeometry(
        size,
        tuple(kernel),
        strides=strides,
        dilations=dilations,
        padding=(padding[:2], padding[2:]),
        groups=channels,
        in_channels=channels,
        out_channels=channels,
    )
    assume(0 not in geometry.output_size)
    assume(SeparableMap(geometry, np.dtype(np.float32), transposed=transposed).applies())
    problem = Problem(product, geometry, structure=structure, batch=batch, seed=seed)
    device.multiprocessors = multiprocessors
    with device.in_order(seed):
        result = problem.run(device)
    problem.check(result)
    assert device.ran("separable")


@pytest.mark.sanitized
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint64"])
@pytest.mark.parametrize("channels", [1, 2, 5, 8, 21])
def test_labels_are_the_first_largest_channel(device, dtype, channels):
    rng = np.random.default_rng(channels)
    for shape in ((), (1,), (3, 43), (257,), (2, 5, 26)):
        x = random_array(rng, (*shape, channels), np.dtype(dtype))
        if x.dtype.kind == "f":
            x[rng.random(x.shape) < 0.1] = np.nan
            x[rng.random(x.shape) < 0.1] = np.inf
        x[rng.random(x.shape) < 0.2] = 1
        for layout in ("C", "odd"):
            with device.current():
                result = labels.argmax(laid(device.xp, x, layout))
            assert device.ran("argmax")
            np.testing.assert_array_equal(on_host(result), x.argmax(-1), strict=True)
