"""Kernels at the edges: epilogues, infinities, odd addresses, several launches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convarith import ConvGeometry
from convarith.backends import Options, reference
from convarith.backends.cuda import depthwise, gradients, law, maps, separable, strips
from convarith.backends.protocol import PLAIN

from .aimed import PLANE, deep_channels, geometry
from .problems import Problem, assert_same_bits

PARTS = ("scale", "bias", "residual")
DEEP = geometry((3, 4), 3, (1, deep_channels("map_ffma", 4), 37), padding="SAME")
#: One problem a map kernel. All read padding, and their channels are no whole chunks but DEEP's.
MAPS = {
    "map_plain": Problem(
        "transpose", geometry((5, 9), (3, 2), (2, 3, 2), **PLANE), dtype="float64"
    ),
    "map_few": Problem("transpose", geometry((6, 50), (2, 3), (2, 3, 3), **PLANE)),
    "map_ffma": Problem("forward", geometry((5, 8), (3, 2), (2, 35, 37), **PLANE)),
    "map_mma": Problem(
        "transpose", geometry((5, 8), (3, 2), (2, 35, 37), **PLANE), dtype="float16"
    ),
    "depthwise": Problem(
        "forward", geometry((5, 11), 3, (8, 1, 1), padding="SAME"), kernel="depthwise"
    ),
    "depthwise_strip": Problem("forward", geometry((9, 11), 3, (8, 1, 1), padding="SAME")),
    "separable": Problem(
        "transpose", geometry((12, 18), 4, (6, 1, 1), strides=2, padding=1), structure="bilinear"
    ),
}
GRADIENTS = {
    "gradient_plain": Problem(
        "kernel_gradient", geometry((5, 8), (3, 2), (2, 5, 7), **PLANE), dtype="float64"
    ),
    "gradient_ffma": Problem("kernel_gradient", geometry((5, 8), (3, 2), (2, 5, 7), **PLANE)),
    "gradient_mma": Problem(
        "kernel_gradient", geometry((5, 8), (3, 2), (2, 5, 7), **PLANE), dtype="float16"
    ),
    "gradient_depthwise": Problem(
        "kernel_gradient", geometry((5, 8), 3, (8, 1, 1), padding="SAME"), dtype="float16"
    ),
}
ALL = MAPS | GRADIENTS


@pytest.mark.parametrize("kernel", MAPS)
@pytest.mark.parametrize("parts", [PARTS, ("bias",)], ids="-".join)
@pytest.mark.parametrize("activation", [None, "relu", "relu6"], ids=str)
def test_an_epilogue(device, kernel, parts, activation):
    problem = MAPS[kernel].changed(parts=parts, activation=activation)
    result = problem.run(device)
    assert device.ran(kernel)
    problem.check(result)


def test_an_epilogue_of_integers_wraps_before_its_activation(device):
    of = geometry((5, 9), (3, 2), (2, 3, 2), **PLANE)
    for dtype, activation in (("int8", "relu"), ("uint8", "relu6"), ("int64", "relu6")):
        problem = Problem("forward", of, dtype=dtype, parts=PARTS, activation=activation)
        problem.check(problem.run(device))


@pytest.mark.parametrize("kernel", ["map_mma", "depthwise", "depthwise_strip", "separable"])
def test_an_epilogue_in_float32_of_halves(device, kernel):
    problem = MAPS[kernel].changed(parts=PARTS, dtype="float16")
    half = problem.arrays
    wide = {name: half[name].astype(np.float32) for name in PARTS}
    result = problem.run(device)
    assert device.ran(kernel, PART="f16", RESIDUAL="f16")
    for arrays, part, residual in (
        ({"residual": half["residual"]}, "f32", "f16"),
        ({name: half[name] for name in ("scale", "bias")}, "f16", "f32"),
        ({"bias": half["bias"]}, "f32", "f32"),
        ({}, "f32", "f32"),
    ):
        assert_same_bits(problem.run(device, arrays=wide | arrays), result)
        assert device.ran(kernel, PART=part, RESIDUAL=residual)


@pytest.mark.sanitized
@pytest.mark.parametrize(("kernel", "dtype"), [("map_ffma", "float32"), ("map_mma", "float16")])
@pytest.mark.parametrize("filters", [1, 5])
def test_an_epilogue_of_few_channels(device, kernel, dtype, filters):
    """It reads no more of scale and bias than there is."""
    of = geometry((5, 8), (3, 2), (1, 35, filters), **PLANE)
    problem = Problem("forward", of, dtype=dtype, parts=PARTS, kernel=kernel)
    wide = {name: problem.arrays[name].astype(np.float32) for name in PARTS}
    result = problem.run(device)
    assert device.ran(kernel)
    problem.check(result)
    assert_same_bits(problem.run(device, arrays=wide), result)


#: Of 13 rows of results an image, which few strips divide.
OF_ROWS = {
    "depthwise_strip": Problem(
        "forward", geometry((13, 11), 3, (8, 1, 1), padding="SAME"), batch=5
    ),
    "separable": Problem(
        *("transpose", geometry((13, 18), 4, (6, 1, 1), strides=2, padding=1)),
        structure="bilinear",
        batch=5,
    ),
}


@pytest.fixture
def made(monkeypatch):
    """A list of the rows that blocks make, which may begin in any row of an image."""
    monkeypatch.setattr(strips, "LONG", 99)
    rows = []

    def watched(*arguments):
        rows.append(strips.strips(*arguments)[0])
        return strips.strips(*arguments)

    for module in (depthwise, separable):
        monkeypatch.setattr(module, "strips", watched)
    return rows


@pytest.mark.parametrize("kernel", OF_ROWS)
def test_strips_of_several_images_and_images_of_several_launches(device, kernel, made, monkeypatch):
    problem = OF_ROWS[kernel]
    device.multiprocessors = 64
    whole = problem.run(device)
    problem.check(whole)
    for multiprocessors in (1, 8):
        device.multiprocessors = multiprocessors
        assert_same_bits(problem.run(device), whole)
    for module in (depthwise, separable):
        monkeypatch.setattr(module, "MOST_ROWS", 2 * 13)
    assert_same_bits(problem.run(device), whole)
    assert device.ran(kernel) == 3
    monkeypatch.setattr(strips, "MOST_GRID", 2)
    assert_same_bits(problem.run(device), whole)
    assert min(made) < 13 and any(13 % rows and rows > 1 for rows in made)


@pytest.mark.races
@pytest.mark.parametrize("kernel", OF_ROWS)
def test_from_one_image_to_the_next(device, kernel, made):
    problem = OF_ROWS[kernel].changed(batch=3)
    device.multiprocessors = 1
    problem.check(problem.run(device))
    assert device.ran(kernel) and 13 % made[0]


@settings(max_examples=max(50, settings().max_examples))
@given(
    batch=st.integers(1, 4096),
    of_image=st.integers(1, 2000),
    across=st.integers(1, 300),
    wanted=st.integers(1, 200_000),
    least=st.integers(1, 16),
    multiprocessors=st.integers(1, 1000),
)
def test_strips_are_of_all_rows(batch, of_image, across, wanted, least, multiprocessors):
    rows, blocks = strips.strips(batch, of_image, across, wanted, least, multiprocessors)
    assert 1 <= blocks <= law.MOST_GRID
    assert (blocks - 1) * rows < batch * of_image <= blocks * rows


def test_a_row_of_sources_beyond_32_bits_is_not_taken_in_strips():
    long = ConvGeometry(
        2**27 + 16, 3, padding=((-(2**27 - 16), 0),), groups=4, in_channels=4, out_channels=4
    )
    assert not depthwise.DepthwiseStripMap.applies(long, np.dtype("float32"), transposed=False)


def expected(problem, arrays):
    """Return the reference's result of other numbers, in float64."""
    plan = reference.plan(problem.product, problem.geometry, np.dtype(float), Options())
    operand = plan.pack(arrays["operand"].astype(float))
    return plan.run(arrays["source"].astype(float), operand, None, PLAIN)


@pytest.mark.parametrize(
    ("kernel", "problem", "multiprocessors"),
    [
        *((name, problem, 8) for name, problem in ALL.items() if name != "separable"),
        *(("map_ffma", Problem("forward", DEEP), most) for most in (1, 64)),
    ],
)
def test_infinities_go_where_they_belong(device, kernel, problem, multiprocessors):
    device.multiprocessors = multiprocessors
    arrays = {name: array.copy() for name, array in problem.arrays.items()}
    operand = arrays["operand"]
    # At corners, where taps (of g: results) have the padding before and behind them.
    operand.flat[0], operand.flat[-1], operand.flat[operand.size // 2] = np.inf, -np.inf, np.nan
    with np.errstate(all="ignore"):
        right = expected(problem, arrays)
        result = problem.run(device, arrays=arrays).astype(float)
        assert device.ran(kernel)
        eps = float(np.finfo(problem.numbers).eps)
        near = np.isclose(
            result, right, rtol=4 * eps, atol=4 * eps * problem.terms(), equal_nan=True
        )
    assert 0 < np.isfinite(right).sum() < right.size, "some results are finite, and some are not"
    assert near.all(), f"{result[~near]} for {right[~near]}"


def test_a_source_that_is_not_finite_is_not_spread(device):
    for kernel, problem in MAPS.items():
        source = problem.arrays["source"].copy()
        source.flat[0], source.flat[-1] = np.inf, np.nan
        arrays = {**problem.arrays, "source": source}
        finite = np.isfinite(problem.run(device, arrays=arrays))
        assert device.ran(kernel)
        np.testing.assert_array_equal(finite, np.isfinite(expected(problem, arrays)))


@pytest.mark.races
@pytest.mark.parametrize("kernel", ALL)
def test_once(device, kernel):
    """Each kernel as it is mostly launched, with the barriers that it has."""
    problem = ALL[kernel].changed(batch=1)
    problem.check(problem.run(device))
    assert device.ran(kernel)


@pytest.mark.sanitized
@pytest.mark.parametrize("kernel", ALL)
def test_addresses_and_layouts_change_no_bit(device, kernel):
    problem = ALL[kernel].changed(parts=() if kernel in GRADIENTS else PARTS)
    result = problem.run(device)
    assert device.ran(kernel)
    for layouts in (
        {"source": "odd"},
        {"operand": "odd"},
        {"out": "odd"},
        {"source": "sparse", "operand": "sparse", "out": "sparse"},
    ):
        assert_same_bits(np.ascontiguousarray(problem.run(device, **layouts)), result)


@pytest.mark.sanitized
@pytest.mark.parametrize("kernel", ["map_ffma", "depthwise"])
def test_a_map_may_take_several_launches(device, monkeypatch, kernel):
    # As sums are in any launch, and the tiles chosen for a smaller batch change nothing.
    problem = MAPS[kernel].changed(batch=5, kernel=kernel, parts=("scale", "residual"))
    result = problem.run(device)
    assert device.ran(kernel) == 1
    of = problem.geometry
    # Two images a launch: of pixels for the one, of threads for the other.
    pixels = max(np.prod(of.input_size), np.prod(of.output_size))
    limit = {"map_ffma": int(pixels), "depthwise": 5 * 3 * 2}[kernel]
    monkeypatch.setattr(maps if kernel == "map_ffma" else depthwise, "MOST", 4 * limit)
    assert_same_bits(problem.run(device), result)
    assert device.ran(kernel) == 3


def test_sources_that_32_bits_of_chunks_do_not_reach(device, monkeypatch):
    problem = MAPS["map_ffma"].changed(batch=5)
    result = problem.run(device)
    of = problem.geometry
    chunks = np.prod(of.input_size) * of.groups * -(-of.in_channels // of.groups // 4)
    monkeypatch.setattr(maps, "MOST_CHUNKS", int(2 * chunks + 1))  # two images a launch
    assert_same_bits(problem.run(device), result)
    assert device.ran("map_ffma") == 3
    monkeypatch.setattr(maps, "MOST_CHUNKS", int(chunks))
    problem.check(problem.run(device))
    assert device.ran("map_plain") == 1


@pytest.mark.sanitized
@pytest.mark.parametrize("kernel", ["gradient_ffma", "gradient_mma"])
def test_a_gradient_may_take_several_launches(device, monkeypatch, kernel):
    problem = GRADIENTS[kernel].changed(batch=5, kernel=kernel)
    monkeypatch.setattr(gradients, "MOST", 4 * 5 * 8)
    result = problem.run(device)
    assert (device.ran(kernel), device.ran("sum_parts")) == (3, 1)
    problem.check(result)


def test_a_batch_of_one_and_one_pixel(device):
    for product in ("forward", "transpose", "kernel_gradient"):
        of = ConvGeometry((1, 1), 1, in_channels=1, out_channels=33)
        problem = Problem(product, of, batch=1)
        problem.check(problem.run(device))


@pytest.mark.parametrize("product", ["forward", "transpose", "kernel_gradient"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_axes_that_32_bits_do_not_reach(device, monkeypatch, product, dtype):
    """They are too long to be run here: a short one is taken for one of them."""
    monkeypatch.setattr(law, "MOST_COORDINATE", 2)
    problem = Problem(product, geometry((5, 8), (3, 2), (2, 5, 7), **PLANE), dtype=dtype)
    result = problem.run(device)
    kernel = "gradient_plain" if product == "kernel_gradient" else "map_plain"
    assert device.ran(kernel, WIDE=1)
    problem.check(result)
