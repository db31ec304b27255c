"""The public checkers catch what they are for."""

import collections

import numpy as np
import pytest
from hypothesis import find, given, seed, settings

from convarith import ConvGeometry, bilinear_kernel, conv, conv_kernel_gradient, conv_transpose
from convarith.testing import (
    LAYOUTS,
    STRUCTURES,
    Guarded,
    assert_adjoint,
    assert_close,
    assert_product,
    geometries,
    kernels_and_inputs,
    naive,
    quick,
    random_array,
    small_integers,
    structured_kernel,
    tile_geometries,
)


def test_a_fuzz_in_three_lines():
    @given(kernels_and_inputs())
    def test_mine(case):
        assert_close(conv(case.x, case.kernel, **case.arguments), "forward", case)

    test_mine()


@pytest.mark.parametrize(
    "mistake",
    [
        lambda case: case.arguments | {"padding": [(b, a) for a, b in case.geometry.padding]},
        lambda case: case.arguments | {"dilations": 1},
        lambda case: case.arguments | {"strides": 1},
    ],
    ids=["padding sides exchanged", "dilations dropped", "strides dropped"],
)
def test_a_wrong_convolution_is_found(mistake):
    @settings(report_multiple_bugs=False)
    @given(kernels_and_inputs())
    def test_mine(case):
        assert_close(conv(case.x, case.kernel, **mistake(case)), "forward", case)

    with pytest.raises(AssertionError):
        test_mine()


@pytest.mark.parametrize("product", ["forward", "transpose", "kernel_gradient"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "complex64"])
def test_one_wrong_entry_is_found(product, dtype):
    case = find(
        kernels_and_inputs(dtypes=(dtype,), max_batch=1),
        lambda case: len(case.x) and case.geometry.nnz > 20,
    )
    exact = naive(product, case.geometry, *case.operands(product)).astype(dtype)
    assert_close(exact, product, case)
    wrong = exact.copy()
    wrong.flat[0] += 1 if dtype == "int8" else 1000 * np.finfo(dtype).eps
    with pytest.raises(AssertionError):
        assert_close(wrong, product, case)
    with pytest.raises(AssertionError, match="dtype"):
        assert_close(exact.astype("complex128"), product, case)


def test_assert_adjoint_finds_a_wrong_adjoint():
    kernel = np.array([1.0, 2.0, 4.0])

    def forward(x):
        return conv(x, kernel, strides=2, padding="SAME")

    def adjoint(y):
        return conv_transpose(y, kernel, strides=2, padding="SAME", output_size=9)

    assert_adjoint(forward, adjoint, (9,), (5,))
    with pytest.raises(AssertionError, match="differ by"):
        assert_adjoint(forward, lambda y: adjoint(y)[::-1], (9,), (5,))
    with pytest.raises(AssertionError, match="adjoint: expected shape"):
        assert_adjoint(forward, lambda y: adjoint(y)[:-1], (9,), (5,))
    with pytest.raises(AssertionError, match="differ by"):
        assert_adjoint(forward, lambda y: adjoint(y) * (1 + 1e-12), (9,), (5,))


def test_assert_adjoint_conjugates():
    kernel = np.array([1 + 2j, 3 - 1j])

    def forward(x):
        return conv(x, kernel)

    def transpose(y):
        return conv_transpose(y, kernel)

    assert_adjoint(forward, lambda y: conv_transpose(y, kernel.conj()), (5,), (4,), dtype=complex)
    with pytest.raises(AssertionError, match="differ by"):
        assert_adjoint(forward, transpose, (5,), (4,), dtype=complex)


def test_the_strategies_cover_what_they_say():
    wanted = [
        lambda g: g.rank == 3 and 0 not in g.output_size,
        lambda g: 0 in g.input_size,
        lambda g: 0 in g.output_size and 0 not in g.input_size,
        lambda g: any(low < 0 for low, _ in g.padding) and g.nnz,
        lambda g: any(k < s for k, s in zip(g.kernel_size, g.strides, strict=True)) and g.nnz,
        lambda g: g.groups == g.in_channels > 1 and g.nnz,
        lambda g: any(u > 0 for u in g.unread) and g.nnz,
        lambda g: max(g.dilations) > 1 and max(g.strides) > 1 and g.nnz,
    ]
    for condition in wanted:
        assert condition(find(geometries(), condition))


def test_naive_knows_the_textbook():
    x, kernel = np.arange(1, 17).reshape(1, 4, 4, 1), np.arange(1, 10).reshape(3, 3, 1, 1)
    geometry = ConvGeometry((4, 4), 3)
    y = naive("forward", geometry, x, kernel)
    assert y.ravel().tolist() == [348, 393, 528, 573]
    np.testing.assert_array_equal(
        naive("transpose", geometry, y, kernel), conv_transpose(y, kernel)
    )
    np.testing.assert_array_equal(
        naive("kernel_gradient", geometry, x, y), conv_kernel_gradient(x, y, 3)
    )


@given(case=kernels_and_inputs(max_batch=3))
def test_the_quick_oracle_is_the_naive_one(case):
    for product in ("forward", "transpose", "kernel_gradient"):
        operands = case.operands(product)
        slow, fast = (
            naive(product, case.geometry, *operands),
            quick(product, case.geometry, *operands),
        )
        assert (slow.shape, slow.dtype) == (fast.shape, fast.dtype)
        if slow.dtype.kind in "iu":
            np.testing.assert_array_equal(fast, slow)
        else:
            size = naive(product, case.geometry, *(np.abs(each) for each in operands))
            assert (np.abs(fast - slow) <= 100 * np.finfo(slow.dtype).eps * size).all()


@settings(max_examples=30)
@given(case=kernels_and_inputs(tile_geometries(max_products=3000), dtypes=("int8", "uint8")))
def test_the_quick_oracle_at_the_edges_of_tiles(case):
    for product in ("forward", "transpose", "kernel_gradient"):
        operands = case.operands(product)
        np.testing.assert_array_equal(
            quick(product, case.geometry, *operands), naive(product, case.geometry, *operands)
        )


@pytest.mark.parametrize("product", ["forward", "transpose"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "complex64"])
@pytest.mark.parametrize("size", [6, 300], ids=["naive", "quick"])
def test_an_epilogue_is_part_of_the_result(product, dtype, size):
    rng = np.random.default_rng(0)
    geometry = ConvGeometry(size, 3, padding="SAME", in_channels=2, out_channels=2)
    source, kernel = random_array(rng, (1, size, 2), dtype), random_array(rng, (3, 2, 2), dtype)
    parts = {name: random_array(rng, (2,), dtype) for name in ("scale", "bias")}
    parts["residual"] = random_array(rng, (1, size, 2), dtype)
    if dtype != "complex64":
        parts["activation"] = "relu"
    call = conv if product == "forward" else conv_transpose
    actual = call(source, kernel, padding="SAME", backend="reference", **parts)
    assert_product(actual, product, geometry, source, kernel, **parts)
    for name in parts:
        less = {key: value for key, value in parts.items() if key != name}
        with pytest.raises(AssertionError):
            assert_product(actual, product, geometry, source, kernel, **less)


def test_winograd_is_allowed_what_its_tile_is():
    geometry = ConvGeometry(4, 1)
    x, kernel = np.array([1, 1, 1, 1e6]).reshape(1, 4, 1), np.ones((1, 1, 1))
    wrong = x + 1e-12
    assert_product(wrong, "forward", geometry, x, kernel, algorithm="winograd")
    with pytest.raises(AssertionError, match="error 1e-12"):
        assert_product(wrong, "forward", geometry, x, kernel)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "int8", "complex128"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (2, 0, 3)], ids=str)
def test_guard_bands(layout, dtype, shape):
    values = small_integers(np.random.default_rng(0), shape, dtype)
    guarded = Guarded(values, layout)
    np.testing.assert_array_equal(guarded.array, values)
    guarded.assert_untouched()
    for there in ({"inside": True}, {"inside": False}):
        for distance in (-1, 1):
            guarded = Guarded(values, layout)
            low, high = np.lib.array_utils.byte_bounds(guarded.array)
            start = low - guarded.array.itemsize if distance < 0 else high
            place = start - guarded._bytes.__array_interface__["data"][0]
            beside = np.ndarray((), dtype, guarded._bytes, place)
            assert not np.isfinite(beside) if dtype != "int8" else beside == -1
            beside[...] = 5
            with pytest.raises(AssertionError, match="were changed"):
                guarded.assert_untouched(**there)
    guarded = Guarded(values, layout)
    guarded.array[...] = 9
    guarded.assert_untouched(inside=False)
    if values.size:
        with pytest.raises(AssertionError, match="in or around"):
            guarded.assert_untouched()


def test_layouts_are_what_they_say():
    arrays = {layout: Guarded(np.ones((2, 3, 4)), layout).array for layout in LAYOUTS}
    assert arrays["C"].flags.c_contiguous and arrays["C"].__array_interface__["data"][0] % 64 == 0
    assert arrays["odd"].flags.c_contiguous and arrays["odd"].__array_interface__["data"][0] % 64
    assert arrays["F"].flags.f_contiguous and not arrays["F"].flags.c_contiguous
    assert arrays["unaligned"].flags.c_contiguous and not arrays["unaligned"].flags.aligned
    assert arrays["cropped"].strides[-1] == 8 and not arrays["cropped"].flags.c_contiguous
    assert arrays["sparse"].strides[-1] == 16 and arrays["reversed"].strides[-1] == -8
    assert not arrays["swapped"].dtype.isnative


def test_structures_are_what_they_say():
    geometry = ConvGeometry((9, 9), 4, groups=2, in_channels=6, out_channels=6)
    made = {
        name: structured_kernel(np.random.default_rng(1), geometry, "float64", name)
        for name in STRUCTURES
    }

    def is_diagonal(kernel):
        return not kernel[..., ~np.tile(np.eye(3, dtype=bool), 2)].any()

    def is_separable(kernel):
        planes = np.moveaxis(kernel, (0, 1), (-2, -1)).reshape(-1, 4, 4)
        return all(np.linalg.matrix_rank(plane) <= 1 for plane in planes)

    assert {name for name in made if is_diagonal(made[name])} == {
        *("diagonal", "diagonal separable", "bilinear", "zero")
    }
    plain = [name for name in made if "nearly" not in name]
    assert {name for name in plain if is_separable(made[name])} == {
        *("separable", "diagonal separable", "bilinear", "constant", "zero", "one tap")
    }
    assert np.unique(made["constant"]).size == 1 and not made["zero"].any()
    for name in ("diagonal", "separable", "bilinear"):
        assert np.count_nonzero(made[name] != made[f"nearly {name}"]) == 1
    np.testing.assert_array_equal(
        made["bilinear"][:, :, 0, 0], bilinear_kernel(1, 1, 4)[:, :, 0, 0]
    )


def test_the_tiles_strategy_covers_what_it_says():
    def strides_beyond(g):
        return any(k < s for k, s in zip(g.kernel_size, g.strides, strict=True))

    wanted = {
        "3 axes": lambda g: g.rank == 3,
        "1 axis": lambda g: g.rank == 1,
        "29 outputs": lambda g: g.output_size[-1] == 29,
        "15 inputs": lambda g: g.input_size[-1] == 15,
        "17 channels out": lambda g: g.out_channels == 17 and g.groups == 1,
        "65 channels in": lambda g: g.in_channels == 65 and g.groups == 1,
        "FCN-8s": lambda g: g.kernel_size[-1] == 16 and g.strides[-1] == 8,
        "dilated": lambda g: g.kernel_size[-1] == 7 and g.dilations[-1] == 3,
        "strides beyond kernels": strides_beyond,
        "depthwise": lambda g: 16 < g.groups == g.in_channels == g.out_channels,
        "channel multiplier": lambda g: 3 * g.groups == 3 * g.in_channels == g.out_channels > 3,
        "groups": lambda g: 1 < g.groups < min(g.in_channels, g.out_channels),
        "cropped": lambda g: any(min(sides) < 0 for sides in g.padding),
        "windows in the padding": lambda g: any(
            max(sides) > span
            for sides, span in zip(g.padding, g.effective_kernel_size, strict=True)
        ),
    }
    found = collections.Counter()

    @seed(0)
    @settings(max_examples=1000, database=None)
    @given(tile_geometries())
    def look(geometry):
        found["empty"] += not geometry.nnz
        for name, condition in wanted.items():
            found[name] += bool(geometry.nnz and condition(geometry))

    look()
    assert found["empty"] < 500
    assert all(found[name] >= 3 for name in wanted), found
